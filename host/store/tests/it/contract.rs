//! What every kind of channel promises.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_core::{
    Counter, DeadLetter, Effects, MarkWrite, Outcome, Outcomes, PutError, Store, TakeError, Want,
    marks::Expect, store::Need,
};
use levada_store::{ChannelKind, ChannelSpec, OnFull};
use tokio::time::Instant;

use crate::place::{
    Place, at_most, channel, check_audit, drain, info, is_pending, lease, numbered, numbers, open,
    part, put, put_of, queued, settle, settlement, spec,
};

macro_rules! every_kind {
    ($($name:ident),* $(,)?) => {
        mod durable {
            $(#[tokio::test] async fn $name() { super::$name(super::ChannelKind::Durable).await })*
        }
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::ChannelKind::Memory).await })*
        }
    };
}

every_kind!(
    gives_what_was_put_in_order,
    combines_and_splits_by_want,
    limits_a_lease_by_bytes,
    a_dropped_lease_comes_back_and_counts,
    retried_events_keep_their_place,
    a_full_channel_makes_a_put_wait,
    a_put_that_waits_past_its_deadline_stores_nothing,
    a_put_that_is_dropped_while_it_waits_holds_nothing,
    puts_are_let_in_in_the_order_they_came,
    a_rejecting_channel_refuses_at_once,
    what_never_fits_is_refused,
    events_are_limited_too,
    two_channels_take_both_or_none,
    an_optional_channel_never_holds_up_a_put,
    an_unexpected_mark_refuses_the_put,
    dead_letters_leave_the_channel_counted,
    a_lease_waits_for_events_and_for_more,
    unknown_channels_are_named,
    a_closed_store_refuses,
);

fn small(kind: ChannelKind, bytes: u64) -> ChannelSpec {
    ChannelSpec {
        capacity_bytes: bytes,
        ..spec("c", kind)
    }
}

/// A channel with room for four events.
fn four(kind: ChannelKind) -> Place {
    open(vec![small(kind, 4 * numbered([0]).bytes() as u64)])
}

async fn gives_what_was_put_in_order(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    put(&place.store, "c", numbered(0..3)).await;
    put(&place.store, "c", numbered(3..2000)).await;
    let lease = lease(&place.store, "c", 5000).await;
    assert_eq!(lease.batch, numbered(0..2000));
    assert_eq!(lease.received_ms, 1_000);
    assert_eq!(lease.attempts, 0);
    settle(&place.store, lease, Outcomes::Done).await;
    assert_eq!(queued(&place.store, "c"), 0);
    assert_eq!(info(&place.store, "c").bytes, 0);
    check_audit(&place.store);
}

async fn combines_and_splits_by_want(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    for n in 0..5 {
        put(&place.store, "c", numbered(n * 3..n * 3 + 3)).await;
    }
    let first = lease(&place.store, "c", 4).await;
    let second = lease(&place.store, "c", 7).await;
    let third = lease(&place.store, "c", 100).await;
    assert_eq!(numbers(&first.batch), (0..4).collect::<Vec<_>>());
    assert_eq!(numbers(&second.batch), (4..11).collect::<Vec<_>>());
    assert_eq!(numbers(&third.batch), (11..15).collect::<Vec<_>>());
    let positions = second.positions.len();
    assert_eq!(positions, 7);
    // Settled out of order, the rest is still in order.
    settle(&place.store, second, Outcomes::Done).await;
    drop(first);
    settle(&place.store, third, Outcomes::Retry).await;
    assert_eq!(drain(&place.store, "c").await, [0, 1, 2, 3, 11, 12, 13, 14]);
    check_audit(&place.store);
}

async fn limits_a_lease_by_bytes(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    put(&place.store, "c", numbered(0..100)).await;
    let each = numbered([0]).bytes();
    let want = |bytes| Want {
        events: 1000,
        bytes,
        wait: Duration::ZERO,
        ..Want::default()
    };
    let ten = place
        .store
        .lease(&channel("c"), want(each * 10 + each / 2))
        .await
        .unwrap();
    assert_eq!(numbers(&ten.batch), (0..10).collect::<Vec<_>>());
    // One event is given even if it is larger than wanted.
    let one = place.store.lease(&channel("c"), want(1)).await.unwrap();
    assert_eq!(numbers(&one.batch), [10]);
}

