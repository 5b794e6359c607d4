//! Channels that are divided by a key.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use levada_core::{
    Batch, BatchBuilder, Incarnation, Lease, OriginId, Origins, Outcomes, Store, Want, store::Lanes,
};
use levada_store::{ChannelKind, ChannelSpec, LaneSpec, Stores};
use tokio::time::Instant;

use crate::place::{
    at_most, channel, check_audit, crashed_copy, is_pending, numbers, open, open_in, put, queued,
    settle, spec,
};

/// Keys of the events; a number's key is its rest.
pub(crate) const KEYS: u64 = 13;

pub(crate) fn divided(kind: ChannelKind, count: u32) -> ChannelSpec {
    let key = "device".to_owned();
    ChannelSpec {
        lanes: Some(LaneSpec { count, key }),
        ..spec("c", kind)
    }
}

fn key_of(number: u64) -> String {
    format!("device-{}", number % KEYS)
}

/// The lane of a number, as the format has it.
pub(crate) fn lane_of(number: u64, count: u32) -> u32 {
    crc32c::crc32c(key_of(number).as_bytes()) % count
}

/// Events with a key each.
pub(crate) fn keyed(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let mut builder = BatchBuilder::default();
    for number in numbers {
        let body = format!("event-{number:08}");
        builder.push([("device", key_of(number))], body.as_bytes());
    }
    builder.finish()
}

fn idle(events: usize) -> Want {
    Want {
        lanes: Lanes::Idle,
        ..at_most(events)
    }
}

async fn take(store: &Stores, want: Want) -> Lease {
    store.lease(&channel("c"), want).await.unwrap()
}

/// Everything that is queued, as it leaves: the lane and the number of each event.
async fn leave(store: &Stores) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    while queued(store, "c") > 0 {
        let lease = take(store, at_most(10)).await;
        let lane = lease.lane;
        all.extend(numbers(&lease.batch).into_iter().map(|n| (lane, n)));
        settle(store, lease, Outcomes::Done).await;
    }
    all
}

/// Fails unless the events of every key left in order.
fn check_order(left: &[(u32, u64)]) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, number) in left {
        let before = last.insert(number % KEYS, *number);
        assert!(before.is_none_or(|before| before < *number), "{number}");
    }
}

macro_rules! every_kind {
    ($($name:ident),* $(,)?) => {
        mod durable {
            $(#[tokio::test(start_paused = true)] async fn $name() {
                super::$name(super::ChannelKind::Durable).await;
            })*
        }
        mod memory {
            $(#[tokio::test(start_paused = true)] async fn $name() {
                super::$name(super::ChannelKind::Memory).await;
            })*
        }
    };
}

every_kind!(
    each_key_stays_in_its_lane_and_in_order,
    a_lane_in_somebodys_hands_is_not_idle,
    no_lane_waits_for_another,
    waits_for_more_run_side_by_side,
    children_go_where_their_parent_goes,
    the_lanes_share_the_room_of_the_channel,
);

async fn each_key_stays_in_its_lane_and_in_order(kind: ChannelKind) {
    let place = open(vec![divided(kind, 4)]);
    assert_eq!(place.store.lanes(&channel("c")), 4);
    for n in 0..30 {
        put(&place.store, "c", keyed(n * 20..n * 20 + 20)).await;
    }
    // What has no key shares a lane.
    put(&place.store, "c", crate::place::numbered(600..610)).await;
    let mut positions: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut left = Vec::new();
    while queued(&place.store, "c") > 0 {
        let lease = take(&place.store, at_most(17)).await;
        let here = positions.entry(lease.lane).or_default();
        here.extend(lease.positions.iter());
        left.extend(numbers(&lease.batch).into_iter().map(|n| (lease.lane, n)));
        settle(&place.store, lease, Outcomes::Done).await;
    }
    assert_eq!(left.len(), 610);
    let lane = |n: u64| if n < 600 { lane_of(n, 4) } else { 0 };
    assert!(left.iter().all(|(is, number)| *is == lane(*number)));
    left.retain(|(_, number)| *number < 600);
    check_order(&left);
    // Each lane counts for itself, without a gap.
    assert_eq!(positions.len(), 4);
    for (lane, positions) in positions {
        let expected: Vec<_> = (1..=positions.len() as u64).collect();
        assert_eq!(positions, expected, "{lane}");
    }
    check_audit(&place.store);
}

