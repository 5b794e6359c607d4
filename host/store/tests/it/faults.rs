//! A disk that fails, and dead letters without room.

use std::sync::Arc;

use levada_core::{
    Commit, Counter, DeadLetter, Outcomes, PutError, Store, TakeError, inspect::Inspect,
};
use levada_store::{ChannelKind, DeadLetterSpec, OnDeadLettersFull, StoreParams, Stores};
use tokio::time::Instant;

use crate::{
    broken::{Broken, Call, Fault, How},
    place::{
        at_most, channel, check_audit, drain, lease, numbered, part, put, put_of, settlement, spec,
    },
};

#[tokio::test]
async fn a_broken_disk_fails_loudly_and_memory_channels_run_on() {
    let error = How::Error(std::io::ErrorKind::Other);
    for (call, how) in [
        (Call::Sync, error),
        (Call::Write, error),
        (Call::Write, How::Panic),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Broken::default();
        let channels = vec![
            spec("c", ChannelKind::Durable),
            spec("m", ChannelKind::Memory),
        ];
        let store = levada_store::open(disk.params(dir.path(), channels)).unwrap();
        put(&store, "c", numbered(0..5)).await;
        let held = lease(&store, "c", 2).await;

        disk.break_it(Fault {
            call: Some(call),
            after: 0,
            once: false,
            how,
        });
        let refused = store.commit(put_of(vec![("c", numbered(5..9))])).await;
        assert!(
            matches!(refused, Err(PutError::Store { .. })),
            "{refused:?}"
        );
        let again = store.commit(put_of(vec![("c", numbered(5..9))])).await;
        assert!(matches!(again, Err(PutError::Store { .. })), "{again:?}");
        let taken = store.lease(&channel("c"), at_most(1)).await;
        assert!(matches!(taken, Err(TakeError::Store { .. })), "{taken:?}");
        let settled = store.settle(held, settlement(Outcomes::Done)).await;
        assert!(
            matches!(settled, Err(TakeError::Store { .. })),
            "{settled:?}"
        );
        assert!(
            store.store().unwrap().state.contains("broken"),
            "{:?}",
            store.store()
        );
        assert_eq!(store.channels()[0].events, 5);

        store
            .commit(put_of(vec![("m", numbered(0..3))]))
            .await
            .unwrap();
        let taken = lease(&store, "m", 3).await;
        let lazy = levada_core::Settlement {
            durable: false,
            ..settlement(Outcomes::Done)
        };
        store.settle(taken, lazy).await.unwrap();
        assert!(store.close().unclean.is_some());
    }
}

fn letter(reason: &str) -> DeadLetter {
    DeadLetter {
        event: numbered([1]).event_bytes(0).unwrap(),
        origin: None,
        part: part("handlers.h"),
        flow: part("sources.test"),
        reason: reason.into(),
        limit: Some("output".into()),
        backtrace: None,
        handler: None,
        recording: None,
        attempts: 2,
        at_ms: 7,
    }
}

fn with_letter(reason: &str) -> Commit {
    let mut commit = put_of(vec![("c", numbered([0]))]);
    commit.effects.dead_letters.push(letter(reason));
    commit.deadline = Some(Instant::now());
    commit
}

fn small(dir: &std::path::Path, on_full: OnDeadLettersFull) -> Arc<Stores> {
    let params = StoreParams::new(dir, vec![spec("c", ChannelKind::Durable)]);
    let dead_letters = DeadLetterSpec {
        capacity_bytes: 250,
        on_full,
    };
    levada_store::open(StoreParams {
        dead_letters,
        ..params
    })
    .unwrap()
}

fn reasons(store: &Stores) -> Vec<String> {
    store
        .dead_letters(None, 100)
        .unwrap()
        .into_iter()
        .map(|letter| letter.reason)
        .collect()
}

#[tokio::test]
async fn full_dead_letters_hold_up_what_would_add_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), OnDeadLettersFull::Block);
    store.commit(with_letter("first")).await.unwrap();
    store.commit(with_letter("second")).await.unwrap();
    assert_eq!(
        store.commit(with_letter("third")).await,
        Err(PutError::Deadline)
    );
    // Puts without letters go on.
    put(&store, "c", numbered([1])).await;
    assert_eq!(reasons(&store), ["first", "second"]);
    store.close();
    let store = small(dir.path(), OnDeadLettersFull::Block);
    assert_eq!(
        store.commit(with_letter("third")).await,
        Err(PutError::Deadline)
    );
    assert_eq!(store.store().unwrap().dead_letters, 2);
}

#[tokio::test]
async fn the_oldest_dead_letters_go_when_that_is_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), OnDeadLettersFull::DropOldest);
    for reason in ["first", "second", "third", "fourth"] {
        store.commit(with_letter(reason)).await.unwrap();
    }
    assert_eq!(reasons(&store), ["third", "fourth"]);
    let counts = store.counts().unwrap();
    let dropped = counts
        .iter()
        .find(|count| count.counter == Counter::Dropped)
        .unwrap();
    assert_eq!(
        (dropped.part.clone(), dropped.amount),
        (part("agent.dead-letters"), 2)
    );
    store.close();
    let store = small(dir.path(), OnDeadLettersFull::DropOldest);
    let info = store.store().unwrap();
    assert_eq!(info.dead_letters, 2);
    assert!(info.dead_letter_bytes <= 250);
    assert_eq!(store.counts().unwrap(), counts);
    assert_eq!(drain(&store, "c").await.len(), 4);
    check_audit(&store);
}
