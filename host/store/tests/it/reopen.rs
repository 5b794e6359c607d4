//! Errors of the disk while the store is open: it opens its file again by itself.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use levada_core::{Counter, Outcomes, PutError, Settlement, Store, TakeError, inspect::Inspect};
use levada_store::{
    ChannelKind, Stores,
    testing::{self, Stepper},
};

use crate::{
    broken::{Broken, Call, Fault, How},
    place::{
        at_most, channel, check_audit, is_pending, numbered, numbers, part, poll_once, put_of,
        queued, settlement, spec,
    },
};

/// A store whose writer is stepped by hand, on a clock of the test's own.
struct Rig {
    disk: Broken,
    dir: tempfile::TempDir,
    store: std::sync::Arc<Stores>,
    writer: Stepper,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self::on(Broken::default())
    }

    fn on(disk: Broken) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = testing::open_stepped(disk.params(dir.path(), channels())).unwrap();
        Self {
            disk,
            dir,
            store,
            writer,
            now: Instant::now(),
        }
    }

    /// Lets so much time pass, and the writer do what is due.
    fn run(&mut self, time: Duration) {
        self.now += time;
        while self.writer.step(self.now) {}
    }

    async fn put(&mut self, name: &str, events: std::ops::Range<u64>) -> Result<(), PutError> {
        let store = std::sync::Arc::clone(&self.store);
        let mut put = Box::pin(store.commit(put_of(vec![(name, numbered(events))])));
        // On a full disk it waits for room, which is looked for every second.
        for time in [Duration::ZERO, Duration::from_secs(1), Duration::ZERO] {
            if let Some(answer) = poll_once(&mut put).await {
                return answer;
            }
            self.run(time);
        }
        put.await
    }

    /// Takes and settles up to so many; what the sink saw.
    async fn take(&mut self, events: usize) -> Result<Vec<u64>, TakeError> {
        if queued(&self.store, "c") == 0 {
            return Ok(Vec::new());
        }
        let store = std::sync::Arc::clone(&self.store);
        let lease = store.lease(&channel("c"), at_most(events)).await?;
        let seen = numbers(&lease.batch);
        let mut settled = Box::pin(store.settle(lease, settlement(Outcomes::Done)));
        let at_once = poll_once(&mut settled).await;
        self.run(Duration::ZERO);
        match at_once {
            Some(answer) => answer?,
            None => settled.await?,
        }
        Ok(seen)
    }

    /// Opens the same disk again, as after a kill.
    fn restart(self) -> std::sync::Arc<Stores> {
        let Self {
            disk,
            dir,
            store,
            writer,
            ..
        } = self;
        let other = tempfile::tempdir().unwrap();
        // No close: the old one is left as it is.
        std::mem::forget((store, writer, dir));
        levada_store::open(disk.params(other.path(), channels())).unwrap()
    }
}

fn channels() -> Vec<levada_store::ChannelSpec> {
    vec![
        spec("c", ChannelKind::Durable),
        spec("m", ChannelKind::Memory),
    ]
}

fn once(call: Option<Call>, after: u64, how: How) -> Fault {
    Fault {
        call,
        after,
        once: true,
        how,
    }
}

const EIO: How = How::Error(ErrorKind::Other);
const FULL: How = How::Error(ErrorKind::StorageFull);

