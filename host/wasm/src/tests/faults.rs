//! Guests that loop, grow, overflow and lie: the guilty event is found, its neighbours go on.

use std::time::Instant;

use super::*;

/// Sends one bad event among good ones; gives its dead letter.
async fn guilty(house: &House, spec: &HandlerSpec, bad: &str) -> levada_core::DeadLetter {
    let handler = house.load(spec).await;
    let batch = bodies(["a", "b", "c1", bad, "d", "x", "e"]);
    let (out, mut effects) = call(&*handler, &batch).await.unwrap();
    assert_eq!(texts(&out), ["a", "b", "c1", "d", "e"], "{bad}");
    assert_eq!(effects.dead_letters.len(), 1);
    let letter = effects.dead_letters.remove(0);
    assert_eq!(letter.event, batch.event_bytes(3).unwrap());
    assert!(letter.attempts >= 2);
    // The handler works on.
    assert_eq!(
        texts(&call(&*handler, &bodies(["ok"])).await.unwrap().0),
        ["ok"]
    );
    letter
}

#[tokio::test]
async fn every_fault_is_named_and_alone() {
    let house = house();
    let mut spec = house.spec(PUPPET);
    spec.limits.cpu = Duration::from_millis(30);
    let cases = [
        ("L", Some("cpu"), "the limit `cpu` of 30ms was reached"),
        (
            "G",
            Some("memory"),
            "the limit `memory` of 64MiB was reached",
        ),
        (
            "S",
            Some("wasm-stack"),
            "the limit `wasm-stack` of 256KiB was reached",
        ),
        ("U", None, "unreachable"),
        ("O", None, "out of bounds memory access"),
        ("D", None, "integer divide by zero"),
        ("H", None, ""),
        (
            "M",
            Some("lifted-bytes"),
            "the limit `lifted-bytes` was reached",
        ),
        ("W", None, "broken contract at byte "),
    ];
    for (bad, limit, reason) in cases {
        let letter = guilty(&house, &spec, bad).await;
        assert_eq!(letter.limit.as_deref(), limit, "{bad}: {}", letter.reason);
        assert!(letter.reason.contains(reason), "{bad}: {}", letter.reason);
        let in_guest = ["L", "S", "U", "O", "D"].contains(&bad);
        assert_eq!(
            letter.backtrace.is_some_and(|b| b.contains("wasm")),
            in_guest || bad == "G"
        );
    }
    let failures = "levada_handler_failures_total{part=\"handlers.test\",limit=\"cpu\"}";
    assert!(house.metrics().contains(failures));
}

#[tokio::test]
async fn a_typed_guest_with_a_wrong_count_breaks_its_contract() {
    let house = house();
    let handler = house.load(&house.spec(TYPED)).await;
    let (out, effects) = call(&*handler, &bodies(["a", "U", "b", "t", "w"]))
        .await
        .unwrap();
    assert_eq!(texts(&out), ["a", "b"]);
    let reasons: Vec<_> = effects
        .dead_letters
        .iter()
        .map(|l| l.reason.as_str())
        .collect();
    assert!(reasons[0].contains("unreachable"), "{reasons:?}");
    assert_eq!(
        reasons[1],
        "broken contract at event 0: a name twice in one patch"
    );
    assert_eq!(
        reasons[2],
        "broken contract at event 0: 0 verdicts for 1 events"
    );
}