async fn a_lane_in_somebodys_hands_is_not_idle(kind: ChannelKind) {
    let place = open(vec![divided(kind, 4)]);
    put(&place.store, "c", keyed(0..100)).await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(take(&place.store, idle(5)).await);
    }
    let lanes: BTreeSet<_> = leases.iter().map(|lease| lease.lane).collect();
    assert_eq!(lanes.len(), 4);
    let name = channel("c");
    let mut fifth = place.store.lease(&name, idle(5));
    assert!(is_pending(&mut fifth).await);
    // Whoever does not ask for that gets more of a lane.
    let more = take(&place.store, at_most(5)).await;
    drop(more);
    assert!(is_pending(&mut fifth).await);
    let second = leases.remove(1);
    let (lane, last) = (second.lane, second.positions.last());
    settle(&place.store, second, Outcomes::Done).await;
    let next = fifth.await.unwrap();
    assert_eq!(
        (next.lane, next.positions.first()),
        (lane, last.map(|n| n + 1))
    );
    // One that comes back comes first.
    let (lane, first) = (leases[0].lane, leases[0].positions.clone());
    drop(leases.remove(0));
    let again = take(&place.store, idle(5)).await;
    assert_eq!((again.lane, again.positions.clone()), (lane, first));
    drop((next, again, leases));
    assert_eq!(leave(&place.store).await.len(), 95);
    check_audit(&place.store);
}

async fn no_lane_waits_for_another(kind: ChannelKind) {
    let place = open(vec![divided(kind, 4)]);
    let busy = (0..KEYS).find(|n| lane_of(*n, 4) == 0).unwrap();
    let quiet = (0..KEYS).find(|n| lane_of(*n, 4) == 1).unwrap();
    put(&place.store, "c", keyed((0..1000).map(|n| n * KEYS + busy))).await;
    put(&place.store, "c", keyed([quiet])).await;
    let lanes = [
        take(&place.store, at_most(5)).await,
        take(&place.store, at_most(5)).await,
    ];
    assert_eq!(lanes.map(|lease| lease.lane), [0, 1]);
}

async fn waits_for_more_run_side_by_side(kind: ChannelKind) {
    let place = open(vec![divided(kind, 64)]);
    put(&place.store, "c", keyed(0..KEYS)).await;
    let want = Want {
        wait: Duration::from_secs(1),
        ..idle(1000)
    };
    let began = Instant::now();
    let mut leases = Vec::new();
    let mut events = 0;
    while events < KEYS {
        let lease = take(&place.store, want).await;
        events += lease.batch.len() as u64;
        leases.push(lease);
    }
    assert!(leases.len() > 5, "{} lanes", leases.len());
    assert_eq!(began.elapsed().as_secs(), 1);
}

async fn children_go_where_their_parent_goes(kind: ChannelKind) {
    let place = open(vec![divided(kind, 4)]);
    // A thousand events of three children each, with a key of its own each.
    let id = |n: u64| OriginId {
        incarnation: Incarnation([9; 16]),
        sequence: n / 3,
        child: u32::try_from(n % 3).unwrap(),
    };
    let batch = keyed(0..3000).with_origins(Origins::from_ids((0..3000).map(id)));
    put(&place.store, "c", batch).await;
    let mut seen = 0;
    while queued(&place.store, "c") > 0 {
        let lease = take(&place.store, at_most(10)).await;
        let numbers = numbers(&lease.batch);
        for (family, positions) in numbers
            .chunks(3)
            .zip(lease.positions.iter().collect::<Vec<_>>().chunks(3))
        {
            let first = family[0];
            assert_eq!(family, [first, first + 1, first + 2]);
            assert_eq!(first % 3, 0);
            assert_eq!(lane_of(first, 4), lease.lane);
            // A memory channel knows no parents once events lie in it.
            assert!(positions.iter().all(|n| *n == positions[0]));
        }
        seen += numbers.len();
        settle(&place.store, lease, Outcomes::Done).await;
    }
    assert_eq!(seen, 3000);
}

async fn the_lanes_share_the_room_of_the_channel(kind: ChannelKind) {
    let place = open(vec![ChannelSpec {
        capacity_events: Some(10),
        ..divided(kind, 4)
    }]);
    put(&place.store, "c", keyed(0..10)).await;
    let mut eleventh = Box::pin(put(&place.store, "c", keyed([10])));
    assert!(is_pending(&mut eleventh).await);
    let lease = take(&place.store, at_most(1)).await;
    settle(&place.store, lease, Outcomes::Done).await;
    eleventh.await;
    assert_eq!(leave(&place.store).await.len(), 10);
    check_audit(&place.store);
}

/// The chain at every position of a lane that is known.
fn chains(store: &Stores, lane: u32, upto: u64) -> Vec<(u64, u64)> {
    let chain = |at| Some((at, store.chain_at(&channel("c"), lane, at).unwrap()?));
    (1..=upto).filter_map(chain).collect()
}

