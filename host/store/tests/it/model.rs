//! Random operations against a simple model, reopened in between.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use levada_core::{Lease, Outcome, Outcomes};
use levada_store::{ChannelKind, ChannelSpec, Stores};
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use tempfile::TempDir;

use crate::place::{
    check_audit, crashed_copy, lease, numbered, numbers, open_in, put, queued, settle, spec,
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
    /// Closes and opens again.
    Reopen,
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
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

/// What must be in the channel: the free events and those that are leased.
#[derive(Debug, Default)]
struct Model {
    next: u64,
    free: BTreeSet<u64>,
    leased: Vec<Vec<u64>>,
}

struct Real {
    dir: TempDir,
    store: Arc<Stores>,
    leases: Vec<Lease>,
}

fn channels() -> Vec<ChannelSpec> {
    vec![spec("c", ChannelKind::Durable)]
}

impl Real {
    fn on(dir: TempDir) -> Self {
        let store = open_in(dir.path(), channels());
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
    async fn run(&mut self, real: &mut Real, op: Op) {
        match op {
            Op::Put(events) => {
                let batch = self.next..self.next + u64::from(events) + 1;
                self.next = batch.end;
                self.free.extend(batch.clone());
                put(&real.store, "c", numbered(batch)).await;
            }
            Op::Lease(most) => self.lease(real, usize::from(most) * 2 + 1).await,
            Op::Settle(pattern) if !self.leased.is_empty() => self.settle(real, pattern).await,
            Op::SettleAll if !self.leased.is_empty() => {
                self.leased.remove(0);
                settle(&real.store, real.leases.remove(0), Outcomes::Done).await;
            }
            Op::Drop => {
                self.free.extend(self.leased.pop().into_iter().flatten());
                drop(real.leases.pop());
            }
            Op::Reopen => {
                self.free.extend(self.leased.drain(..).flatten());
                real.leases.clear();
                assert_eq!(real.store.close().unclean, None);
                real.store = open_in(real.path(), channels());
            }
            Op::Crash => {
                self.free.extend(self.leased.drain(..).flatten());
                *real = Real::on(crashed_copy(real.path()));
            }
            Op::Settle(_) | Op::SettleAll => {}
        }
        let leased: usize = self.leased.iter().map(Vec::len).sum();
        assert_eq!(queued(&real.store, "c"), (self.free.len() + leased) as u64);
        check_audit(&real.store);
    }

    async fn lease(&mut self, real: &mut Real, most: usize) {
        if self.free.is_empty() {
            return;
        }
        let lease = lease(&real.store, "c", most).await;
        let taken = numbers(&lease.batch);
        let expected: Vec<_> = self.free.iter().take(taken.len()).copied().collect();
        assert_eq!(taken, expected, "in order, and the oldest first");
        assert_eq!(taken.len(), most.min(self.free.len()));
        self.free.retain(|number| !taken.contains(number));
        self.leased.push(taken);
        real.leases.push(lease);
    }

    async fn settle(&mut self, real: &mut Real, pattern: u64) {
        let events = self.leased.remove(0);
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
        self.free.extend(back.map(|(number, _)| *number));
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let left = runtime.block_on(async {
            let mut model = Model::default();
            let mut real = Real::on(tempfile::tempdir().unwrap());
            for op in ops {
                model.run(&mut real, op).await;
            }
            let expected: Vec<_> = std::mem::take(&mut model.free).into_iter().collect();
            let leased = std::mem::take(&mut real.leases);
            let mut found = Vec::new();
            while found.len() < expected.len() {
                let lease = lease(&real.store, "c", 64).await;
                found.extend(numbers(&lease.batch));
                settle(&real.store, lease, Outcomes::Done).await;
            }
            drop(leased);
            (found, expected)
        });
        prop_assert_eq!(left.0, left.1);
    }
}
