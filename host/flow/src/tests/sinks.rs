//! One sink: outcomes, back-off, confirmation, ticks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use levada_core::{Counter, Delivery, MarkWrite, Outcome, Outcomes, Reject, SinkError};
use tokio::time::{self, Instant};

use super::{bodies, eventually, fake_parts::FakeSink, fake_store::FakeStore, part, run};
use crate::{Plan, SinkPlan, State, WaitsFor};

fn plan(sink: SinkPlan) -> Plan {
    Plan {
        sinks: vec![sink],
        ..Plan::default()
    }
}

fn refused(after: Option<Duration>) -> SinkError {
    SinkError::Refused {
        what: "503".into(),
        after,
        source: None,
    }
}

fn unreachable() -> SinkError {
    SinkError::Unreachable {
        what: "connection refused".into(),
        source: None,
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_has_its_own_outcome() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..5);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let sink = FakeSink::new(move |call, batch| {
        noted.lock().unwrap().push(bodies(&batch));
        let each = vec![Outcome::Dead, Outcome::Retry, Outcome::Done, Outcome::Dead];
        async move {
            if call > 1 {
                return Ok(Delivery::done());
            }
            // The fifth outcome is missing: it counts as retry.
            let rejects = ["too old", "no such index"].map(String::from);
            let rejects = rejects.map(Reject::from).into();
            Ok(Delivery {
                outcomes: Outcomes::Each(each),
                rejects,
                ..Delivery::done()
            })
        }
    });
    let running = run(plan(sink.plan("sinks.up", "main", 10)), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(
        *seen.lock().unwrap(),
        [vec!["0", "1", "2", "3", "4"], vec!["1", "4"]]
    );
    let first = store.state().settlements[0].clone();
    let dead = store.state().dead.clone();
    assert_eq!(
        first.effects.dead_letters.len(),
        2,
        "in the transaction that removes the events"
    );
    assert_eq!(first.outcomes.get(4), Outcome::Retry);
    let reasons: Vec<_> = dead.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["too old", "no such index"]);
    assert_eq!(dead[1].part, part("sinks.up"));
    assert_eq!(dead[1].flow, part("channels.main"));
    assert_eq!(
        levada_core::EventRef::from_stored(&dead[1].event).body(),
        b"3"
    );
    assert_eq!(
        running.metric("levada_sink_delivered_events_total{part=\"sinks.up\"}"),
        Some(3)
    );
    assert_eq!(
        running.metric("levada_sink_retried_events_total{part=\"sinks.up\"}"),
        Some(2)
    );
    assert_eq!(
        running.metric("levada_sink_dead_lettered_events_total{part=\"sinks.up\"}"),
        Some(2)
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_retried_within_two_seconds_and_dead_letters_nothing() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..3);
    let tries = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&tries);
    let sink = FakeSink::new(move |call, _| {
        noted.lock().unwrap().push(Instant::now());
        async move {
            if call > 100 {
                Ok(Delivery::done())
            } else {
                Err(unreachable())
            }
        }
    });
    let mut sink = sink.plan("sinks.up", "main", 10);
    sink.retry.max_attempts = Some(3);
    let running = run(plan(sink), &store).await;
    eventually(|| running.status.parts()[0].state == State::Retrying).await;
    assert_eq!(
        running.status.parts()[0].last_error.as_ref().unwrap().text,
        "connection refused"
    );
    assert!(matches!(
        running.status.parts()[0].waits_for,
        WaitsFor::BackOff { .. }
    ));
    eventually(|| store.queued("main").is_empty()).await;
    let tries = tries.lock().unwrap().clone();
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let slack = Duration::from_millis(1);
    assert!(waits[0] <= Duration::from_millis(100) + slack, "{waits:?}");
    assert!(
        waits
            .iter()
            .all(|wait| *wait <= Duration::from_secs(2) + slack),
        "{waits:?}"
    );
    assert!(
        waits.iter().any(|wait| *wait > Duration::from_secs(1)),
        "{waits:?}"
    );
    assert!(store.state().dead.is_empty());
    assert_eq!(running.status.parts()[0].state, State::Running);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_a_peer_asks_for_is_honoured() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..1);
    let tries = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&tries);
    let sink = FakeSink::new(move |call, _| {
        noted.lock().unwrap().push(Instant::now());
        let after = Some(Duration::from_secs(90));
        let retry = Delivery {
            outcomes: Outcomes::Retry,
            retry_after: after,
            ..Delivery::done()
        };
        async move {
            match call {
                1 => Err(refused(after)),
                2 => Ok(retry),
                _ => Ok(Delivery::done()),
            }
        }
    });
    let running = run(plan(sink.plan("sinks.up", "main", 10)), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    let tries = tries.lock().unwrap().clone();
    for pair in tries.windows(2) {
        let wait = (pair[1] - pair[0]).as_secs_f64();
        assert!((90.0..=99.1).contains(&wait), "{wait}");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_retried_too_often_becomes_a_dead_letter() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..3);
    let sink = FakeSink::new(|_, batch| {
        let outcome = |body: &String| {
            if body == "1" {
                Outcome::Retry
            } else {
                Outcome::Done
            }
        };
        let each = bodies(&batch).iter().map(outcome).collect();
        async move {
            Ok(Delivery {
                outcomes: Outcomes::Each(each),
                ..Delivery::done()
            })
        }
    });
    let calls = Arc::clone(&sink.calls);
    let mut sink = sink.plan("sinks.up", "main", 10);
    sink.retry.max_attempts = Some(4);
    let running = run(plan(sink), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    let dead = store.state().dead.clone();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "not delivered in 5 attempts");
    assert_eq!(dead[0].attempts, 5);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_asks_hears_of_the_durable_settlement() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..2);
    let log = store.clone();
    let sink = FakeSink::new(|_, _| async {
        Ok(Delivery {
            confirm: true,
            ..Delivery::done()
        })
    })
    .note(move |what| log.log(what));
    let running = run(plan(sink.plan("sinks.up", "main", 1)), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    running.stop().await;
    let log = store.state().log.clone();
    let twice = [
        "settled durably",
        "settled called",
        "settled durably",
        "settled called",
        "closed",
    ];
    assert_eq!(log, twice);
}

