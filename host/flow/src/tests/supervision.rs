//! Parts that break.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use levada_core::{Delivery, InterceptError, OpenError, Put, PutError, SinkError, SourceError};
use tokio::time;

use super::{
    around, bodies, events, eventually,
    fake_parts::{FakeInterceptor, FakeSink, FakeSource},
    fake_store::FakeStore,
    run,
};
use crate::{Flow, Plan, State};

fn waiting_source() -> FakeSource {
    FakeSource::new(|_, cx| async move {
        cx.stop.draining().await;
        Ok(())
    })
}

fn good_sink() -> FakeSink {
    FakeSink::new(|_, _| async { Ok(Delivery::done()) })
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_is_built_and_opened_again() {
    let store = FakeStore::durable(&[("main", 100)]);
    let runs = Arc::new(AtomicUsize::new(0));
    let source = FakeSource::new(move |ingest, cx| {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            ingest
                .put(Put {
                    batch: events([run]),
                    ..Put::default()
                })
                .await
                .unwrap();
            match run {
                1 => Err(SourceError::with("lost the broker", "connection reset")),
                2 => panic!("an invariant is broken"),
                _ => {
                    cx.stop.draining().await;
                    Ok(())
                }
            }
        }
    })
    .on_open(|n| {
        if n == 2 {
            Err(OpenError::new("address in use"))
        } else {
            Ok(())
        }
    });
    let opened = Arc::clone(&source.opened);
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.queued("main").len() == 3).await;
    assert_eq!(store.queued("main"), ["1", "2", "3"]);
    assert_eq!(opened.load(Ordering::SeqCst), 4);
    let status = running.status.parts().remove(0);
    assert_eq!((status.state, status.restarts), (State::Running, 3));
    assert_eq!(
        status.last_error.unwrap().text,
        "panicked: an invariant is broken"
    );
    assert_eq!(
        running.metric("levada_part_restarts_total{part=\"sources.s\"}"),
        Some(3)
    );
    assert_eq!(
        running.metric("levada_part_panics_total{part=\"sources.s\"}"),
        Some(1)
    );
    assert_eq!(
        running.metric("levada_part_state{part=\"sources.s\",state=\"running\"}"),
        Some(1)
    );
    assert_eq!(
        running.metric("levada_part_state{part=\"sources.s\",state=\"failed\"}"),
        Some(0)
    );
    assert!(running.stop().await.cut_off.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_no_more_is_finished_and_left_alone() {
    let store = FakeStore::durable(&[("main", 100)]);
    let source = FakeSource::new(|_, _| async { Ok(()) });
    let opened = Arc::clone(&source.opened);
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    let status = running.status.clone();
    eventually(|| status.parts()[0].state == State::Finished).await;
    time::sleep(Duration::from_secs(600)).await;
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    running.stop().await;
    assert_eq!(status.parts()[0].state, State::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_loses_nothing_and_stops_nobody() {
    let store = FakeStore::durable(&[("main", 100), ("other", 100)]);
    store.fill("main", 0..2);
    let bad = FakeSink::new(|call, batch| async move {
        assert!(call > 3, "cannot handle {:?}", bodies(&batch));
        Ok(Delivery::done())
    });
    let opened = Arc::clone(&bad.opened);
    let sinks = vec![
        bad.plan("sinks.bad", "main", 1),
        good_sink().plan("sinks.good", "other", 1),
    ];
    let running = run(
        Plan {
            sinks,
            ..Plan::default()
        },
        &store,
    )
    .await;
    store.fill("other", 0..1);
    eventually(|| store.queued("other").is_empty()).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(opened.load(Ordering::SeqCst), 4);
    assert_eq!(
        running.metric("levada_part_panics_total{part=\"sinks.bad\"}"),
        Some(3)
    );
    assert_eq!(
        running.metric("levada_part_panics_total{part=\"sinks.good\"}"),
        Some(0)
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_needs_a_human_stays_failed_until_something_works() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..2);
    let sink = FakeSink::new(|call, _| async move {
        match call {
            1..=5 => Err(SinkError::Fatal {
                what: "key revoked".into(),
                source: None,
            }),
            _ => Ok(Delivery::done()),
        }
    });
    let (calls, opened) = (Arc::clone(&sink.calls), Arc::clone(&sink.opened));
    let plan = Plan {
        sinks: vec![sink.plan("sinks.up", "main", 10)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| calls.load(Ordering::SeqCst) == 3).await;
    assert_eq!(running.status.parts()[0].state, State::Failed);
    assert!(running.status.parts()[0].state.is_bad());
    assert_eq!(store.queued("main").len(), 2, "the data stays");
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(running.status.parts()[0].state, State::Running);
    assert_eq!(opened.load(Ordering::SeqCst), 6);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_needs_a_human_stays_failed_until_a_put_goes_through() {
    let store = FakeStore::durable(&[("main", 100)]);
    let runs = Arc::new(AtomicUsize::new(0));
    let source = FakeSource::new(move |ingest, cx| {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            if run <= 3 {
                return Err(SourceError::fatal("key revoked"));
            }
            // Nothing came, and nothing is wrong any more.
            ingest.put(Put::default()).await.unwrap();
            cx.stop.draining().await;
            Ok(())
        }
    });
    let opened = Arc::clone(&source.opened);
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| opened.load(Ordering::SeqCst) == 3).await;
    let status = running.status.parts().remove(0);
    assert_eq!(status.state, State::Failed);
    assert_eq!(status.last_error.unwrap().text, "key revoked");
    eventually(|| running.status.parts()[0].state == State::Running).await;
    assert_eq!(opened.load(Ordering::SeqCst), 4);
    running.stop().await;
}

#[tokio::test]
async fn everything_that_cannot_be_opened_is_told_at_once() {
    let store = FakeStore::durable(&[("main", 100)]);
    let source = |name: &str, what: &'static str| {
        let on_open = move |_| Err(OpenError::with(what, "permission denied"));
        waiting_source().on_open(on_open).plan(name, "main")
    };
    let bad_sink = good_sink().on_open(|_| panic!("no such thing"));
    let plan = Plan {
        sources: vec![
            source("sources.a", "cannot bind `0.0.0.0:80`"),
            waiting_source().plan("sources.b", "main"),
        ],
        sinks: vec![bad_sink.plan("sinks.c", "main", 1)],
        ..Plan::default()
    };
    let errors = Flow::open(plan, around(&store)).await.unwrap_err();
    assert_eq!(
        errors.to_string(),
        "cannot open `sinks.c`: panicked: no such thing; \
         cannot open `sources.a`: cannot bind `0.0.0.0:80`: permission denied"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_is_open_has_started_nothing() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..1);
    let sink = good_sink();
    let calls = Arc::clone(&sink.calls);
    let plan = Plan {
        sinks: vec![sink.plan("sinks.up", "main", 1)],
        ..Plan::default()
    };
    let flow = Flow::open(plan, around(&store)).await.unwrap();
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let status = flow.status().parts().remove(0);
    assert_eq!(status.state, State::Open);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["part"], "sinks.up");
    assert_eq!(
        (&json["state"], &json["waits-for"]),
        (&"open".into(), &"nothing".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_without_its_broker_is_not_shown_as_running() {
    let store = FakeStore::durable(&[("main", 100)]);
    let source = FakeSource::new(|_, cx| async move {
        cx.peer.waiting("no broker");
        time::sleep(Duration::from_secs(3)).await;
        cx.peer.connected();
        cx.stop.draining().await;
        Ok(())
    });
    let quiet = waiting_source().plan("sources.quiet", "main");
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main"), quiet],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| running.status.parts()[0].state == State::Retrying).await;
    time::sleep(Duration::from_secs(2)).await;
    let [waiting, quiet] = &running.status.parts()[..] else {
        panic!("two parts");
    };
    assert_eq!(waiting.waits_for.to_string(), "its connection (no broker)");
    assert_eq!(waiting.last_error.as_ref().unwrap().text, "no broker");
    assert_eq!(1_700_000_000_000 - waiting.since_ms, 2001, "since when");
    assert_eq!(quiet.state, State::Running);
    let metric = |name: &str| running.metric(&format!("{name}{{part=\"sources.s\"}}"));
    let retrying = "levada_part_state{part=\"sources.s\",state=\"retrying\"}";
    assert_eq!(metric("levada_part_connected"), Some(0));
    assert_eq!(running.metric(retrying), Some(1));
    eventually(|| running.status.parts()[0].state == State::Running).await;
    assert_eq!(metric("levada_part_connected"), Some(1));
    assert_eq!(running.metric(retrying), Some(0));
    let other = "levada_part_connected{part=\"sources.quiet\"}";
    assert_eq!(running.metric(other), None, "it has nothing to connect to");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_cannot_reach_its_peer_says_so_until_it_can() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..1);
    let sink = FakeSink::new(|call, _| async move {
        if call < 4 {
            let what = "connection refused".into();
            return Err(SinkError::Unreachable { what, source: None });
        }
        Ok(Delivery::done())
    });
    let plan = Plan {
        sinks: vec![sink.plan("sinks.up", "main", 1)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    let connected = || running.metric("levada_part_connected{part=\"sinks.up\"}");
    eventually(|| connected() == Some(0)).await;
    eventually(|| connected() == Some(1)).await;
    assert_eq!(store.queued("main").len(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_handler_is_given_a_rest_is_red_until_a_batch_goes_through() {
    let store = FakeStore::durable(&[("main", 100)]);
    let source = FakeSource::new(|ingest, cx| async move {
        for n in 0.. {
            let batch = events([n]);
            match ingest
                .put(Put {
                    batch,
                    ..Put::default()
                })
                .await
            {
                Ok(()) => break,
                Err(PutError::Later { after, .. }) => time::sleep(after.unwrap()).await,
                Err(error) => panic!("{error}"),
            }
        }
        cx.stop.draining().await;
        Ok(())
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let link = FakeInterceptor::link("handlers.h", move |batch, _, _| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(InterceptError::Broken {
                reason: "the breaker is open".into(),
                after: Some(Duration::from_secs(5)),
            });
        }
        Ok(batch)
    });
    let mut source = source.plan("sources.s", "main");
    source.interceptors = vec![link];
    let plan = Plan {
        sources: vec![source],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    let state = || running.status.parts()[0].state;
    eventually(|| state() == State::Failed).await;
    time::sleep(Duration::from_secs(4)).await;
    assert_eq!(state(), State::Failed);
    eventually(|| state() == State::Running).await;
    assert_eq!(store.queued("main").len(), 1);
    running.stop().await;
}
