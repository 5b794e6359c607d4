//! A lane as a hop sees it: where it begins, and its chain (delivery contract D4).

use levada_core::{
    Batch, Incarnation, OriginId, Origins, Outcome, Outcomes, Store, TakeError, hop::Lane,
    origin::OriginRun,
};
use levada_store::{ChannelKind, Stores};

use crate::place::{channel, crashed_copy, lease, numbered, open, open_in, put, settle, spec};

fn one() -> Vec<levada_store::ChannelSpec> {
    vec![spec("c", ChannelKind::Durable)]
}

fn lane(store: &Stores) -> Lane {
    store.lane(&channel("c"), 0).unwrap()
}

fn chain(store: &Stores, position: u64) -> Option<u64> {
    store.chain_at(&channel("c"), 0, position).unwrap()
}

fn chains(store: &Stores, positions: std::ops::RangeInclusive<u64>) -> Vec<Option<u64>> {
    positions.map(|position| chain(store, position)).collect()
}

/// Three events that are children of one, and two that stand alone.
fn family() -> Batch {
    let of = |sequence, count, children| OriginRun {
        first: OriginId {
            incarnation: Incarnation([7; 16]),
            sequence,
            child: u32::from(children),
        },
        count,
        children,
    };
    numbered(0..5).with_origins(Origins::from_runs([of(1, 3, true), of(2, 2, false)]))
}

#[tokio::test]
async fn the_chain_is_known_at_every_position_held_and_where_rows_ended() {
    let place = open(one());
    for n in 0..10 {
        put(&place.store, "c", numbered(n * 5..n * 5 + 5)).await;
    }
    let all = chains(&place.store, 1..=50);
    assert!(all.iter().all(Option::is_some));
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), 50);
    assert_eq!(
        (chain(&place.store, 0), chain(&place.store, 51)),
        (None, None)
    );

    // Two rows go, and a part of the third.
    let taken = lease(&place.store, "c", 12).await;
    assert_eq!(lane(&place.store).oldest, 1, "leased is not gone");
    settle(&place.store, taken, Outcomes::Done).await;
    assert_eq!(lane(&place.store).oldest, 13);
    place.store.close();
    let again = open_in(place.dir.path(), one());
    assert_eq!(lane(&again).oldest, 13);
    for (at, before) in (1..=50).zip(all) {
        let expected = if at > 10 || at % 5 == 0 { before } else { None };
        assert_eq!(chain(&again, at), expected, "{at}");
    }
    let rest = lease(&again, "c", 100).await;
    settle(&again, rest, Outcomes::Done).await;
    assert_eq!(
        lane(&again).oldest,
        51,
        "the next position when nothing is held"
    );
}

#[tokio::test]
async fn children_share_a_position_and_its_chain() {
    let place = open(one());
    put(&place.store, "c", family()).await;
    let before = chains(&place.store, 1..=3);
    assert!(before.iter().all(Option::is_some));
    assert_eq!(chain(&place.store, 4), None);
    // A child that went alone leaves the position held, and its chain as it was.
    let taken = lease(&place.store, "c", 5).await;
    assert_eq!(taken.positions.iter().collect::<Vec<_>>(), [1, 1, 1, 2, 3]);
    let some = [
        Outcome::Done,
        Outcome::Retry,
        Outcome::Done,
        Outcome::Done,
        Outcome::Retry,
    ];
    settle(&place.store, taken, Outcomes::Each(some.into())).await;
    assert_eq!(lane(&place.store).oldest, 1);
    assert_eq!(chains(&place.store, 1..=3), before);
    // All children gone, and the first of those that stand alone: the last one is the oldest.
    let taken = lease(&place.store, "c", 5).await;
    let some = vec![Outcome::Done, Outcome::Retry];
    settle(&place.store, taken, Outcomes::Each(some)).await;
    let check = |store: &Stores| {
        assert_eq!(lane(store).oldest, 3);
        let held = |positions| store.holds(&channel("c"), 0, positions).unwrap();
        assert!(!held(1..3) && held(1..4) && held(3..4) && !held(4..9));
    };
    check(&place.store);
    place.store.close();
    check(&open_in(place.dir.path(), one()));
}

#[tokio::test]
async fn what_is_leased_is_held_and_what_is_settled_is_not() {
    for kind in [ChannelKind::Durable, ChannelKind::Memory] {
        let place = open(vec![spec("c", kind)]);
        for n in 0..4 {
            put(&place.store, "c", numbered(n * 5..n * 5 + 5)).await;
        }
        let held = |positions| place.store.holds(&channel("c"), 0, positions).unwrap();
        let first = lease(&place.store, "c", 3).await;
        let second = lease(&place.store, "c", 9).await;
        settle(&place.store, second, Outcomes::Done).await;
        assert!(held(1..2) && held(3..4) && held(2..9) && !held(4..13) && held(12..14));
        settle(&place.store, first, Outcomes::Done).await;
        assert!(!held(1..13) && held(13..14) && held(20..21) && !held(21..30));
    }
}

#[tokio::test]
async fn another_life_of_a_store_has_another_chain() {
    let place = open(one());
    put(&place.store, "c", numbered(0..5)).await;
    let backup = crashed_copy(place.dir.path());
    put(&place.store, "c", numbered(5..10)).await;
    // The very same events, put again after the backup was restored.
    let restored = open_in(backup.path(), one());
    put(&restored, "c", numbered(5..10)).await;
    assert_eq!(lane(&restored).incarnation, lane(&place.store).incarnation);
    assert_eq!(chains(&restored, 1..=5), chains(&place.store, 1..=5));
    for position in 6..=10 {
        assert_ne!(chain(&restored, position), chain(&place.store, position));
    }
}

#[tokio::test]
async fn a_memory_channel_lives_under_a_new_incarnation_each_time() {
    let memory = || vec![spec("c", ChannelKind::Memory)];
    let place = open(memory());
    put(&place.store, "c", numbered(0..5)).await;
    let first = lane(&place.store);
    assert_eq!(first.oldest, 1);
    assert_eq!(chains(&place.store, 5..=6), [Some(0), None]);
    place.store.close();
    let again = open_in(place.dir.path(), memory());
    assert_ne!(lane(&again).incarnation, first.incarnation);
}

#[tokio::test]
async fn lanes_that_are_not_there_are_named() {
    let place = open(one());
    for (name, lane) in [("c", 1), ("d", 0)] {
        let missing = place.store.lane(&channel(name), lane).unwrap_err();
        assert!(matches!(missing, TakeError::NoChannel { .. }), "{missing}");
    }
}
