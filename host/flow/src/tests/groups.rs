//! Sink groups: whose turn it is, and what becomes of order.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use levada_core::{Delivery, SinkError};
use tokio::time::{self, Instant};

use super::{bodies, eventually, fake_parts::FakeSink, fake_store::FakeStore, part, run};
use crate::{GroupPlan, Plan, Policy, SinkPlan, WaitsFor};

/// What the sinks of a test were given, in order: sink, time, bodies.
type Given = Arc<Mutex<Vec<(&'static str, Instant, Vec<String>)>>>;

/// A sink that notes what it is given, takes a moment, and fails while it is down.
struct Member {
    sink: FakeSink,
    is_down: Arc<AtomicBool>,
    in_hand: Arc<AtomicUsize>,
}

impl Member {
    fn new(name: &'static str, given: &Given) -> Self {
        let (is_down, in_hand) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (given, down, hand) = (
            Arc::clone(given),
            Arc::clone(&is_down),
            Arc::clone(&in_hand),
        );
        let sink = FakeSink::new(move |_, batch| {
            let (given, down, hand) = (Arc::clone(&given), Arc::clone(&down), Arc::clone(&hand));
            async move {
                let _one = Hand::new(&hand);
                given
                    .lock()
                    .unwrap()
                    .push((name, Instant::now(), bodies(&batch)));
                time::sleep(Duration::from_millis(5)).await;
                if down.load(Ordering::SeqCst) {
                    return Err(SinkError::Unreachable {
                        what: "connection refused".into(),
                        source: None,
                    });
                }
                Ok(Delivery::done())
            }
        });
        Self {
            sink,
            is_down,
            in_hand,
        }
    }

    fn down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }
}

/// Counts a delivery while it is under way.
struct Hand(Arc<AtomicUsize>);

impl Hand {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn group(policy: Policy, longest_rest: Option<Duration>, sinks: Vec<SinkPlan>) -> Plan {
    let members = sinks.iter().map(|sink| sink.part.clone()).collect();
    Plan {
        groups: vec![GroupPlan {
            part: part("groups.uplink"),
            members,
            policy,
            longest_rest,
        }],
        sinks,
        ..Plan::default()
    }
}

fn failover(sinks: Vec<SinkPlan>) -> Plan {
    let count = i64::try_from(sinks.len()).unwrap();
    let priorities = (0..count).map(|n| count - n).collect();
    let longest = Some(Duration::from_secs(30));
    group(Policy::Failover { priorities }, longest, sinks)
}

fn names(given: &Given) -> Vec<&'static str> {
    given
        .lock()
        .unwrap()
        .iter()
        .map(|(name, ..)| *name)
        .collect()
}

/// The bodies in the order in which they were given, each the last time only.
fn order(given: &Given) -> Vec<usize> {
    let given = given.lock().unwrap();
    let all: Vec<usize> = given
        .iter()
        .flat_map(|(.., bodies)| bodies)
        .map(|body| body.parse().unwrap())
        .collect();
    let is_last = |n: &usize| !all[n + 1..].contains(&all[*n]);
    (0..all.len()).filter(is_last).map(|n| all[n]).collect()
}

