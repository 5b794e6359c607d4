//! From a source's put to the commit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use levada_core::{
    Batch, BatchBuilder, Chance, Counter, Ingest, InterceptError, MarkWrite, Put, PutError,
    Selector, Stopper,
    batch::{Fault, FaultKind},
};
use levada_telemetry::Registry;
use tokio::time::{self, Instant};

use super::{
    StandingClock, around, bodies, channel, events, fake_parts::FakeInterceptor,
    fake_store::FakeStore, part, waits,
};
use crate::{
    Link, Multiplexing, MultiplexingRoutes, Replicating, SourcePlan, State, Status, WaitsFor,
    in_flight::InFlight,
    ingest::{Behind, SourceIngest},
    status::{Cell, Doing},
};

/// An ingest on its own, with the signal that closes it.
pub(super) struct Rig {
    pub(super) ingest: SourceIngest,
    close: Stopper,
    status: Status,
}

impl Rig {
    pub(super) fn new(store: &FakeStore, chain: Vec<Link>, selector: Arc<dyn Selector>) -> Self {
        Self::with(store, chain, selector, None)
    }

    fn with(
        store: &FakeStore,
        interceptors: Vec<Link>,
        selector: Arc<dyn Selector>,
        put_timeout: Option<Duration>,
    ) -> Self {
        let source = part("sources.s");
        let channels = vec![channel("main"), channel("alarm")];
        let cell = Cell::new(source.clone(), channels.clone(), Arc::new(StandingClock));
        cell.enter(State::Running, Doing::Waiting);
        let (close, closed) = Stopper::new();
        let plan = SourcePlan {
            part: source,
            build: Arc::new(|| panic!("nobody builds it")),
            interceptors,
            selector,
            channels,
            put_timeout,
            made_of: String::new(),
            behind: String::new(),
            succession: crate::Succession::Overlap,
        };
        let behind = Behind {
            store: Arc::new(store.clone()),
            clock: Arc::new(StandingClock),
            in_flight: InFlight::share_of(256 << 10, 1),
            closed,
            registry: &Registry::new(),
            cell: Arc::clone(&cell),
        };
        let ingest = SourceIngest::new(&plan, behind);
        Self {
            ingest,
            close,
            status: {
                let status = Status::new(around(store).inspect);
                status.show([cell].into_iter());
                status
            },
        }
    }

    fn state(&self) -> State {
        self.status.parts()[0].state
    }
}

pub(super) fn to(names: &[&str]) -> Arc<dyn Selector> {
    let channels: Vec<_> = names.iter().map(|name| channel(name)).collect();
    Arc::new(Replicating::new(&channels, &[]))
}

pub(super) fn put(batch: Batch) -> Put {
    Put {
        batch,
        ..Put::default()
    }
}

fn start(batch: &Batch) -> *const u8 {
    batch.runs().next().unwrap().as_ptr()
}

#[tokio::test]
async fn a_batch_that_nobody_changes_is_committed_in_its_own_buffer() {
    let store = FakeStore::durable(&[("main", 10), ("alarm", 10)]);
    let rig = Rig::new(&store, Vec::new(), to(&["main", "alarm"]));
    let batch = events([1, 2, 3]);
    rig.ingest.put(put(batch.clone())).await.unwrap();
    let puts = store.state().commits[0].puts.clone();
    assert_eq!(puts.len(), 2);
    assert!(
        puts.iter()
            .all(|put| start(&put.batch) == start(&batch) && put.batch == batch)
    );
    assert_eq!(store.count("sources.s", Counter::Accepted), 3);
    assert_eq!(
        store.count("sources.s", Counter::Put),
        3,
        "once, however many copies"
    );
}

#[tokio::test]
async fn events_are_divided_in_order_and_those_without_a_channel_are_counted() {
    let store = FakeStore::durable(&[("main", 10), ("alarm", 10)]);
    let mapping = BTreeMap::from([
        ("error".to_owned(), vec![channel("alarm"), channel("main")]),
        ("info".to_owned(), vec![channel("main")]),
    ]);
    let routes = MultiplexingRoutes {
        header: "severity".into(),
        mapping,
        ..Default::default()
    };
    let rig = Rig::new(&store, Vec::new(), Arc::new(Multiplexing::new(routes)));
    let mut builder = BatchBuilder::default();
    for (n, severity) in ["info", "debug", "error", "info", "error"]
        .into_iter()
        .enumerate()
    {
        builder.push([("severity", severity)], n.to_string().as_bytes());
    }
    rig.ingest.put(put(builder.finish())).await.unwrap();
    assert_eq!(store.queued("main"), ["0", "2", "3", "4"]);
    assert_eq!(store.queued("alarm"), ["2", "4"]);
    assert_eq!(store.count("sources.s", Counter::Put), 4);
    let counts = store.state().counts.counts.clone();
    let reason = counts
        .iter()
        .find(|count| count.counter == Counter::Discarded)
        .unwrap();
    assert_eq!((reason.reason.as_str(), reason.amount), ("no-route", 1));
}

