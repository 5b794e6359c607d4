//! Guests as sinks, on the asynchronous side: what they say, how they fail, and what else goes on.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    task::{Context, Poll, Waker},
};

use levada_core::{Delivery, Lease, Outcome, Outcomes, Peer, RunContext, Sink, SinkError, Stopper};

use super::*;

/// The puppet as a sink: `j` is rejected, `x` comes again after 1.5 s, the rest as ever.
fn sink_puppet() -> String {
    let discard = r#"(call $put (i32.const 0x104) (i32.const 2))
              (i32.store16 (global.get $out) (i32.const 0x6f6e))
              (global.set $out (i32.add (global.get $out) (i32.const 2)))"#;
    let retry = r#"(call $put (i32.const 0x106) (i32.const 6))
              (i32.store (global.get $out) (i32.const 1500))
              (i32.store16 offset=4 (global.get $out) (i32.const 0x6f6e))
              (global.set $out (i32.add (global.get $out) (i32.const 6)))"#;
    assert!(PUPPET.contains(discard));
    PUPPET
        .replace(discard, retry)
        .replace("packed-interceptor", "packed-sink")
        .replace("intercept", "deliver")
}

async fn load(house: &House, spec: &HandlerSpec) -> Box<dyn Sink> {
    let loaded = house.handlers.load(&part("handlers.test"), spec).await;
    let loaded = loaded.unwrap();
    assert!(loaded.interceptor.is_none());
    loaded.sink.unwrap().sink()
}

async fn puppet(house: &House) -> Box<dyn Sink> {
    load(house, &sink_spec(house)).await
}

fn sink_spec(house: &House) -> HandlerSpec {
    let mut spec = house.spec(&sink_puppet());
    spec.limits.delivery_deadline = Duration::from_secs(60);
    spec
}

fn context() -> RunContext {
    RunContext {
        part: part("sinks.web"),
        stop: Stopper::new().1,
        clock: Arc::new(Stopped),
        chance: Chance::seeded(7),
        peer: Peer::default(),
    }
}

async fn deliver(sink: &dyn Sink, batch: &Batch) -> Result<Delivery, SinkError> {
    sink.deliver(&Lease::loose(batch.clone()), &context()).await
}

#[tokio::test]
async fn a_sink_says_what_became_of_each_event() {
    let house = house();
    let sink = puppet(&house).await;
    let delivery = deliver(&*sink, &bodies(["one", "x", "j", "last"])).await;
    let delivery = delivery.unwrap();
    let each = [Outcome::Done, Outcome::Retry, Outcome::Dead, Outcome::Done];
    assert_eq!(delivery.outcomes, Outcomes::Each(each.into()));
    assert_eq!(delivery.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(delivery.retry_why.as_deref(), Some("no"));
    let [reject] = &delivery.rejects[..] else {
        panic!("one event was rejected")
    };
    assert_eq!(reject.reason, "no");
    assert!(reject.handler.as_ref().unwrap().starts_with("sha256:"));
    let done = deliver(&*sink, &bodies(["a", "b"])).await.unwrap();
    assert_eq!(done.outcomes, Outcomes::Done);
    for (verdict, events) in [("done", 4), ("retry", 1), ("reject", 1)] {
        let labels = format!("{{part=\"handlers.test\",verdict=\"{verdict}\"}}");
        assert!(house.shows(&format!("levada_handler_events_total{labels} {events}")));
    }
}

#[tokio::test]
async fn rejects_and_guilty_events_can_be_discarded() {
    let house = house();
    let mut spec = sink_spec(&house);
    (spec.on_reject, spec.on_trap) = (OnReject::Discard, OnTrap::Discard);
    let sink = load(&house, &spec).await;
    let delivery = deliver(&*sink, &bodies(["a", "j", "U", "b"]))
        .await
        .unwrap();
    let each = [
        Outcome::Done,
        Outcome::Discard,
        Outcome::Discard,
        Outcome::Done,
    ];
    assert_eq!(delivery.outcomes, Outcomes::Each(each.into()));
    assert!(delivery.rejects.is_empty());
}

#[tokio::test]
async fn every_fault_of_a_sink_is_named_and_alone() {
    let house = house();
    let mut spec = sink_spec(&house);
    spec.limits.cpu = Duration::from_millis(30);
    let sink = load(&house, &spec).await;
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
        (
            "M",
            Some("lifted-bytes"),
            "the limit `lifted-bytes` was reached",
        ),
        ("W", None, "broken contract at byte "),
    ];
    for (bad, limit, reason) in cases {
        let delivery = deliver(&*sink, &bodies(["a", "b", bad, "c", "x"]))
            .await
            .unwrap();
        use Outcome::{Dead, Done, Retry};
        let each = vec![Done, Done, Dead, Done, Retry];
        assert_eq!(delivery.outcomes, Outcomes::Each(each), "{bad}");
        let reject = &delivery.rejects[0];
        assert_eq!(reject.limit.as_deref(), limit, "{bad}: {}", reject.reason);
        assert!(reject.reason.contains(reason), "{bad}: {}", reject.reason);
        let in_guest = ["L", "S", "U", "O", "G"].contains(&bad);
        let backtrace = reject.backtrace.as_ref();
        assert_eq!(
            backtrace.is_some_and(|b| b.contains("wasm")),
            in_guest,
            "{bad}"
        );
        assert!(reject.attempts.unwrap() >= 2);
    }
}