#[tokio::test]
async fn a_known_guilty_event_is_not_tried_again() {
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    let batch = bodies(["a", "U", "b"]);
    call(&*handler, &batch).await.unwrap();
    let calls = |house: &House| {
        let text = house.registry.render();
        let line = text
            .lines()
            .find(|l| l.starts_with("levada_handler_calls_total"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let before = calls(&house);
    let (out, effects) = call(&*handler, &batch).await.unwrap();
    assert_eq!(texts(&out), ["a", "b"]);
    assert!(effects.dead_letters[0].reason.contains("unreachable"));
    assert_eq!(calls(&house) - before, 2);
}

#[tokio::test]
async fn a_fault_of_the_instance_alone_costs_nothing() {
    // The guest fails in its second call: the same batch runs on a fresh instance.
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    for _ in 0..5 {
        let (out, effects) = call(&*handler, &bodies(["c", "c"])).await.unwrap();
        assert_eq!((out.len(), effects.is_empty()), (2, true));
    }
    // One in two calls met an instance in its second call.
    let retired = "levada_handler_retirements_total{part=\"handlers.test\",reason=\"failure\"} 4";
    assert!(house.shows(retired), "{}", house.registry.render());
    // Where every batch has an instance of its own, it never gets to a second call.
    let mut spec = house.spec(PUPPET);
    spec.reuse = Reuse::Fresh;
    let fresh = house
        .handlers
        .load(&part("handlers.fresh"), &spec)
        .await
        .unwrap();
    let fresh = fresh.interceptor.unwrap();
    for _ in 0..5 {
        call(&*fresh, &bodies(["c"])).await.unwrap();
    }
    let retired = "levada_handler_retirements_total{part=\"handlers.fresh\",reason=\"fresh\"} 5";
    assert!(house.shows(retired), "{}", house.registry.render());
}

#[tokio::test]
async fn a_batch_of_nothing_but_guilty_events_ends() {
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    let names: Vec<_> = (0..200).map(|n| format!("U{n}")).collect();
    let (out, effects) = call(&*handler, &bodies(names.iter().map(String::as_str)))
        .await
        .unwrap();
    assert!(out.is_empty());
    assert_eq!(effects.dead_letters.len(), 200);
    let last = &effects.dead_letters[199].event;
    assert!(last.ends_with(b"U199"));
}

#[tokio::test]
async fn what_happens_to_guilty_events_is_the_operators_choice() {
    let house = house();
    let batch = bodies(["a", "U", "b"]);
    let mut spec = house.spec(PUPPET);
    spec.on_trap = OnTrap::Pass;
    let handler = house.load(&spec).await;
    assert_eq!(
        texts(&call(&*handler, &batch).await.unwrap().0),
        ["a", "U", "b"]
    );
    spec.on_trap = OnTrap::Discard;
    let handler = house.load(&spec).await;
    let (out, effects) = call(&*handler, &batch).await.unwrap();
    assert_eq!(
        (out.len(), effects.counts[0].reason.as_str()),
        (2, "handler failed")
    );
    spec.on_trap = OnTrap::Stop;
    let handler = house.load(&spec).await;
    let error = call(&*handler, &batch).await.unwrap_err();
    assert!(matches!(error, InterceptError::Fatal { .. }));
}

#[tokio::test]
async fn an_instance_with_half_its_memory_in_use_is_given_up() {
    let house = house();
    let mut spec = house.spec(PUPPET);
    spec.limits.memory = 5 << 16;
    let handler = house.load(&spec).await;
    call(&*handler, &bodies(["a"])).await.unwrap();
    let retired = "levada_handler_retirements_total{part=\"handlers.test\",reason=\"memory\"} 1";
    assert!(house.shows(retired), "{}", house.registry.render());
    assert!(house.shows("levada_handler_memory_high_water_bytes{part=\"handlers.test\"} 262144"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_ends_soon_after_its_budget_and_others_run_on() {
    let house = house();
    let mut spec = house.spec(PUPPET);
    spec.limits.cpu = Duration::from_millis(50);
    let handler = house.load(&spec).await;
    let started = Instant::now();
    let (_, effects) = call(&*handler, &bodies(["L"])).await.unwrap();
    // Twice the budget and its ticks, with room for a machine that is busy.
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(effects.dead_letters[0].limit.as_deref(), Some("cpu"));
}

#[tokio::test]
async fn what_two_versions_of_a_handler_do_is_counted_apart() {
    let house = house();
    let other = PUPPET.replace(
        "(global.set $calls (i32.add",
        "nop (global.set $calls (i32.add",
    );
    let mut digests = Vec::new();
    for (wat, calls) in [(PUPPET, 1), (&other, 2)] {
        let spec = house.spec(wat);
        let seen = inspect(&std::fs::read(&spec.component).unwrap()).unwrap();
        let digest = seen.short_digest().to_owned();
        let handler = house.load(&spec).await;
        for _ in 0..calls {
            call(&*handler, &bodies(["a"])).await.unwrap();
        }
        let line = format!(
            "levada_handler_calls_total{{part=\"handlers.test\",digest=\"{digest}\"}} {calls}"
        );
        let shown = house.registry.render();
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in {shown}"
        );
        digests.push(digest);
    }
    assert_ne!(digests[0], digests[1]);
    let shown = house.registry.render();
    for (metric, labels) in [
        ("calls_total", ""),
        ("events_total", ",verdict=\"pass\""),
        ("events_total", ",verdict=\"failed\""),
        ("cpu_nanoseconds_total", ""),
        ("retirements_total", ",reason=\"failure\""),
        ("memory_high_water_bytes", ""),
        ("bisections_total", ""),
        ("failures_total", ",limit=\"cpu\""),
        ("failures_total", ",limit=\"none, a trap\""),
    ] {
        for digest in &digests {
            let labels = format!("{{part=\"handlers.test\"{labels},digest=\"{digest}\"}}");
            let wanted = format!("levada_handler_{metric}{labels} ");
            assert!(shown.contains(&wanted), "{wanted} is not in {shown}");
        }
    }
}