#[tokio::test]
async fn every_lane_has_a_chain_and_borders_of_its_own() {
    let durable = || vec![divided(ChannelKind::Durable, 4)];
    let place = open(durable());
    for n in 0..50 {
        put(&place.store, "c", keyed(n * 20..n * 20 + 20)).await;
    }
    for _ in 0..40 {
        let lease = take(&place.store, at_most(7)).await;
        settle(&place.store, lease, Outcomes::Done).await;
    }
    let of = |store: &Stores| -> Vec<_> {
        let lane = |lane| {
            let known = store.lane(&channel("c"), lane).unwrap();
            let borders = store.borders(&channel("c"), lane).unwrap();
            assert!(!borders.is_empty());
            for border in &borders {
                let chain = store.chain_at(&channel("c"), lane, border.position);
                assert_eq!(chain.unwrap(), Some(border.chain));
            }
            let holds = |at: u64| store.holds(&channel("c"), lane, at..at + 1).unwrap();
            assert!(known.oldest > 1 && holds(known.oldest) && !holds(known.oldest - 1));
            (known, borders, chains(store, lane, 400))
        };
        (0..4).map(lane).collect()
    };
    let before = of(&place.store);
    let distinct: BTreeSet<_> = before
        .iter()
        .map(|(_, borders, _)| borders[0].chain)
        .collect();
    assert_eq!(distinct.len(), 4);
    assert!(place.store.lane(&channel("c"), 4).is_err());
    let crashed = crashed_copy(place.dir.path());
    assert_eq!(place.store.close().unclean, None);
    drop(place.store);
    for dir in [place.dir.path(), crashed.path()] {
        let again = open_in(dir, durable());
        assert_eq!(of(&again), before);
    }
}

/// What was stored under another division stays where it is, leaves from there, and no position is
/// given twice.
#[tokio::test]
async fn a_channel_that_is_divided_anew_gives_everything_it_holds() {
    let mut place = open(vec![divided(ChannelKind::Durable, 4)]);
    let mut given: BTreeSet<(u32, u64)> = BTreeSet::new();
    let (mut next, mut left) = (0, Vec::new());
    for count in [4, 1, 3, 4, 2, 64, 4] {
        assert_eq!(place.store.close().unclean, None);
        drop(place.store);
        place.store = open_in(place.dir.path(), vec![divided(ChannelKind::Durable, count)]);
        put(&place.store, "c", keyed(next..next + 100)).await;
        next += 100;
        // Half of it leaves before the next division.
        for _ in 0..8 {
            let lease = take(&place.store, at_most(10)).await;
            for position in lease.positions.iter() {
                assert!(
                    given.insert((lease.lane, position)),
                    "{} {position}",
                    lease.lane
                );
            }
            left.extend(numbers(&lease.batch).into_iter().map(|n| (lease.lane, n)));
            settle(&place.store, lease, Outcomes::Done).await;
        }
        check_audit(&place.store);
    }
    left.extend(leave(&place.store).await);
    let numbers: BTreeSet<_> = left.iter().map(|(_, number)| *number).collect();
    assert_eq!((left.len(), numbers.len()), (700, 700));
    // From here on the order of every key holds again.
    put(&place.store, "c", keyed(700..900)).await;
    let left = leave(&place.store).await;
    check_order(&left);
    assert!(
        left.iter()
            .all(|(lane, number)| *lane == lane_of(*number, 4))
    );
    check_audit(&place.store);
}

#[tokio::test]
async fn a_channel_is_divided_while_it_is_open() {
    for kind in [ChannelKind::Durable, ChannelKind::Memory] {
        let place = open(vec![spec("c", kind)]);
        put(&place.store, "c", keyed(0..100)).await;
        place.store.set_channel(&divided(kind, 3)).unwrap();
        put(&place.store, "c", keyed(100..200)).await;
        place.store.set_channel(&divided(kind, 2)).unwrap();
        put(&place.store, "c", keyed(200..300)).await;
        place.store.set_channel(&spec("c", kind)).unwrap();
        assert_eq!(place.store.lanes(&channel("c")), 1);
        put(&place.store, "c", keyed(300..400)).await;
        let mut left = leave(&place.store).await;
        left.sort_by_key(|(_, number)| *number);
        let lane = |n: u64| match n / 100 {
            1 => lane_of(n, 3),
            2 => lane_of(n, 2),
            _ => 0,
        };
        let expected: Vec<_> = (0..400).map(|n| (lane(n), n)).collect();
        assert_eq!(left, expected);
        check_audit(&place.store);
    }
}

#[tokio::test]
async fn salvage_finds_what_every_lane_holds() {
    let place = open(vec![divided(ChannelKind::Durable, 4)]);
    put(&place.store, "c", keyed(0..500)).await;
    let mut gone = BTreeSet::new();
    for _ in 0..6 {
        let lease = take(&place.store, at_most(20)).await;
        gone.extend(numbers(&lease.batch));
        settle(&place.store, lease, Outcomes::Done).await;
    }
    assert_eq!(place.store.close().unclean, None);
    drop(place.store);
    let mut found = BTreeSet::new();
    let report = levada_store::salvage(&place.dir.path().join("store.redb"), |salvaged| {
        let body = String::from_utf8_lossy(salvaged.event.body()).into_owned();
        found.insert(body[6..].parse::<u64>().unwrap());
        Ok::<_, std::convert::Infallible>(())
    });
    let report = report.unwrap().unwrap();
    assert_eq!(report.events.get("c"), Some(&(500 - gone.len() as u64)));
    assert_eq!(found, (0..500).filter(|n| !gone.contains(n)).collect());
}