#[tokio::test]
async fn a_failure_of_the_whole_batch_is_told() {
    let house = house();
    let sink = puppet(&house).await;
    match deliver(&*sink, &bodies(["a", "R"])).await {
        Err(SinkError::Refused { what, after, .. }) => {
            assert_eq!((&*what, after), ("busy", Some(Duration::from_millis(1500))));
        }
        other => panic!("{other:?}"),
    }
    match deliver(&*sink, &bodies(["F"])).await {
        Err(SinkError::Fatal { what, .. }) => assert_eq!(what, "busy"),
        other => panic!("{other:?}"),
    }
}

/// What was given away is never given back because of what came after it.
#[tokio::test]
async fn what_was_said_holds_when_a_later_call_fails() {
    use Outcome::{Dead, Done, Retry};
    let house = house();
    let sink = puppet(&house).await;
    let names = (0..2500).map(|n| if n == 2400 { "R".into() } else { n.to_string() });
    let names: Vec<String> = names.collect();
    let batch = bodies(names.iter().map(String::as_str));
    let delivery = deliver(&*sink, &batch).await.unwrap();
    let Outcomes::Each(each) = delivery.outcomes else {
        panic!("in part")
    };
    assert!(each[..2000].iter().all(|outcome| *outcome == Done));
    assert!(each[2000..].iter().all(|outcome| *outcome == Retry));
    assert_eq!(delivery.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(delivery.retry_why.as_deref(), Some("busy"));
    // So does what a search found out before it met the failure.
    let batch = bodies(["a", "b", "U", "c", "R"]);
    let delivery = deliver(&*sink, &batch).await.unwrap();
    let each = vec![Done, Done, Dead, Retry, Retry];
    assert_eq!(delivery.outcomes, Outcomes::Each(each));
    assert_eq!(delivery.retry_why.as_deref(), Some("busy"));
}

#[tokio::test]
async fn a_sink_that_asks_for_time_again_and_again_is_not_broken() {
    let house = house();
    let sink = puppet(&house).await;
    for _ in 0..10 {
        let said = deliver(&*sink, &bodies(["R"])).await;
        assert!(matches!(said, Err(SinkError::Refused { ref what, .. }) if what == "busy"));
    }
    assert!(house.shows("levada_handler_breaker_open{part=\"handlers.test\"} 0"));
    for bad in ["U", "D", "O"] {
        assert!(deliver(&*sink, &bodies([bad])).await.is_ok());
    }
    let said = deliver(&*sink, &bodies(["S"])).await.unwrap_err();
    assert!(said.to_string().contains("the breaker is open"), "{said}");
}

/// The epoch gives the thread back, also where there is only one.
#[tokio::test]
async fn a_sink_that_loops_holds_nobody_up() {
    let house = house();
    let mut spec = sink_spec(&house);
    spec.limits.cpu = Duration::from_millis(300);
    let sink = load(&house, &spec).await;
    let turns = AtomicU32::new(0);
    let batch = bodies(["L"]);
    let looping = deliver(&*sink, &batch);
    let beside = async {
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        delivery = looping => {
            let reject = &delivery.unwrap().rejects[0];
            assert_eq!(reject.limit.as_deref(), Some("cpu"));
        }
        () = beside => {}
    }
    let turns = turns.into_inner();
    assert!(turns > 10, "{turns} turns in two calls of 300 ms");
}

/// F71: a call that is dropped anywhere leaves nothing behind that the next one meets.
#[tokio::test]
async fn a_delivery_can_be_dropped_at_any_point() {
    let house = house();
    let mut spec = sink_spec(&house);
    spec.limits.cpu = Duration::from_millis(10);
    let sink = load(&house, &spec).await;
    let batch = bodies(["a", "L", "b"]);
    let mut ended = 0;
    for polls in 0..24 {
        let lease = Lease::loose(batch.clone());
        let cx = context();
        let mut call = pin!(sink.deliver(&lease, &cx));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            if let Poll::Ready(delivery) = call.as_mut().poll(&mut cx) {
                delivery.unwrap();
                ended += 1;
                break;
            }
        }
    }
    assert!(ended > 0, "some calls came to their end");
    let done = deliver(&*sink, &bodies(["a", "b"])).await.unwrap();
    assert_eq!(done.outcomes, Outcomes::Done);
}

