//! Random operations against a simple model, reopened in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use levada_core::{Lease, Outcome, Outcomes};
use levada_store::{ChannelKind, ChannelSpec, Stores};
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use tempfile::TempDir;

use crate::{
    lanes::{divided, keyed, lane_of},
    place::{check_audit, crashed_copy, lease, numbers, open_in, put, queued, settle, spec},
};

#[derive(Debug, Clone)]
enum Op {
    Put(u8),
    Lease(u8),
    /// Settles the oldest lease, each event by two bits of the pattern.
    Settle(u64),
    SettleAll,
    /// Drops the newest lease.
    Drop,
    /// Closes and opens again; a channel that is divided, into so many lanes.
    Reopen(u32),
    /// Goes on with a copy of the file, taken while the store was open.
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<u8>().prop_map(Op::Put),
        4 => any::<u8>().prop_map(Op::Lease),
        3 => any::<u64>().prop_map(Op::Settle),
        2 => Just(Op::SettleAll),
        2 => Just(Op::Drop),
        1 => (1_u32..6).prop_map(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

/// What must be in the channel: the free events and those that are leased, by lane.
#[derive(Debug)]
struct Model {
    /// `None` for a channel that is not divided.
    lanes: Option<u32>,
    next: u64,
    free: BTreeMap<u32, BTreeSet<u64>>,
    leased: Vec<(u32, Vec<u64>)>,
}

struct Real {
    dir: TempDir,
    store: Arc<Stores>,
    leases: Vec<Lease>,
}

fn channels(lanes: Option<u32>) -> Vec<ChannelSpec> {
    vec![match lanes {
        None => spec("c", ChannelKind::Durable),
        Some(count) => divided(ChannelKind::Durable, count),
    }]
}

impl Real {
    fn on(dir: TempDir, lanes: Option<u32>) -> Self {
        let store = open_in(dir.path(), channels(lanes));
        Self {
            dir,
            store,
            leases: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Model {
    fn new(lanes: Option<u32>) -> Self {
        Self {
            lanes,
            next: 0,
            free: BTreeMap::new(),
            leased: Vec::new(),
        }
    }

    fn give_back(&mut self, (lane, numbers): (u32, Vec<u64>)) {
        self.free.entry(lane).or_default().extend(numbers);
    }

    fn free(&self) -> usize {
        self.free.values().map(BTreeSet::len).sum()
    }

    fn forget_leases(&mut self) {
        for lease in std::mem::take(&mut self.leased) {
            self.give_back(lease);
        }
    }

    async fn run(&mut self, real: &mut Real, op: Op) {
        match op {
            Op::Put(events) => {
                let batch = self.next..self.next + u64::from(events) + 1;
                self.next = batch.end;
                for number in batch.clone() {
                    let lane = self.lanes.map_or(0, |count| lane_of(number, count));
                    self.free.entry(lane).or_default().insert(number);
                }
                put(&real.store, "c", keyed(batch)).await;
            }
            Op::Lease(most) => self.lease(real, usize::from(most) * 2 + 1).await,
            Op::Settle(pattern) if !self.leased.is_empty() => self.settle(real, pattern).await,
            Op::SettleAll if !self.leased.is_empty() => {
                self.leased.remove(0);
                settle(&real.store, real.leases.remove(0), Outcomes::Done).await;
            }
            Op::Drop => {
                if let Some(lease) = self.leased.pop() {
                    self.give_back(lease);
                }
                drop(real.leases.pop());
            }
            Op::Reopen(count) => {
                self.forget_leases();
                self.lanes = self.lanes.map(|_| count);
                real.leases.clear();
                assert_eq!(real.store.close().unclean, None);
                real.store = open_in(real.path(), channels(self.lanes));
            }
            Op::Crash => {
                self.forget_leases();
                *real = Real::on(crashed_copy(real.path()), self.lanes);
            }
            Op::Settle(_) | Op::SettleAll => {}
        }
        let leased: usize = self.leased.iter().map(|(_, numbers)| numbers.len()).sum();
        assert_eq!(queued(&real.store, "c"), (self.free() + leased) as u64);
        check_audit(&real.store);
    }

    async fn lease(&mut self, real: &mut Real, most: usize) {
        if self.free() == 0 {
            return;
        }
        let lease = lease(&real.store, "c", most).await;
        let taken = numbers(&lease.batch);
        let free = self.free.entry(lease.lane).or_default();
        let expected: Vec<_> = free.iter().take(taken.len()).copied().collect();
        assert_eq!(taken, expected, "in order, and the oldest first");
        assert_eq!(taken.len(), most.min(free.len()));
        free.retain(|number| !taken.contains(number));
        self.leased.push((lease.lane, taken));
        real.leases.push(lease);
    }

    async fn settle(&mut self, real: &mut Real, pattern: u64) {
        let (lane, events) = self.leased.remove(0);
        let outcome = |n: usize| match pattern >> (n % 32 * 2) & 3 {
            0 => Outcome::Retry,
            1 => Outcome::Discard,
            _ => Outcome::Done,
        };
        let each: Vec<_> = (0..events.len()).map(outcome).collect();
        let back = events
            .iter()
            .zip(&each)
            .filter(|(_, outcome)| **outcome == Outcome::Retry);
        let back = back.map(|(number, _)| *number).collect();
        self.give_back((lane, back));
        settle(&real.store, real.leases.remove(0), Outcomes::Each(each)).await;
    }
}

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 32,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..Default::default()
    })]

    #[test]
    fn a_durable_channel_is_a_queue(ops in proptest::collection::vec(op(), 1..40)) {
        let (found, expected) = left_after(ops, None);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_divided_channel_is_a_queue_for_each_lane(ops in proptest::collection::vec(op(), 1..40)) {
        let (found, expected) = left_after(ops, Some(4));
        prop_assert_eq!(found, expected);
    }
}

type Left = BTreeMap<u32, Vec<u64>>;

/// What is left in each lane of a channel, and what should be, in order.
fn left_after(ops: Vec<Op>, lanes: Option<u32>) -> (Left, Left) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let mut model = Model::new(lanes);
        let mut real = Real::on(tempfile::tempdir().unwrap(), lanes);
        for op in ops {
            model.run(&mut real, op).await;
        }
        let expected: Left = std::mem::take(&mut model.free)
            .into_iter()
            .filter(|(_, numbers)| !numbers.is_empty())
            .map(|(lane, numbers)| (lane, numbers.into_iter().collect()))
            .collect();
        let leased = std::mem::take(&mut real.leases);
        let (mut found, mut missing) =
            (Left::new(), expected.values().map(Vec::len).sum::<usize>());
        while missing > 0 {
            let lease = lease(&real.store, "c", 64).await;
            missing -= lease.batch.len();
            found
                .entry(lease.lane)
                .or_default()
                .extend(numbers(&lease.batch));
            settle(&real.store, lease, Outcomes::Done).await;
        }
        drop(leased);
        (found, expected)
    })
}