async fn a_dropped_lease_comes_back_and_counts(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    put(&place.store, "c", numbered(0..10)).await;
    for attempts in 0..3 {
        let lease = lease(&place.store, "c", 4).await;
        assert_eq!(
            (lease.attempts, numbers(&lease.batch)),
            (attempts, vec![0, 1, 2, 3])
        );
        assert_eq!(info(&place.store, "c").leased, 4);
    }
    assert_eq!(info(&place.store, "c").leased, 0);
    let _first = lease(&place.store, "c", 4).await;
    let untried = lease(&place.store, "c", 4).await;
    assert_eq!(untried.attempts, 0);
}

async fn retried_events_keep_their_place(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    put(&place.store, "c", numbered(0..6)).await;
    put(&place.store, "c", numbered(6..8)).await;
    let taken = lease(&place.store, "c", 7).await;
    use Outcome::{Discard, Done, Retry};
    // The last two are missing: they count as retry.
    let each = Outcomes::Each(vec![Done, Retry, Done, Retry, Discard]);
    settle(&place.store, taken, each).await;
    let again = lease(&place.store, "c", 100).await;
    assert_eq!(numbers(&again.batch), [1, 3, 5, 6, 7]);
    assert_eq!(again.attempts, 1);
    settle(&place.store, again, Outcomes::Done).await;
    check_audit(&place.store);
}

async fn a_full_channel_makes_a_put_wait(kind: ChannelKind) {
    let place = four(kind);
    put(&place.store, "c", numbered(0..4)).await;
    let mut waiting = place.store.commit(put_of(vec![("c", numbered(4..6))]));
    assert!(is_pending(&mut waiting).await);
    assert_eq!(info(&place.store, "c").waiting_puts, 1);
    let one = lease(&place.store, "c", 1).await;
    settle(&place.store, one, Outcomes::Done).await;
    assert!(is_pending(&mut waiting).await);
    let one = lease(&place.store, "c", 1).await;
    settle(&place.store, one, Outcomes::Done).await;
    waiting.await.unwrap();
    assert_eq!(drain(&place.store, "c").await, [2, 3, 4, 5]);
}

async fn a_put_that_waits_past_its_deadline_stores_nothing(kind: ChannelKind) {
    let place = four(kind);
    put(&place.store, "c", numbered(0..4)).await;
    let late = levada_core::Commit {
        deadline: Some(Instant::now()),
        ..put_of(vec![("c", numbered([9]))])
    };
    assert_eq!(place.store.commit(late).await, Err(PutError::Deadline));
    assert_eq!(drain(&place.store, "c").await, [0, 1, 2, 3]);
}

async fn a_put_that_is_dropped_while_it_waits_holds_nothing(kind: ChannelKind) {
    let place = four(kind);
    put(&place.store, "c", numbered(0..4)).await;
    let mut waiting = place.store.commit(put_of(vec![("c", numbered(4..8))]));
    assert!(is_pending(&mut waiting).await);
    drop(waiting);
    assert_eq!(info(&place.store, "c").waiting_puts, 0);
    assert_eq!(drain(&place.store, "c").await, [0, 1, 2, 3]);
    put(&place.store, "c", numbered(8..12)).await;
    assert_eq!(drain(&place.store, "c").await, [8, 9, 10, 11]);
}

async fn puts_are_let_in_in_the_order_they_came(kind: ChannelKind) {
    let place = four(kind);
    put(&place.store, "c", numbered(0..4)).await;
    let mut large = place.store.commit(put_of(vec![("c", numbered(4..8))]));
    let mut little = place.store.commit(put_of(vec![("c", numbered([8]))]));
    assert!(is_pending(&mut large).await);
    assert!(is_pending(&mut little).await);
    let two = lease(&place.store, "c", 2).await;
    settle(&place.store, two, Outcomes::Done).await;
    // There is room for the little one, but the large one came first.
    assert!(is_pending(&mut little).await);
    let two = lease(&place.store, "c", 2).await;
    settle(&place.store, two, Outcomes::Done).await;
    large.await.unwrap();
    assert!(is_pending(&mut little).await);
    let four = lease(&place.store, "c", 4).await;
    assert_eq!(numbers(&four.batch), [4, 5, 6, 7]);
    settle(&place.store, four, Outcomes::Done).await;
    little.await.unwrap();
}