#[tokio::test]
async fn marks_move_though_everything_was_discarded_and_nothing_at_all_is_no_commit() {
    let store = FakeStore::durable(&[("main", 10)]);
    let drop_all = FakeInterceptor::link("handlers.drop", |batch, call, effects| {
        effects.count_reason(call.part, Counter::Discarded, "noise", batch.len() as u64);
        Ok(Batch::default())
    });
    let rig = Rig::new(&store, vec![drop_all], to(&["main"]));
    let marks = vec![MarkWrite::set("position", &b"7"[..])];
    rig.ingest
        .put(Put {
            batch: events([1, 2]),
            marks,
            ..Put::default()
        })
        .await
        .unwrap();
    assert_eq!(
        rig.ingest.marks().get("position"),
        Some(&Bytes::from_static(b"7"))
    );
    assert!(store.queued("main").is_empty());
    assert_eq!(store.count("sources.s", Counter::Discarded), 2);
    rig.ingest.put(Put::default()).await.unwrap();
    assert_eq!(store.state().commits.len(), 1);
}

#[tokio::test]
async fn events_beyond_a_limit_become_dead_letters_of_the_same_commit() {
    let store = FakeStore::durable(&[("main", 10)]);
    let rig = Rig::new(&store, Vec::new(), to(&["main"]));
    let fault = |index, event: &'static str, kind| Fault {
        index,
        event: Bytes::from_static(event.as_bytes()),
        kind,
    };
    let large = FaultKind::EventSize {
        bytes: 9,
        allowed: 5,
    };
    let faults = vec![
        fault(1, "too large", large),
        fault(2, "for any channel", FaultKind::Capacity { bytes: 15 }),
    ];
    rig.ingest
        .put(Put {
            batch: events([1]),
            faults,
            ..Put::default()
        })
        .await
        .unwrap();
    let state = store.state();
    assert_eq!(state.commits.len(), 1);
    let letter = &state.dead[0];
    assert_eq!(&letter.event[..], b"too large");
    assert_eq!(
        (letter.part.clone(), letter.flow.clone()),
        (part("sources.s"), part("sources.s"))
    );
    assert_eq!(letter.limit.as_deref(), Some("max-event"));
    assert!(letter.reason.contains("9 bytes"), "{}", letter.reason);
    assert_eq!(state.dead[1].limit.as_deref(), Some("capacity"));
    drop(state);
    assert_eq!(store.count("sources.s", Counter::Accepted), 3);
    assert_eq!(store.count("sources.s", Counter::DeadLettered), 2);
}

#[tokio::test]
async fn an_interceptor_that_fails_leaves_nothing_behind() {
    let store = FakeStore::durable(&[("main", 10)]);
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let link = FakeInterceptor::link("handlers.h", move |batch, call, effects| {
        match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => {
                effects.count_reason(call.part, Counter::Discarded, "void", 9);
                let after = Some(Duration::from_secs(3));
                Err(InterceptError::Later {
                    reason: "warming up".into(),
                    after,
                })
            }
            1 => Err(InterceptError::Fatal {
                reason: "licence".into(),
            }),
            _ => Ok(batch),
        }
    });
    let rig = Rig::new(&store, vec![link], to(&["main"]));
    let (name, after) = ("handlers.h".to_owned(), Some(Duration::from_secs(3)));
    let later = PutError::Later {
        part: name.clone(),
        reason: "warming up".into(),
        after,
    };
    assert_eq!(rig.ingest.put(put(events([1]))).await, Err(later));
    assert_eq!(rig.state(), State::Retrying);
    let fatal = PutError::Fatal {
        part: name,
        reason: "licence".into(),
    };
    assert_eq!(rig.ingest.put(put(events([1]))).await, Err(fatal));
    assert_eq!(rig.state(), State::Failed);
    assert!(store.state().commits.is_empty());
    rig.ingest.put(put(events([1]))).await.unwrap();
    assert_eq!(rig.state(), State::Running);
    assert_eq!(
        store.count("sources.s", Counter::Discarded),
        0,
        "effects of a failure are void"
    );
}