#[tokio::test(start_paused = true)]
async fn ticks_come_without_events_and_never_beside_a_delivery() {
    let store = FakeStore::durable(&[("main", 100)]);
    let delivering = Arc::new(AtomicBool::new(false));
    let (in_deliver, in_tick) = (Arc::clone(&delivering), Arc::clone(&delivering));
    let ticks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ticks);
    let log = store.clone();
    let sink = FakeSink::new(move |_, _| {
        let delivering = Arc::clone(&in_deliver);
        async move {
            delivering.store(true, Ordering::SeqCst);
            time::sleep(Duration::from_secs(60)).await;
            delivering.store(false, Ordering::SeqCst);
            Ok(Delivery::done())
        }
    })
    .window(2)
    .note(move |what| log.log(what))
    .tick(Duration::from_secs(5), move || {
        assert!(!in_tick.load(Ordering::SeqCst), "a tick beside a delivery");
        let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
        vec![MarkWrite::set("ticks", n.to_string().into_bytes())]
    });
    let running = run(plan(sink.plan("sinks.up", "main", 1)), &store).await;
    eventually(|| ticks.load(Ordering::SeqCst) == 3).await;
    eventually(|| store.mark("sinks.up", "ticks").as_deref() == Some(&b"3"[..])).await;
    store.fill("main", 0..2);
    eventually(|| delivering.load(Ordering::SeqCst)).await;
    time::sleep(Duration::from_secs(30)).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 3);
    eventually(|| store.queued("main").is_empty() && ticks.load(Ordering::SeqCst) > 3).await;
    running.stop().await;
    assert!(
        store
            .state()
            .log
            .iter()
            .filter(|what| *what == "settled called")
            .count()
            >= 4
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_costs_a_repetition_and_no_event() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.state().failing_leases = 3;
    store.state().failing_settles = 2;
    store.fill("main", 0..4);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let sink = FakeSink::new(move |_, batch| {
        noted.lock().unwrap().extend(bodies(&batch));
        async { Ok(Delivery::done()) }
    });
    let running = run(plan(sink.plan("sinks.up", "main", 2)), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(
        *seen.lock().unwrap(),
        ["0", "1", "0", "1", "0", "1", "2", "3"]
    );
    assert_eq!(store.count("channels.main", Counter::Discarded), 0);
    assert_eq!(
        running.metric("levada_sink_store_failures_total{part=\"sinks.up\"}"),
        Some(5)
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_sink_delivers_the_first_event_at_once() {
    let store = FakeStore::durable(&[("main", 100)]);
    let sink = FakeSink::new(|_, _| async { Ok(Delivery::done()) });
    let running = run(plan(sink.plan("sinks.up", "main", 10)), &store).await;
    time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.status.parts()[0].waits_for, WaitsFor::Events);
    store.fill("main", 0..1);
    let began = Instant::now();
    eventually(|| store.queued("main").is_empty()).await;
    assert!(
        began.elapsed() < Duration::from_millis(5),
        "{:?}",
        began.elapsed()
    );
    running.stop().await;
}
