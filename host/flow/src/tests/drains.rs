//! Stopping, in order and under a deadline.

use std::{
    future::pending,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use levada_core::{Delivery, Put, PutError, SinkError};
use tokio::time::{self, Instant};

use super::{
    WITHIN, channel, events, eventually,
    fake_parts::{FakeSink, FakeSource},
    fake_store::FakeStore,
    run,
};
use crate::{Plan, State};

fn hanging_sink() -> FakeSink {
    FakeSink::new(|_, _| pending())
}

#[tokio::test(start_paused = true)]
async fn sources_end_first_then_memory_channels_are_emptied() {
    let store = FakeStore::memory("main", 1000);
    store.fill("main", 0..100);
    let (log, at_end) = (store.clone(), store.clone());
    let source = FakeSource::new(move |ingest, cx| {
        let log = log.clone();
        async move {
            cx.stop.draining().await;
            // The batch in hand.
            ingest
                .put(Put {
                    batch: events(["last"]),
                    ..Put::default()
                })
                .await
                .unwrap();
            log.log("source ended");
            Ok(())
        }
    });
    let sink = FakeSink::new(|_, _| async {
        time::sleep(Duration::from_millis(10)).await;
        Ok(Delivery::done())
    })
    .note(move |what| at_end.log(what));
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        sinks: vec![
            sink.plan("sinks.a", "main", 3),
            sink.plan("sinks.b", "main", 2),
        ],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    let status = running.status.clone();
    let drained = running.stop().await;
    assert_eq!((drained.lost_events(), drained.cut_off.len()), (0, 0));
    assert!(store.queued("main").is_empty());
    assert!(drained.took < Duration::from_secs(2), "{:?}", drained.took);
    assert!(
        status
            .parts()
            .iter()
            .all(|part| part.state == State::Stopped)
    );
    let log = store.state().log.clone();
    let place = |what: &str| log.iter().position(|entry| entry == what).unwrap();
    assert!(place("source ended") < place("closed"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_flow_stops_at_once() {
    let store = FakeStore::durable(&[("main", 10)]);
    let source = FakeSource::new(|_, cx| async move {
        cx.stop.draining().await;
        Ok(())
    });
    let sink = FakeSink::new(|_, _| async { Ok(Delivery::done()) });
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        sinks: vec![sink.plan("sinks.up", "main", 3)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    time::sleep(Duration::from_secs(5)).await;
    assert!(running.stop().await.took < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_durable_sink_finishes_what_it_has_in_hand_and_takes_no_more() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..10);
    let sink = FakeSink::new(|_, _| async {
        time::sleep(Duration::from_secs(1)).await;
        Ok(Delivery::done())
    });
    let plan = Plan {
        sinks: vec![sink.plan("sinks.up", "main", 2)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.leased("main") == 2).await;
    let drained = running.stop().await;
    assert!(drained.cut_off.is_empty());
    assert_eq!(store.queued("main").len(), 8);
    assert_eq!(store.leased("main"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_drains_takes_nothing_that_comes_late() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..1);
    let sink = FakeSink::new(|_, _| async {
        time::sleep(Duration::from_secs(1)).await;
        Ok(Delivery::done())
    });
    let sink = sink.window(2).plan("sinks.up", "main", 1);
    let running = run(
        Plan {
            sinks: vec![sink],
            ..Plan::default()
        },
        &store,
    )
    .await;
    eventually(|| store.leased("main") == 1).await;
    running.stopper.drain();
    time::sleep(Duration::from_millis(100)).await;
    store.fill("main", 7..8);
    running.stop().await;
    assert_eq!(store.queued("main"), ["7"]);
}

#[tokio::test(start_paused = true)]
async fn sinks_make_room_while_sources_finish_what_they_have_in_hand() {
    let store = FakeStore::durable(&[("main", 2)]);
    store.fill("main", 0..2);
    let source = FakeSource::new(|ingest, cx| async move {
        cx.stop.draining().await;
        for n in ["a", "b", "c"] {
            ingest
                .put(Put {
                    batch: events([n]),
                    ..Put::default()
                })
                .await
                .unwrap();
        }
        Ok(())
    });
    let sink = FakeSink::new(|_, _| async {
        time::sleep(Duration::from_millis(500)).await;
        Ok(Delivery::done())
    });
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        sinks: vec![sink.plan("sinks.up", "main", 1)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.leased("main") == 1).await;
    let drained = running.stop().await;
    assert!(drained.cut_off.is_empty(), "{drained:?}");
    assert_eq!(store.queued("main").last().unwrap(), "c");
}

#[tokio::test(start_paused = true)]
async fn a_sink_in_its_back_off_does_not_hold_up_the_stop() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..10);
    let after = Some(Duration::from_secs(600));
    let refuse = move || SinkError::Refused {
        what: "429".into(),
        after,
        source: None,
    };
    let sink = FakeSink::new(move |_, _| async move { Err(refuse()) });
    let plan = Plan {
        sinks: vec![sink.plan("sinks.up", "main", 2)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| running.status.parts()[0].state == State::Retrying).await;
    assert!(running.stop().await.took < Duration::from_millis(100));
    assert_eq!(store.queued("main").len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_is_cut_off_at_the_deadline_and_the_queue_is_intact() {
    let store = FakeStore::durable(&[("main", 4)]);
    let source = FakeSource::new(|ingest, cx| async move {
        for n in 0.. {
            // Under load the channel is full, and the put waits for room.
            match ingest
                .put(Put {
                    batch: events([n]),
                    ..Put::default()
                })
                .await
            {
                Ok(()) => {}
                Err(PutError::Stopping) => break,
                Err(error) => panic!("{error}"),
            }
            assert!(
                !cx.stop.is_draining() || n <= 4,
                "a put went through while draining"
            );
        }
        Ok(())
    });
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        sinks: vec![hanging_sink().plan("sinks.up", "main", 2)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.queued("main").len() == 4 && store.leased("main") > 0).await;
    let began = Instant::now();
    let drained = running.stop().await;
    assert_eq!(drained.cut_off, ["sinks.up"]);
    assert!(
        began.elapsed() <= WITHIN + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(store.queued("main"), ["0", "1", "2", "3"]);
    assert_eq!(store.leased("main"), 0);
    assert!(drained.lost.is_empty(), "a durable channel loses nothing");
}

#[tokio::test(start_paused = true)]
async fn what_a_memory_channel_still_holds_is_counted_as_lost() {
    let store = FakeStore::memory("fast", 100);
    store.fill("fast", 0..7);
    let sink = FakeSink::new(|call, _| async move {
        if call > 2 {
            pending().await
        } else {
            Ok(Delivery::done())
        }
    });
    let plan = Plan {
        sinks: vec![sink.plan("sinks.up", "fast", 1)],
        ..Plan::default()
    };
    let drained = run(plan, &store).await.stop().await;
    assert_eq!(drained.lost, [(channel("fast"), 5)]);
    assert_eq!(drained.lost_events(), 5);
    assert_eq!(drained.cut_off, ["sinks.up"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_skips_to_the_end() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..1);
    let source = FakeSource::new(|_, _| pending());
    let plan = Plan {
        sources: vec![source.plan("sources.s", "main")],
        sinks: vec![hanging_sink().plan("sinks.up", "main", 2)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.leased("main") == 1).await;
    let stopper = running.stopper.clone();
    stopper.drain();
    time::sleep(Duration::from_secs(1)).await;
    stopper.now();
    let drained = running.stop().await;
    assert!(
        drained.took < Duration::from_millis(1100),
        "{:?}",
        drained.took
    );
    assert_eq!(drained.cut_off, ["sources.s", "sinks.up"]);
    assert_eq!(store.queued("main").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_leaves_the_sinks_their_half_of_the_time() {
    let store = FakeStore::memory("fast", 100);
    let ended = Arc::new(AtomicUsize::new(0));
    let guarded = Arc::clone(&ended);
    let source = FakeSource::new(move |_, _| {
        let guard = Dropped(Arc::clone(&guarded));
        async move {
            let _guard = guard;
            pending().await
        }
    });
    let sink = FakeSink::new(|_, _| async {
        time::sleep(Duration::from_millis(900)).await;
        Ok(Delivery::done())
    });
    let plan = Plan {
        sources: vec![source.plan("sources.s", "fast")],
        sinks: vec![sink.plan("sinks.up", "fast", 1)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    time::sleep(Duration::from_millis(10)).await;
    store.fill("fast", 0..10);
    let drained = running.stop().await;
    assert_eq!(drained.cut_off, ["sources.s"]);
    assert_eq!(drained.lost_events(), 0);
    assert_eq!(ended.load(Ordering::SeqCst), 1, "the source was dropped");
    assert!(drained.took <= WITHIN, "{:?}", drained.took);
}

#[tokio::test(start_paused = true)]
async fn every_five_seconds_one_line_names_who_still_runs() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..1);
    let plan = Plan {
        sinks: vec![hanging_sink().plan("sinks.up", "main", 2)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.leased("main") == 1).await;
    running.stop().await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let still: Vec<_> = text
        .lines()
        .filter(|line| line.contains("still draining"))
        .collect();
    assert_eq!(still.len(), 1, "{text}");
    assert!(
        still[0].contains("sinks.up (the other side (1 batch))"),
        "{text}"
    );
    assert!(text.contains("cut off parts=\"sinks.up\""), "{text}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