#[tokio::test]
async fn interceptors_run_in_order_and_an_empty_batch_reaches_none() {
    let store = FakeStore::durable(&[("main", 10)]);
    let append = |name: &'static str| {
        FakeInterceptor::link(&format!("handlers.{name}"), move |batch: Batch, _, _| {
            assert!(!batch.is_empty());
            Ok(events(
                bodies(&batch).iter().map(|body| format!("{body}{name}")),
            ))
        })
    };
    let rig = Rig::new(
        &store,
        vec![append("a"), append("b"), append("c")],
        to(&["main"]),
    );
    rig.ingest.put(put(events(["x", "y"]))).await.unwrap();
    assert_eq!(store.queued("main"), ["xabc", "yabc"]);
    rig.ingest.put(Put::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_holds_the_put_until_its_deadline_and_the_status_says_so() {
    let store = FakeStore::durable(&[("main", 2)]);
    let rig = Rig::new(&store, Vec::new(), to(&["main"]));
    rig.ingest.put(put(events([1, 2]))).await.unwrap();
    let began = Instant::now();
    let late = rig
        .ingest
        .put(Put::within(events([3]), Duration::from_secs(10)));
    tokio::pin!(late);
    assert!(waits(&mut late, Duration::from_secs(9)).await);
    let status = rig.status.parts().remove(0);
    assert_eq!(status.waits_for, WaitsFor::Room(vec![channel("main")]));
    assert_eq!(status.waits_for.to_string(), "room in channel main");
    assert_eq!(late.await, Err(PutError::Deadline));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(rig.status.parts()[0].waits_for, WaitsFor::Events);
    assert_eq!(rig.state(), State::Running, "back-pressure is no failure");
    assert_eq!(store.queued("main"), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded_first_come_first_served() {
    let store = FakeStore::durable(&[("main", 1)]);
    let rig = Rig::new(&store, Vec::new(), to(&["main"]));
    assert_eq!(rig.ingest.in_flight_limit(), 256 << 10);
    rig.ingest.put(put(events([0]))).await.unwrap();
    let large = |n: u8| put(events([format!("{n}{}", "x".repeat(200 << 10))]));
    let first = rig.ingest.put(large(1));
    tokio::pin!(first);
    assert!(
        waits(&mut first, Duration::from_secs(1)).await,
        "the channel is full"
    );
    let in_time = Put {
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        ..large(2)
    };
    let second = rig.ingest.put(in_time);
    tokio::pin!(second);
    assert!(waits(&mut second, Duration::from_secs(1)).await);
    let waiting: u64 = around(&store)
        .inspect
        .channels()
        .iter()
        .map(|c| c.waiting_puts)
        .sum();
    assert_eq!(waiting, 1, "the second one has not reached the store");
    let (first, second) = time::timeout(Duration::from_secs(60), async {
        let second = second.await;
        (waits(&mut first, Duration::ZERO).await, second)
    })
    .await
    .unwrap();
    assert!(first, "the first one goes on waiting for room");
    assert_eq!(second, Err(PutError::Deadline));
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_share_goes_alone_and_is_not_stuck() {
    let store = FakeStore::durable(&[("main", 10)]);
    let rig = Rig::new(&store, Vec::new(), to(&["main"]));
    rig.ingest
        .put(put(events(["x".repeat(1 << 20)])))
        .await
        .unwrap();
    rig.ingest.put(put(events(["y"]))).await.unwrap();
    assert_eq!(store.queued("main").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_closed_ingest_refuses_and_lets_go_of_what_waits() {
    let store = FakeStore::durable(&[("main", 1)]);
    let rig = Rig::new(&store, Vec::new(), to(&["main"]));
    rig.ingest.put(put(events([1]))).await.unwrap();
    let waiting = rig.ingest.put(put(events([2])));
    tokio::pin!(waiting);
    assert!(waits(&mut waiting, Duration::from_secs(60)).await);
    rig.close.drain();
    assert_eq!(waiting.await, Err(PutError::Stopping));
    assert_eq!(
        rig.ingest.put(put(events([3]))).await,
        Err(PutError::Stopping)
    );
    assert_eq!(store.queued("main"), ["1"]);
}

#[tokio::test]
async fn a_put_timeout_limits_puts_without_a_deadline_of_their_own() {
    let store = FakeStore::durable(&[("main", 10)]);
    let rig = Rig::with(
        &store,
        Vec::new(),
        to(&["main"]),
        Some(Duration::from_secs(10)),
    );
    let soon = Instant::now() + Duration::from_secs(1);
    rig.ingest.put(put(events([1]))).await.unwrap();
    rig.ingest
        .put(Put {
            deadline: Some(soon),
            ..put(events([2]))
        })
        .await
        .unwrap();
    let far = Instant::now() + Duration::from_secs(100);
    rig.ingest
        .put(Put {
            deadline: Some(far),
            ..put(events([3]))
        })
        .await
        .unwrap();
    let deadlines: Vec<_> = store
        .state()
        .commits
        .iter()
        .map(|c| c.deadline.unwrap())
        .collect();
    assert!(deadlines[0] > soon && deadlines[2] < far);
    assert_eq!(deadlines[1], soon);
}

#[test]
fn chance_makes_different_waits() {
    let chance = Chance::seeded(1);
    let most = Duration::from_secs(2);
    let mut back_off = crate::back_off::BackOff::new(Duration::from_millis(100), most, chance);
    let first = back_off.next();
    assert!(first <= Duration::from_millis(100));
    let waits: Vec<_> = (0..200).map(|_| back_off.next()).collect();
    assert!(waits.iter().all(|wait| *wait <= most));
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(1)));
    assert!(waits.iter().any(|wait| *wait < Duration::from_secs(1)));
    back_off.reset();
    assert!(back_off.next() <= Duration::from_millis(100));
}