async fn a_rejecting_channel_refuses_at_once(kind: ChannelKind) {
    let place = open(vec![ChannelSpec {
        on_full: OnFull::Reject,
        ..small(kind, 100)
    }]);
    put(&place.store, "c", numbered(0..3)).await;
    let refused = place
        .store
        .commit(put_of(vec![("c", numbered(3..6))]))
        .await;
    assert_eq!(
        refused,
        Err(PutError::Full {
            channel: "c".into()
        })
    );
    assert_eq!(drain(&place.store, "c").await, [0, 1, 2]);
}

async fn what_never_fits_is_refused(kind: ChannelKind) {
    let place = four(kind);
    let batch = numbered(0..5);
    let bytes = batch.bytes();
    let refused = place.store.commit(put_of(vec![("c", batch)])).await;
    assert_eq!(
        refused,
        Err(PutError::TooLarge {
            channel: "c".into(),
            bytes
        })
    );
}

async fn events_are_limited_too(kind: ChannelKind) {
    let limited = ChannelSpec {
        capacity_events: Some(2),
        on_full: OnFull::Reject,
        ..spec("c", kind)
    };
    let place = open(vec![limited]);
    put(&place.store, "c", numbered(0..2)).await;
    let refused = place.store.commit(put_of(vec![("c", numbered([2]))])).await;
    assert_eq!(
        refused,
        Err(PutError::Full {
            channel: "c".into()
        })
    );
}

async fn two_channels_take_both_or_none(kind: ChannelKind) {
    let full = ChannelSpec {
        name: channel("full"),
        on_full: OnFull::Reject,
        ..small(kind, 100)
    };
    let place = open(vec![
        spec("c", kind),
        spec("other", ChannelKind::Memory),
        full,
    ]);
    let both = numbered(0..3);
    let copies = vec![("c", both.clone()), ("other", both.clone()), ("full", both)];
    place.store.commit(put_of(copies)).await.unwrap();
    let again = numbered(3..6);
    let copies = vec![
        ("c", again.clone()),
        ("other", again.clone()),
        ("full", again),
    ];
    let refused = place.store.commit(put_of(copies)).await;
    assert_eq!(
        refused,
        Err(PutError::Full {
            channel: "full".into()
        })
    );
    for name in ["c", "other", "full"] {
        assert_eq!(drain(&place.store, name).await, [0, 1, 2]);
    }
    check_audit(&place.store);
}

async fn an_optional_channel_never_holds_up_a_put(kind: ChannelKind) {
    let place = open(vec![
        spec("c", ChannelKind::Durable),
        ChannelSpec {
            name: channel("side"),
            ..small(kind, 60)
        },
    ]);
    for n in 0..3 {
        let mut commit = put_of(vec![("c", numbered([n])), ("side", numbered([n]))]);
        commit.puts[1].need = Need::Optional;
        place.store.commit(commit).await.unwrap();
    }
    let dropped = count(&place, "channels.side", Counter::Dropped);
    assert_eq!(dropped + queued(&place.store, "side"), 3);
    assert!(dropped > 0);
    assert_eq!(drain(&place.store, "c").await, [0, 1, 2]);
    check_audit(&place.store);
}

async fn an_unexpected_mark_refuses_the_put(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    let mark = |expect: Option<&'static str>, value: &'static str| MarkWrite {
        key: "at".into(),
        value: Some(Bytes::from_static(value.as_bytes())),
        expect: Expect::Exactly(expect.map(|text| Bytes::from_static(text.as_bytes()))),
    };
    let with = |mark, n| {
        let mut commit = put_of(vec![("c", numbered([n]))]);
        commit.marks.push(mark);
        commit
    };
    place.store.commit(with(mark(None, "a"), 0)).await.unwrap();
    let refused = place.store.commit(with(mark(None, "b"), 1)).await;
    assert_eq!(refused, Err(PutError::Conflict { key: "at".into() }));
    place
        .store
        .commit(with(mark(Some("a"), "c"), 2))
        .await
        .unwrap();
    let marks = place.store.marks(&part("sources.test"));
    assert_eq!(marks.get("at"), Some(&Bytes::from_static(b"c")));
    assert_eq!(drain(&place.store, "c").await, [0, 2]);
    check_audit(&place.store);
}

