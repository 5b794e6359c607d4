//! Timers of handlers, and what is handled again because its state was void. On paused time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{
    Batch, Counter, Effects, Ingest, InterceptError, Interceptor, Name, StateChange,
    interceptor::Call, state::Ticket,
};
use tokio::time::{self, Instant};

use super::{
    events,
    fake_parts::{FakeInterceptor, FakeSource},
    fake_store::FakeStore,
    ingests::{Rig, put, to},
    part, run,
};
use crate::{Link, Plan};

/// Gives an event at every tick, with its number as its body.
#[derive(Debug)]
struct Clockwork {
    every: Duration,
    ticks: AtomicUsize,
    /// So many ticks fail first.
    failing: AtomicUsize,
}

impl Clockwork {
    fn link(every: Duration, failing: usize) -> (Arc<Self>, Link) {
        let clockwork = Arc::new(Self {
            every,
            ticks: AtomicUsize::new(0),
            failing: AtomicUsize::new(failing),
        });
        let link = Link {
            part: part("handlers.clockwork"),
            interceptor: Arc::clone(&clockwork) as _,
        };
        (clockwork, link)
    }
}

#[async_trait]
impl Interceptor for Clockwork {
    async fn intercept(
        &self,
        batch: Batch,
        _: &Call<'_>,
        _: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        Ok(batch)
    }

    fn every(&self) -> Option<Duration> {
        Some(self.every)
    }

    async fn tick(&self, _: &Call<'_>, effects: &mut Effects) -> Result<Batch, InterceptError> {
        let left = self.failing.load(Ordering::SeqCst);
        if left > 0 {
            self.failing.store(left - 1, Ordering::SeqCst);
            let (reason, after) = ("not yet".into(), None);
            return Err(InterceptError::Later { reason, after });
        }
        let tick = self.ticks.fetch_add(1, Ordering::SeqCst) + 1;
        effects.states.push(change("clockwork"));
        Ok(events([format!("tick {tick}")]))
    }
}

fn change(handler: &str) -> StateChange {
    let (ticket, _) = Ticket::new();
    StateChange {
        handler: Name::new(handler).unwrap(),
        from: 0,
        writes: [("key".to_owned(), None)].into(),
        ticket,
    }
}

/// Appends a letter to every body.
fn suffix(name: &str, letter: &'static str) -> Link {
    FakeInterceptor::link(name, move |batch, _, _| {
        Ok(events(
            super::bodies(&batch).into_iter().map(|body| body + letter),
        ))
    })
}

#[tokio::test(start_paused = true)]
async fn ticks_go_on_behind_their_handler_with_what_it_wrote() {
    let store = FakeStore::durable(&[("main", 10)]);
    let (_, link) = Clockwork::link(Duration::from_secs(10), 0);
    let source = FakeSource::new(|_, cx| async move {
        cx.stop.draining().await;
        Ok(())
    });
    let mut plan = source.plan("sources.s", "main");
    plan.interceptors = vec![
        suffix("interceptors.before", " a"),
        link,
        suffix("interceptors.behind", " b"),
    ];
    let plan = Plan {
        sources: vec![plan],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    time::sleep(Duration::from_millis(9_999)).await;
    assert!(store.queued("main").is_empty());
    time::sleep(Duration::from_millis(20_002)).await;
    assert_eq!(store.queued("main"), ["tick 1 b", "tick 2 b", "tick 3 b"]);
    running.stop().await;
    let state = store.state();
    assert!(
        state
            .commits
            .iter()
            .all(|commit| commit.effects.states.len() == 1)
    );
    drop(state);
    assert_eq!(store.count("sources.s", Counter::Made), 3);
    assert_eq!(store.count("sources.s", Counter::Put), 3);
    assert_eq!(store.count("sources.s", Counter::Accepted), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_fails_comes_again_and_stops_nothing() {
    let store = FakeStore::durable(&[("main", 10)]);
    let (clockwork, link) = Clockwork::link(Duration::from_secs(1), 2);
    let rig = Rig::new(&store, vec![link], to(&["main"]));
    let begun = Instant::now();
    let ticks = async {
        tokio::select! {
            never = rig.ingest.ticks() => match never {},
            () = time::sleep(Duration::from_millis(3_500)) => {}
        }
    };
    let puts = async {
        time::sleep(Duration::from_millis(1_500)).await;
        rig.ingest.put(put(events([1]))).await.unwrap();
    };
    tokio::join!(ticks, puts);
    assert_eq!(begun.elapsed(), Duration::from_millis(3_500));
    assert_eq!(clockwork.ticks.load(Ordering::SeqCst), 1);
    assert_eq!(store.queued("main"), ["1", "tick 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_handled_with_void_state_is_handled_again_and_counted_once() {
    let store = FakeStore::durable(&[("main", 10)]);
    store.state().stale_commits = 2;
    let calls = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&calls);
    let link = FakeInterceptor::link("handlers.h", move |batch, _, effects| {
        *seen.lock().unwrap() += 1;
        effects.states.push(change("h"));
        Ok(batch)
    });
    let rig = Rig::new(&store, vec![link], to(&["main"]));
    rig.ingest.put(put(events([1, 2]))).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), 3);
    assert_eq!(store.queued("main"), ["1", "2"]);
    assert_eq!(store.count("sources.s", Counter::Accepted), 2);
    assert_eq!(store.state().commits.len(), 1);
}