/// Puts and takes with one failure at the `after`-th call of the disk; whether it came to pass.
async fn live_through(disk: Broken, fault: Fault) -> bool {
    let mut rig = Rig::on(disk);
    rig.put("c", 0..50).await.unwrap();
    rig.disk.break_it(fault);
    let (mut acked, mut seen, mut next) = (Vec::from_iter(0..50), Vec::new(), 50);
    for round in 0..6 {
        match rig.put("c", next..next + 20).await {
            Ok(()) => acked.extend(next..next + 20),
            // A clear answer: nothing of it is there, and it can be sent again.
            Err(error) => {
                let text = error.to_string();
                let full = matches!(error, PutError::Full { .. });
                assert!(full || text.contains("send it again"), "{fault:?}: {text}");
            }
        }
        next += 20;
        // A sink that was refused tries again.
        if let Ok(taken) = rig.take(15 + round).await {
            seen.extend(taken);
        }
        rig.run(Duration::from_millis(20));
    }
    let pending = rig.disk.mend();
    rig.run(Duration::from_secs(1));
    let state = rig.store.store().unwrap().state;
    assert_eq!(state, "ok", "{fault:?}");
    check_audit(&rig.store);
    let before_restart = queued(&rig.store, "c");
    let delivered = counted(&rig.store, Counter::Delivered);
    let again = rig.restart();
    assert_eq!(queued(&again, "c"), before_restart, "{fault:?}");
    assert_eq!(counted(&again, Counter::Delivered), delivered, "{fault:?}");
    check_audit(&again);
    seen.extend(crate::place::drain(&again, "c").await);
    check_audit(&again);
    // A sink whose settlement failed has seen its events, and sees none of them twice.
    assert_eq!(
        seen.len() as u64 + unheard(&again, &seen, &acked),
        acked.len() as u64
    );
    !pending
}

/// Events whose settlement was answered with an error, and that did go.
fn unheard(store: &Stores, seen: &[u64], acked: &[u64]) -> u64 {
    let mut once = seen.to_vec();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "seen twice");
    assert!(once.iter().all(|number| acked.contains(number)));
    counted(store, Counter::Delivered) - seen.len() as u64
}

fn counted(store: &Stores, counter: Counter) -> u64 {
    let counts = store.counts().unwrap();
    let same = counts
        .iter()
        .filter(|count| count.counter == counter && count.part == part("channels.c"));
    same.map(|count| count.amount).sum()
}

#[tokio::test]
async fn one_error_at_any_call_of_the_disk_loses_nothing() {
    for (how, ahead) in [(EIO, 0), (FULL, 0), (EIO, 256 << 10), (FULL, 256 << 10)] {
        let mut calls = 0;
        while live_through(Broken::with_ahead(ahead), once(None, calls, how)).await {
            calls += 1;
        }
        assert!(calls > 30, "{how:?}: only {calls} calls");
    }
}

#[tokio::test]
async fn a_commit_that_reached_the_disk_is_acknowledged_though_its_sync_failed() {
    let mut rig = Rig::new();
    rig.put("c", 0..5).await.unwrap();
    // The medium has everything that was written: the commit is there when the file is read again.
    rig.disk.break_it(once(Some(Call::Sync), 0, EIO));
    rig.put("c", 5..9).await.unwrap();
    assert!(!rig.disk.mend());
    assert_eq!(queued(&rig.store, "c"), 9);
    assert_eq!(rig.take(100).await.unwrap(), (0..9).collect::<Vec<_>>());
    check_audit(&rig.store);
}

#[tokio::test]
async fn leases_outlive_the_opening_of_the_file() {
    let mut rig = Rig::new();
    rig.put("c", 0..10).await.unwrap();
    let held = rig.store.lease(&channel("c"), at_most(4)).await.unwrap();
    rig.disk.break_it(once(Some(Call::Write), 0, EIO));
    let refused = rig.put("c", 10..12).await;
    assert!(
        matches!(refused, Err(PutError::Store { .. })),
        "{refused:?}"
    );
    // The sink settles what it has; nobody else got it meanwhile.
    let lazy = Settlement {
        durable: false,
        ..settlement(Outcomes::Done)
    };
    rig.store.settle(held, lazy).await.unwrap();
    assert_eq!(rig.take(100).await.unwrap(), (4..10).collect::<Vec<_>>());
    check_audit(&rig.store);
    let again = rig.restart();
    assert_eq!(queued(&again, "c"), 0);
    check_audit(&again);
}