async fn dead_letters_leave_the_channel_counted(kind: ChannelKind) {
    use levada_core::inspect::Inspect;
    let place = open(vec![spec("c", kind)]);
    put(&place.store, "c", numbered(0..3)).await;
    let taken = lease(&place.store, "c", 3).await;
    let letter = DeadLetter {
        event: taken.batch.event_bytes(1).unwrap(),
        origin: None,
        part: part("sinks.test"),
        flow: part("channels.c"),
        reason: "too hot".into(),
        limit: None,
        backtrace: None,
        handler: None,
        recording: Some("recordings/h/7.jsonl".into()),
        attempts: 1,
        at_ms: 5,
    };
    let effects = Effects {
        dead_letters: vec![letter],
        ..Effects::default()
    };
    let outcomes = Outcomes::Each(vec![Outcome::Done, Outcome::Dead, Outcome::Done]);
    let ended = levada_core::Settlement {
        effects,
        ..settlement(outcomes)
    };
    place.store.settle(taken, ended).await.unwrap();
    let letters = place.store.dead_letters(None, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].reason.as_str(), letters[0].body.as_str()),
        ("too hot", "event-00000001")
    );
    assert_eq!(
        letters[0].recording.as_deref(),
        Some("recordings/h/7.jsonl")
    );
    assert_eq!(letters[0].headers, [("kind".to_owned(), "test".to_owned())]);
    assert!(
        place
            .store
            .dead_letters(Some(letters[0].id), 10)
            .unwrap()
            .is_empty()
    );
    assert_eq!(count(&place, "channels.c", Counter::DeadLettered), 1);
    assert_eq!(count(&place, "channels.c", Counter::Delivered), 2);
    check_audit(&place.store);
}

async fn a_lease_waits_for_events_and_for_more(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    let long = Want {
        events: 4,
        bytes: 1 << 20,
        wait: Duration::from_secs(3600),
        ..Want::default()
    };
    let name = channel("c");
    let mut waiting = place.store.lease(&name, long);
    assert!(is_pending(&mut waiting).await);
    put(&place.store, "c", numbered(0..2)).await;
    assert!(is_pending(&mut waiting).await);
    put(&place.store, "c", numbered(2..4)).await;
    let taken = waiting.await.unwrap();
    assert_eq!(numbers(&taken.batch), [0, 1, 2, 3]);
    // A lease that is dropped while it waits has taken nothing.
    let mut waiting = place.store.lease(&name, long);
    assert!(is_pending(&mut waiting).await);
    drop(waiting);
    drop(taken);
    assert_eq!(drain(&place.store, "c").await, [0, 1, 2, 3]);
}

async fn unknown_channels_are_named(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    let missing = channel("none");
    let taken = place.store.lease(&missing, at_most(1)).await.err();
    assert_eq!(
        taken,
        Some(TakeError::NoChannel {
            channel: "none".into()
        })
    );
    let put = place
        .store
        .commit(put_of(vec![("none", numbered([0]))]))
        .await;
    assert!(matches!(put, Err(PutError::Store { reason }) if reason.contains("`none`")));
}

async fn a_closed_store_refuses(kind: ChannelKind) {
    let place = open(vec![spec("c", kind)]);
    put(&place.store, "c", numbered(0..2)).await;
    let held = lease(&place.store, "c", 1).await;
    let store = Arc::clone(&place.store);
    let closed = tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
    assert_eq!(closed.unclean, None);
    let lost = closed.lost.iter().map(|(_, events)| events).sum::<u64>();
    assert_eq!(lost, if kind == ChannelKind::Memory { 2 } else { 0 });
    let put = place.store.commit(put_of(vec![("c", numbered([2]))])).await;
    assert_eq!(put, Err(PutError::Stopping));
    let taken = place.store.lease(&channel("c"), at_most(1)).await;
    assert!(matches!(taken, Err(TakeError::Closed)));
    let settled = place.store.settle(held, settlement(Outcomes::Done)).await;
    assert_eq!(settled, Err(TakeError::Closed));
}

fn count(place: &Place, of: &str, counter: Counter) -> u64 {
    use levada_core::inspect::Inspect;
    let counts = place.store.counts().unwrap();
    let same = counts
        .iter()
        .filter(|count| count.part == part(of) && count.counter == counter);
    same.map(|count| count.amount).sum()
}