#[tokio::test]
async fn several_deliveries_have_an_instance_each() {
    let house = house();
    let mut spec = sink_spec(&house);
    (spec.instances, spec.in_flight) = (1, 3);
    spec.limits.cpu = Duration::from_millis(50);
    let sink = load(&house, &spec).await;
    assert_eq!(sink.window(), 3);
    let batches = [bodies(["L", "a"]), bodies(["b"]), bodies(["c", "x"])];
    let [first, second, third] = &batches;
    let (first, second, third) = tokio::join!(
        deliver(&*sink, first),
        deliver(&*sink, second),
        deliver(&*sink, third)
    );
    assert_eq!(first.unwrap().outcomes.get(0), Outcome::Dead);
    assert_eq!(second.unwrap().outcomes, Outcomes::Done);
    assert_eq!(third.unwrap().outcomes.get(1), Outcome::Retry);
}

#[tokio::test]
async fn a_tap_of_a_sink_shows_what_became_of_each_event() {
    let house = house();
    let spec = sink_spec(&house);
    let loaded = house.handlers.load(&part("handlers.test"), &spec).await;
    let loaded = loaded.unwrap();
    let mut tap = loaded.tap(TapParams::default()).unwrap();
    let sink = loaded.sink.unwrap().sink();
    let batch = bodies(["one", "x", "j", "U"]);
    deliver(&*sink, &batch).await.unwrap();
    let sights = std::iter::from_fn(|| tap.try_next());
    let seen: Vec<_> = sights
        .map(|sight| match sight {
            Sight::Event(event) => (event.verdict, event.reason, event.after.len()),
            Sight::Batch(_) => panic!("no batch failed as a whole"),
        })
        .collect();
    let no = Some("no".to_owned());
    assert_eq!(seen[..2], [("done", None, 0), ("retry", no.clone(), 0)]);
    assert_eq!(seen[2], ("reject", no, 0));
    assert_eq!(seen[3].0, "failed");
    assert_eq!(seen.len(), 4);
}
