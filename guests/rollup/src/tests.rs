use super::*;
use levada_sdk::testing::{self, Input, Outcome};

fn settings_of(keep: bool) -> Settings {
    Settings {
        value: "n".into(),
        key: Some("device".into()),
        window_ms: 60_000,
        keep,
    }
}

fn add(settings: &Settings, at: f64, events: &[(&str, &str)]) -> Vec<Outcome> {
    testing::set_received_ms(at);
    let event = |input: Input, (key, body): &(&str, &str)| input.event([("device", *key)], body);
    let input = events.iter().fold(Input::new(), event);
    input.run(|event| settings.add(event)).unwrap()
}

fn closed(settings: &Settings, now: u64) -> Vec<String> {
    testing::set_now_ms(now);
    let events = testing::tick(|| settings.close()).unwrap();
    events.iter().map(|event| event.text()).collect()
}

#[test]
fn a_window_is_given_once_it_is_over_and_only_then() {
    let settings = settings_of(false);
    let outcomes = add(
        &settings,
        1_000.0,
        &[
            ("a", r#"{"n": 1}"#),
            ("b", r#"{"n":-2.5}"#),
            ("a", r#"{"x":{"n":2}}"#),
        ],
    );
    assert!(
        outcomes
            .iter()
            .all(|it| it.discarded() == Some("rolled up"))
    );
    add(&settings, 60_000.0, &[("a", r#"{"n":7}"#)]);
    assert!(closed(&settings, 59_999).is_empty());
    assert_eq!(
        closed(&settings, 60_000),
        [
            r#"{"key":"a","from-ms":0,"to-ms":60000,"count":2,"sum":3,"mean":1.5,"min":1,"max":2}"#,
            r#"{"key":"b","from-ms":0,"to-ms":60000,"count":1,"sum":-2.5,"mean":-2.5,"min":-2.5,"max":-2.5}"#,
        ]
    );
    assert!(closed(&settings, 60_000).is_empty());
    // What comes late makes a further event of its window.
    add(&settings, 59_000.0, &[("a", r#"{"n":4}"#)]);
    let late = closed(&settings, 120_000);
    assert_eq!(late.len(), 2);
    assert!(
        late[0].contains(r#""from-ms":0"#) && late[0].contains(r#""sum":4"#),
        "{late:?}"
    );
}

#[test]
fn what_is_no_number_is_rejected_and_what_is_kept_passes() {
    let settings = settings_of(true);
    for body in [
        "",
        "n",
        r#"{"n":"1"}"#,
        r#"{"m":1}"#,
        r#"{"n":null}"#,
        r#"{"n":1e999}"#,
    ] {
        let outcomes = add(&settings, 0.0, &[("a", body)]);
        assert_eq!(
            outcomes[0].rejected(),
            Some("no number to add up"),
            "{body}"
        );
    }
    let outcomes = add(&settings, 0.0, &[("q\"\n", r#"{"n":1}"#)]);
    assert!(matches!(outcomes[0], Outcome::Passed(_)));
    assert!(closed(&settings, 60_000)[0].starts_with(r#"{"key":"q\"\u000a","#));
}

#[test]
fn sums_survive_being_written() {
    let sums = Sums::of(0.1).with(0.2).with(-1e300);
    assert_eq!(Sums::parse(&sums.text()), Some(sums));
    assert_eq!(Sums::parse("1 2"), None);
}

#[test]
fn settings_are_read_and_wrong_ones_are_fatal() {
    use levada_sdk::testing::{set_setting, settings_asked, settings_described};
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`value`")));
    set_setting("value", "n");
    assert!(Settings::read().is_ok_and(|it| it.window_ms == 60_000 && !it.keep));
    set_setting("window-seconds", "0");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("takes time")));
    set_setting("window-seconds", "5");
    set_setting("keep", "maybe");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`maybe`")));
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
