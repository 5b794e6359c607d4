//! A flow that becomes another one while it runs.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use levada_core::{Delivery, OpenError, Put, Stopper, TaskSet};
use tokio::time;

use super::{
    WITHIN, around, channel, events, eventually,
    fake_parts::{FakeSink, FakeSource},
    fake_store::FakeStore,
};
use crate::{ChangeError, Control, Flow, Plan, Replicating, SourcePlan, State, Status, Succession};

/// A flow in the background, with the handle that changes it.
struct Changing {
    control: Control,
    status: Status,
    stopper: Stopper,
    tasks: TaskSet,
}

impl Changing {
    async fn start(plan: Plan, store: &FakeStore) -> Self {
        let flow = Flow::open(plan, around(store)).await.unwrap();
        let (control, status) = (flow.control(), flow.status());
        let (stopper, stop) = Stopper::new();
        let mut tasks = TaskSet::new();
        tasks.spawn("flow", async move { drop(flow.run(&stop, WITHIN).await) });
        Self {
            control,
            status,
            stopper,
            tasks,
        }
    }

    fn parts(&self) -> Vec<(String, State)> {
        let parts = self.status.parts().into_iter();
        parts
            .map(|part| (part.part.to_string(), part.state))
            .collect()
    }

    async fn stop(mut self) {
        self.stopper.drain();
        assert!(self.tasks.join(Duration::from_secs(60)).await);
    }
}

type Log = Arc<Mutex<Vec<String>>>;

/// A source that notes its life in a log.
fn noted(name: &'static str, log: &Log) -> FakeSource {
    let (runs, opens) = (Arc::clone(log), Arc::clone(log));
    FakeSource::new(move |_, cx| {
        let log = Arc::clone(&runs);
        async move {
            cx.stop.draining().await;
            log.lock().unwrap().push(format!("{name} ends"));
            Ok(())
        }
    })
    .on_open(move |_| {
        opens.lock().unwrap().push(format!("{name} opens"));
        Ok(())
    })
}

fn made_of(mut plan: SourcePlan, text: &str, succession: Succession) -> SourcePlan {
    plan.made_of = text.into();
    plan.succession = succession;
    plan
}

fn sources(sources: Vec<SourcePlan>) -> Plan {
    Plan {
        sources,
        ..Plan::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_the_same_is_not_touched_and_the_rest_is_swapped() {
    let store = FakeStore::durable(&[("main", 100)]);
    let log = Log::default();
    let same = noted("same", &log);
    let plan = |word, more: Vec<SourcePlan>| {
        let mut all = vec![
            same.plan("sources.same", "main"),
            made_of(
                noted("one", &log).plan("sources.one", "main"),
                word,
                Succession::Exclusive,
            ),
            made_of(
                noted("two", &log).plan("sources.two", "main"),
                word,
                Succession::Overlap,
            ),
        ];
        all.extend(more);
        sources(all)
    };
    let flow = Changing::start(
        plan("a", vec![noted("old", &log).plan("sources.old", "main")]),
        &store,
    )
    .await;
    eventually(|| {
        flow.parts()
            .iter()
            .all(|(_, state)| *state == State::Running)
    })
    .await;
    log.lock().unwrap().clear();
    let new = plan("b", vec![noted("new", &log).plan("sources.new", "main")]);
    flow.control.change(new).await.unwrap();
    assert_eq!(same.opened.load(Ordering::SeqCst), 1);
    let log = std::mem::take(&mut *log.lock().unwrap());
    let at = |line: &str| log.iter().position(|other| other == line);
    assert!(at("one ends") < at("one opens"), "one at a time: {log:?}");
    assert!(at("two opens") < at("two ends"), "handed over: {log:?}");
    assert!(
        at("old ends").is_some() && at("new opens").is_some(),
        "{log:?}"
    );
    assert_eq!(at("same ends"), None);
    let names: Vec<_> = flow.parts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["sources.same", "sources.one", "sources.two", "sources.new"]
    );
    flow.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_cannot_open_leaves_everything_as_it_was() {
    let store = FakeStore::durable(&[("main", 100)]);
    let log = Log::default();
    let fails = || noted("bad", &log).on_open(|_| Err(OpenError::new("no such broker")));
    let good = |succession| {
        made_of(
            noted("good", &log).plan("sources.s", "main"),
            "a",
            succession,
        )
    };
    for succession in [Succession::Exclusive, Succession::Overlap] {
        let sink = FakeSink::new(|_, _| async { Ok(Delivery::done()) });
        let mut old = sources(vec![good(succession)]);
        old.sinks = vec![sink.plan("sinks.out", "main", 10)];
        let flow = Changing::start(old.clone(), &store).await;
        let mut new = sources(vec![made_of(
            fails().plan("sources.s", "main"),
            "b",
            succession,
        )]);
        new.sinks = vec![sink.plan("sinks.out", "main", 10)];
        new.sinks[0].made_of = "other".into();
        let error = flow.control.change(new).await.unwrap_err();
        let ChangeError::Open(errors) = error else {
            panic!("{error}");
        };
        assert_eq!(errors.0[0].error.to_string(), "no such broker");
        eventually(|| {
            flow.parts()
                .iter()
                .all(|(_, state)| *state == State::Running)
        })
        .await;
        store.fill("main", 0..3);
        eventually(|| store.queued("main").is_empty()).await;
        // The failure is no reason not to change later.
        flow.control
            .change(sources(vec![good(succession)]))
            .await
            .unwrap();
        assert_eq!(flow.parts().len(), 1);
        flow.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_rewired_runs_on_and_its_next_put_goes_the_new_way() {
    let store = FakeStore::durable(&[("main", 1), ("other", 100)]);
    let source = FakeSource::new(|ingest, cx| async move {
        for n in 0.. {
            tokio::select! {
                () = cx.stop.draining() => break,
                put = ingest.put(Put { batch: events([n]), ..Put::default() }) => put.unwrap(),
            }
            time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    });
    let opened = Arc::clone(&source.opened);
    let to_main = source.plan("sources.s", "main");
    let mut to_other = source.plan("sources.s", "other");
    to_other.behind = "other".into();
    to_other.selector = Arc::new(Replicating::new(&[channel("other")], &[]));
    let sink = FakeSink::new(|_, _| async {
        time::sleep(Duration::from_secs(2)).await;
        Ok(Delivery::done())
    });
    let plan = |source: SourcePlan| {
        let mut plan = sources(vec![source]);
        plan.sinks = vec![sink.plan("sinks.out", "main", 1)];
        plan
    };
    let flow = Changing::start(plan(to_main), &store).await;
    // One put waits for room on the old way; the change waits for it, and for nothing else.
    eventually(|| flow.status.parts()[0].waits_for.to_string() == "room in channel main").await;
    flow.control.change(plan(to_other)).await.unwrap();
    eventually(|| store.queued("other").len() >= 3).await;
    assert_eq!(opened.load(Ordering::SeqCst), 1, "the same source");
    let other = store.queued("other");
    assert_eq!(&other[..2], ["2", "3"], "nothing is missing in between");
    flow.stop().await;
}