#[tokio::test]
async fn a_second_error_within_a_minute_fails_the_store_and_it_comes_back() {
    let mut rig = Rig::new();
    rig.put("c", 0..10).await.unwrap();
    rig.put("m", 0..3).await.unwrap();
    rig.disk.break_it(once(Some(Call::Write), 0, EIO));
    assert!(rig.put("c", 10..12).await.is_err());
    assert_eq!(rig.store.store().unwrap().state, "ok");
    rig.put("c", 12..14).await.unwrap();
    rig.run(Duration::from_secs(59));
    rig.disk.break_it(once(Some(Call::Write), 0, EIO));
    assert!(rig.put("c", 14..16).await.is_err());
    let state = rig.store.store().unwrap().state;
    assert!(state.contains("the disk is broken"), "{state}");
    // Sources are refused, sinks too; what is in memory runs on.
    let refused = rig.put("c", 16..18).await;
    assert!(
        matches!(refused, Err(PutError::Store { .. })),
        "{refused:?}"
    );
    let taken = rig.store.lease(&channel("c"), at_most(1)).await;
    assert!(matches!(taken, Err(TakeError::Store { .. })), "{taken:?}");
    rig.put("m", 3..5).await.unwrap();
    rig.run(Duration::from_secs(59));
    assert_ne!(rig.store.store().unwrap().state, "ok");
    // After a minute it is tried again.
    rig.run(Duration::from_secs(2));
    assert_eq!(rig.store.store().unwrap().state, "ok");
    rig.put("c", 18..20).await.unwrap();
    let expected: Vec<u64> = (0..10).chain(12..14).chain(18..20).collect();
    assert_eq!(rig.take(100).await.unwrap(), expected);
    check_audit(&rig.store);
}

#[tokio::test]
async fn what_was_written_when_the_store_failed_is_found_when_it_comes_back() {
    let mut rig = Rig::new();
    rig.put("c", 0..10).await.unwrap();
    let held = rig.store.lease(&channel("c"), at_most(4)).await.unwrap();
    // The sync fails, and so does every read after it.
    rig.disk.break_it(Fault {
        call: Some(Call::Sync),
        after: 0,
        once: false,
        how: EIO,
    });
    let store = std::sync::Arc::clone(&rig.store);
    let mut settled = Box::pin(store.settle(held, settlement(Outcomes::Done)));
    assert!(is_pending(&mut settled).await);
    let refused = rig.put("c", 10..12).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("whether it is stored is not known"), "{text}");
    assert!(matches!(settled.await, Err(TakeError::Store { .. })));
    rig.disk.mend();
    rig.run(Duration::from_secs(61));
    assert_eq!(rig.store.store().unwrap().state, "ok");
    check_audit(&rig.store);
    // It was stored, and so was what the sink had settled.
    assert_eq!(rig.take(100).await.unwrap(), (4..12).collect::<Vec<_>>());
    check_audit(&rig.store);
    let again = rig.restart();
    assert_eq!(queued(&again, "c"), 0);
    check_audit(&again);
}

#[tokio::test]
async fn an_error_of_a_reader_has_the_file_opened_again() {
    for how in [EIO, How::Panic] {
        let mut rig = Rig::new();
        rig.put("c", 0..2000).await.unwrap();
        rig.disk.break_it(once(Some(Call::Read), 0, how));
        let taken = rig.store.lease(&channel("c"), at_most(10)).await;
        assert!(matches!(taken, Err(TakeError::Store { .. })), "{taken:?}");
        rig.run(Duration::ZERO);
        assert_eq!(rig.take(10).await.unwrap(), (0..10).collect::<Vec<_>>());
        rig.put("c", 10..12).await.unwrap();
        check_audit(&rig.store);
    }
}

#[tokio::test]
async fn a_store_that_fails_while_it_closes_says_so_and_ends() {
    let disk = Broken::default();
    let dir = tempfile::tempdir().unwrap();
    let store = levada_store::open(disk.params(dir.path(), channels())).unwrap();
    crate::place::put(&store, "c", numbered(0..10)).await;
    let held = store.lease(&channel("c"), at_most(4)).await.unwrap();
    let lazy = Settlement {
        durable: false,
        ..settlement(Outcomes::Done)
    };
    disk.break_it(Fault {
        call: None,
        after: 0,
        once: false,
        how: EIO,
    });
    store.settle(held, lazy).await.unwrap();
    let unclean = store.close().unclean.unwrap();
    assert!(unclean.contains("the disk is broken"), "{unclean}");
}
