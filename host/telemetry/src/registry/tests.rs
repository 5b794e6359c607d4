use std::time::Duration;

use super::Registry;

fn lines(registry: &Registry, name: &str) -> Vec<String> {
    let text = registry.render();
    text.lines()
        .filter(|line| line.contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn counters_of_a_family_share_help_and_type() {
    let registry = Registry::new();
    let count = |part| registry.counter("levada_x_events", "Events seen", &[("part", part)]);
    count("sources.a").add(3);
    count("sources.b").add(4);
    count("sources.a").add(5);
    assert_eq!(count("sources.a").get(), 8);
    let mut lines = lines(&registry, "levada_x_events");
    lines.sort();
    assert_eq!(
        lines,
        [
            "# HELP levada_x_events Events seen.",
            "# TYPE levada_x_events counter",
            "levada_x_events_total{part=\"sources.a\"} 8",
            "levada_x_events_total{part=\"sources.b\"} 4",
        ]
    );
}

#[test]
fn every_help_text_ends_in_one_full_stop() {
    let registry = Registry::new();
    registry.counter("levada_a", "Without", &[]).add(1);
    registry.gauge("levada_b", "With.", &[]).set(1);
    registry
        .histogram("levada_c_seconds", "With.", &[])
        .observe(Duration::ZERO);
    let text = registry.render();
    let help = text.lines().filter(|line| line.starts_with("# HELP"));
    let mut ends: Vec<_> = help.filter_map(|line| line.rsplit(' ').next()).collect();
    ends.sort_unstable();
    assert_eq!(ends, ["With.", "With.", "Without."]);
}

#[test]
fn gauges_that_are_computed_are_fresh_at_every_reading() {
    let registry = Registry::new();
    let gauge = registry.gauge("levada_age_seconds", "Age", &[]);
    let age = gauge.clone();
    registry.before_reading(move || age.add(2));
    gauge.set(-5);
    assert_eq!(
        lines(&registry, "levada_age_seconds{").last().unwrap(),
        "levada_age_seconds{} -3"
    );
    assert_eq!(
        lines(&registry, "levada_age_seconds{").last().unwrap(),
        "levada_age_seconds{} -1"
    );
    assert_eq!(gauge.get(), -1);
}

#[test]
fn what_is_computed_before_a_reading_may_use_the_registry() {
    let registry = Registry::new();
    let inner = registry.clone();
    registry.before_reading(move || inner.counter("levada_late_events", "Late", &[]).add(1));
    assert!(registry.render().contains("levada_late_events_total{} 1\n"));
}

#[test]
fn histograms_count_into_buckets_in_seconds() {
    let registry = Registry::new();
    let histogram = registry.histogram("levada_put_seconds", "Puts", &[("part", "sources.a")]);
    histogram.observe(Duration::from_millis(3));
    histogram.observe(Duration::from_secs(1000));
    let lines = lines(&registry, "levada_put_seconds");
    let find = |text: &str| lines.iter().any(|line| line == text);
    assert!(
        find("levada_put_seconds_bucket{le=\"0.002\",part=\"sources.a\"} 0"),
        "{lines:#?}"
    );
    assert!(
        find("levada_put_seconds_bucket{le=\"0.005\",part=\"sources.a\"} 1"),
        "{lines:#?}"
    );
    assert!(
        find("levada_put_seconds_bucket{le=\"100.0\",part=\"sources.a\"} 1"),
        "{lines:#?}"
    );
    assert!(
        find("levada_put_seconds_bucket{le=\"+Inf\",part=\"sources.a\"} 2"),
        "{lines:#?}"
    );
    assert!(
        find("levada_put_seconds_count{part=\"sources.a\"} 2"),
        "{lines:#?}"
    );
    assert!(
        find("levada_put_seconds_sum{part=\"sources.a\"} 1000.003"),
        "{lines:#?}"
    );
}

#[test]
fn label_values_cannot_break_out_of_their_line() {
    let registry = Registry::new();
    let evil = "a\"} 1\nlevada_forged_total{x=\"\\";
    registry
        .counter("levada_guest_events", "From a guest", &[("name", evil)])
        .add(1);
    let text = registry.render();
    assert!(
        !text.lines().any(|line| line.starts_with("levada_forged")),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}