#[tokio::test(start_paused = true)]
async fn failover_uses_the_best_and_the_others_stand_by() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let [up, up2] = ["up", "up2"].map(|name| Member::new(name, &given));
    store.fill("main", 0..50);
    let sinks = vec![
        up.sink.plan("sinks.up", "main", 5),
        up2.sink.plan("sinks.up2", "main", 5),
    ];
    let running = run(failover(sinks), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(names(&given), ["up"; 10]);
    assert_eq!(running.status.parts()[1].waits_for, WaitsFor::Turn);
    let turn = "levada_group_turn{group=\"groups.uplink\",part=\"sinks.up\"}";
    assert_eq!(running.metric(turn), Some(1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failover_passes_on_at_a_failure_and_comes_back_after_the_rest() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let [up, up2] = ["up", "up2"].map(|name| Member::new(name, &given));
    up.down(true);
    store.fill("main", 0..5);
    let sinks = vec![
        up.sink.plan("sinks.up", "main", 5),
        up2.sink.plan("sinks.up2", "main", 5),
    ];
    let running = run(failover(sinks), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(
        names(&given),
        ["up", "up2"],
        "at once, not after a back-off"
    );
    let failed = given.lock().unwrap()[0].1;
    // It rests 2 s, and then is tried with the next batch, again in vain: 4 s.
    for wait in [2, 4, 8, 16, 30, 30] {
        let seen = names(&given).len();
        time::sleep(Duration::from_millis(wait * 1000 - 100)).await;
        store.fill("main", [0]);
        eventually(|| names(&given).len() > seen && store.queued("main").is_empty()).await;
        assert_eq!(names(&given)[seen..], ["up2"], "{wait} s are not over");
        time::sleep(Duration::from_millis(200)).await;
        store.fill("main", [0]);
        eventually(|| names(&given).len() > seen + 2 && store.queued("main").is_empty()).await;
        assert_eq!(names(&given)[seen + 1..], ["up", "up2"], "after {wait} s");
    }
    assert!(failed.elapsed() > Duration::from_secs(90));
    up.down(false);
    time::sleep(Duration::from_secs(31)).await;
    let seen = names(&given).len();
    for n in 0..3 {
        store.fill("main", [n]);
        eventually(|| store.queued("main").is_empty()).await;
    }
    assert_eq!(
        names(&given)[seen..],
        ["up", "up", "up"],
        "it has the turn again"
    );
    // A success ends the row of failures: the next rest is the first again.
    up.down(true);
    store.fill("main", [1]);
    eventually(|| store.queued("main").is_empty()).await;
    up.down(false);
    time::sleep(Duration::from_millis(2100)).await;
    let seen = names(&given).len();
    store.fill("main", [1]);
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(names(&given)[seen..], ["up"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failover_keeps_the_order_and_never_has_two_sinks_deliver_at_once() {
    let store = FakeStore::durable(&[("main", 10_000)]);
    let given = Given::default();
    let members = ["up", "up2", "up3"].map(|name| Member::new(name, &given));
    store.fill("main", 0..1000);
    let plans = ["sinks.up", "sinks.up2", "sinks.up3"]
        .iter()
        .zip(&members)
        .map(|(name, member)| member.sink.clone().window(4).plan(name, "main", 3))
        .collect();
    let running = run(failover(plans), &store).await;
    let mut flips = 0_usize;
    while !store.queued("main").is_empty() {
        let busy = members
            .iter()
            .filter(|member| member.in_hand.load(Ordering::SeqCst) > 0);
        assert!(busy.count() <= 1, "two sinks of the group deliver at once");
        if flips.is_multiple_of(97) {
            members[flips / 97 % 3].down((flips / 291).is_multiple_of(2));
        }
        flips += 1;
        time::sleep(Duration::from_millis(1)).await;
        assert!(flips < 600_000, "never empty");
        if flips > 5000 {
            members.iter().for_each(|member| member.down(false));
        }
    }
    assert_eq!(order(&given), (0..1000).collect::<Vec<_>>());
    let used = names(&given);
    for name in ["up", "up2", "up3"] {
        assert!(used.contains(&name), "{name} had no turn");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn round_robin_gives_every_sink_its_share_and_they_deliver_side_by_side() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let members = ["up", "up2", "up3"].map(|name| Member::new(name, &given));
    store.fill("main", 0..90);
    let plans = ["sinks.up", "sinks.up2", "sinks.up3"]
        .iter()
        .zip(&members)
        .map(|(name, member)| member.sink.plan(name, "main", 1))
        .collect();
    let began = Instant::now();
    let running = run(group(Policy::RoundRobin, None, plans), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(90 * 5 / 2),
        "not in parallel: {took:?}"
    );
    let used = names(&given);
    for name in ["up", "up2", "up3"] {
        assert_eq!(used.iter().filter(|used| **used == name).count(), 30);
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_is_left_out_of_the_round_while_it_rests() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let [up, up2] = ["up", "up2"].map(|name| Member::new(name, &given));
    up.down(true);
    store.fill("main", 0..40);
    let sinks = vec![
        up.sink.plan("sinks.up", "main", 1),
        up2.sink.plan("sinks.up2", "main", 1),
    ];
    let longest = Some(Duration::from_secs(30));
    let running = run(group(Policy::RoundRobin, longest, sinks), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    let tries = names(&given).iter().filter(|name| **name == "up").count();
    assert_eq!(tries, 1, "the rest of 2 s is longer than the work");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn random_uses_every_sink() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let members = ["up", "up2", "up3"].map(|name| Member::new(name, &given));
    store.fill("main", 0..300);
    let plans = ["sinks.up", "sinks.up2", "sinks.up3"]
        .iter()
        .zip(&members)
        .map(|(name, member)| member.sink.plan(name, "main", 1))
        .collect();
    let running = run(group(Policy::Random, None, plans), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    let used = names(&given);
    for name in ["up", "up2", "up3"] {
        let share = used.iter().filter(|used| **used == name).count();
        assert!((60..=140).contains(&share), "{name}: {share} of 300");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_sinks_are_all_down_loses_nothing_and_goes_on_when_one_is_back() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let [up, up2] = ["up", "up2"].map(|name| Member::new(name, &given));
    up.down(true);
    up2.down(true);
    store.fill("main", 0..20);
    let sinks = vec![
        up.sink.plan("sinks.up", "main", 5),
        up2.sink.plan("sinks.up2", "main", 5),
    ];
    let running = run(failover(sinks), &store).await;
    time::sleep(Duration::from_secs(100)).await;
    assert_eq!(store.queued("main").len(), 20);
    up2.down(false);
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(order(&given), (0..20).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_gives_its_turn_back() {
    let store = FakeStore::durable(&[("main", 1000)]);
    let given = Given::default();
    let up2 = Member::new("up2", &given);
    let up = FakeSink::new(|_, _| async { panic!("a defect") });
    store.fill("main", 0..20);
    let sinks = vec![
        up.plan("sinks.up", "main", 5),
        up2.sink.plan("sinks.up2", "main", 5),
    ];
    let running = run(failover(sinks), &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(order(&given), (0..20).collect::<Vec<_>>());
    running.stop().await;
}
