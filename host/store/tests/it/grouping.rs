//! The writer, stepped by hand: what is committed together, and when.

use std::time::{Duration, Instant};

use levada_core::{Outcomes, PutError, Settlement, Store, inspect::Inspect};
use levada_store::{ChannelKind, ChannelSpec, StoreParams, testing};

use crate::place::{is_pending, lease, numbered, put_of, settlement, spec};

fn params(dir: &std::path::Path) -> StoreParams {
    StoreParams::new(dir, vec![spec("c", ChannelKind::Durable)])
}

#[tokio::test]
async fn what_waits_goes_into_one_commit_with_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = testing::open_stepped(params(dir.path())).unwrap();
    let before = store.store().unwrap();
    let mut puts: Vec<_> = (0..16)
        .map(|n| store.commit(put_of(vec![("c", numbered([n]))])))
        .collect();
    for put in &mut puts {
        assert!(is_pending(put).await);
    }
    assert!(writer.step(Instant::now()));
    for put in puts {
        put.await.unwrap();
    }
    let after = store.store().unwrap();
    assert_eq!(after.commits - before.commits, 1);
    assert_eq!(after.flushes - before.flushes, 1);
    assert!(!writer.step(Instant::now()));
    assert_eq!(writer.close().unclean, None);
}

#[tokio::test]
async fn a_delete_waits_for_a_put_and_then_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = testing::open_stepped(params(dir.path())).unwrap();
    let mut put = store.commit(put_of(vec![("c", numbered(0..10))]));
    assert!(is_pending(&mut put).await);
    assert!(writer.step(Instant::now()));
    put.await.unwrap();
    let taken = lease(&store, "c", 10).await;
    let lazy = Settlement {
        durable: false,
        ..settlement(Outcomes::Done)
    };
    store.settle(taken, lazy).await.unwrap();
    let now = Instant::now();
    // Room is free at once; the delete waits.
    assert_eq!(store.channels()[0].events, 0);
    assert!(!writer.step(now));
    assert!(writer.step(now + Duration::from_millis(11)));
    assert_eq!(
        store.borders(&crate::place::channel("c"), 0).unwrap().len(),
        1
    );
    writer.close();
}

#[tokio::test]
async fn a_put_that_is_dropped_before_it_is_taken_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = testing::open_stepped(params(dir.path())).unwrap();
    let mut put = store.commit(put_of(vec![("c", numbered(0..10))]));
    assert!(is_pending(&mut put).await);
    drop(put);
    writer.step(Instant::now());
    let info = &store.channels()[0];
    assert_eq!((info.events, info.bytes), (0, 0));
    let mut put = store.commit(put_of(vec![("c", numbered(0..10))]));
    assert!(is_pending(&mut put).await);
    writer.close();
    assert_eq!(put.await, Ok(()));
}

#[tokio::test]
async fn conflicting_puts_of_one_group_are_told_apart() {
    use levada_core::{MarkWrite, marks::Expect};
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = testing::open_stepped(params(dir.path())).unwrap();
    let claim = |n: u64| {
        let mut commit = put_of(vec![("c", numbered([n]))]);
        let expect = Expect::Exactly(None);
        commit.marks.push(MarkWrite {
            expect,
            ..MarkWrite::set("k", n.to_string())
        });
        store.commit(commit)
    };
    let (mut first, mut second) = (claim(1), claim(2));
    assert!(is_pending(&mut first).await);
    assert!(is_pending(&mut second).await);
    writer.step(Instant::now());
    assert_eq!(first.await, Ok(()));
    assert_eq!(second.await, Err(PutError::Conflict { key: "k".into() }));
    assert_eq!(store.channels()[0].events, 1);
    writer.close();
}

#[tokio::test]
async fn a_quick_repair_commit_comes_after_five_idle_seconds_and_much_data() {
    let dir = tempfile::tempdir().unwrap();
    let large = ChannelSpec {
        capacity_bytes: 1 << 30,
        ..spec("c", ChannelKind::Durable)
    };
    let params = StoreParams::new(dir.path(), vec![large]);
    let registry = params.registry.clone();
    let (store, mut writer) = testing::open_stepped(params).unwrap();
    let mut builder = levada_core::BatchBuilder::default();
    for _ in 0..66 {
        builder.push([("a", "b")], &vec![7; 1 << 20]);
    }
    let mut put = store.commit(put_of(vec![("c", builder.finish())]));
    assert!(is_pending(&mut put).await);
    let now = Instant::now();
    assert!(writer.step(now));
    put.await.unwrap();
    assert!(!writer.step(now + Duration::from_secs(4)));
    assert!(writer.step(now + Duration::from_secs(6)));
    assert!(!writer.step(now + Duration::from_secs(12)));
    let text = registry.render();
    let line = text
        .lines()
        .find(|line| line.starts_with("levada_store_quick_repairs_total"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{text}");
    writer.close();
}

/// Device bytes per payload byte, and syncs per commit, of puts whose events are taken at once.
async fn cost_of(events: usize, rounds: u64) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = testing::open_stepped(params(dir.path())).unwrap();
    let mut builder = levada_core::BatchBuilder::default();
    for n in 0..events {
        let headers = [
            ("device", "sensor-0001-north"),
            ("site", "plant-7-hall-3-line-9"),
            ("number", &format!("{n:08}")),
        ];
        builder.push(headers, &[b'x'; 200]);
    }
    let batch = builder.finish();
    let mut before = store.store().unwrap();
    for round in 0..rounds {
        // The first rounds let the file find its size.
        if round == rounds / 2 {
            before = store.store().unwrap();
        }
        let mut put = store.commit(put_of(vec![("c", batch.clone())]));
        assert!(is_pending(&mut put).await);
        assert!(writer.step(Instant::now()));
        put.await.unwrap();
        let taken = lease(&store, "c", events).await;
        let lazy = Settlement {
            durable: false,
            ..settlement(Outcomes::Done)
        };
        store.settle(taken, lazy).await.unwrap();
    }
    let after = store.store().unwrap();
    let commits = (after.commits - before.commits) as f64;
    assert_eq!(
        batch.bytes() / events,
        272,
        "the event of the performance targets"
    );
    let payload = batch.bytes() as f64 * commits;
    writer.close();
    let written = (after.written_bytes - before.written_bytes) as f64;
    (
        written / payload,
        (after.flushes - before.flushes) as f64 / commits,
    )
}

#[tokio::test]
async fn a_commit_costs_one_sync_and_few_bytes_beside_the_events() {
    let (large, syncs) = cost_of(1000, 200).await;
    assert!(
        large <= 1.25,
        "{large} device bytes per payload byte at batch 1000"
    );
    assert!(syncs <= 1.02, "{syncs} syncs a commit at batch 1000");
    let (small, syncs) = cost_of(100, 400).await;
    assert!(
        small <= 2.2,
        "{small} device bytes per payload byte at batch 100"
    );
    assert!(syncs <= 1.02, "{syncs} syncs a commit at batch 100");
}
