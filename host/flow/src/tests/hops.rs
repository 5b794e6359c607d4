//! What a sink learns of the lane that it forwards.

use std::sync::Arc;

use levada_core::{Chance, Hop, Incarnation, MarkWrite, Peer, RunContext, Stopper, Store};

use super::{StandingClock, channel, fake_store::FakeStore, part};
use crate::hop::SinkHop;

fn hop(store: &FakeStore, sink: &str, seed: u64) -> SinkHop {
    SinkHop {
        store: Arc::new(store.clone()),
        channel: channel("main"),
        alone: true,
        lanes: 1,
        context: RunContext {
            part: part(sink),
            stop: Stopper::new().1,
            clock: Arc::new(StandingClock),
            chance: Chance::seeded(seed),
            peer: Peer::default(),
        },
    }
}

#[tokio::test]
async fn a_new_incarnation_is_committed_and_is_this_sinks_alone() {
    let store = FakeStore::durable(&[("main", 10)]);
    store.fill("main", 0..3);
    let (up, other) = (hop(&store, "sinks.up", 1), hop(&store, "sinks.other", 2));
    let of_store = store.lane(&channel("main"), 0).unwrap().incarnation;
    assert_eq!(up.lane(0).unwrap().incarnation, of_store);

    let own = up.new_incarnation().await.unwrap();
    assert_ne!(own, of_store);
    // The sink that is built after a restart finds it.
    assert_eq!(hop(&store, "sinks.up", 9).lane(0).unwrap().incarnation, own);
    assert_eq!(up.lane(0).unwrap().oldest, 1);
    assert_eq!(other.lane(0).unwrap().incarnation, of_store);

    let again = up.new_incarnation().await.unwrap();
    assert!(again != own && up.lane(0).unwrap().incarnation == again);
}

#[tokio::test]
async fn an_incarnation_of_another_life_of_the_store_counts_for_nothing() {
    let store = FakeStore::durable(&[("main", 10)]);
    let up = hop(&store, "sinks.up", 1);
    up.new_incarnation().await.unwrap();
    let (key, both) = {
        let marks = store.marks(&part("sinks.up"));
        let (key, value) = marks.iter().next().unwrap();
        (key.to_owned(), value.to_vec())
    };
    for value in [
        [&[9; 16], &both[16..]].concat(),
        both[..31].to_vec(),
        Vec::new(),
    ] {
        store.set_mark("sinks.up", MarkWrite::set(key.clone(), value));
        assert_eq!(up.lane(0).unwrap().incarnation, Incarnation([1; 16]));
    }
}

#[tokio::test]
async fn a_new_incarnation_that_was_not_committed_is_none() {
    let store = FakeStore::durable(&[("main", 10)]);
    store.state().failing_commits = 1;
    let up = hop(&store, "sinks.up", 1);
    up.new_incarnation().await.unwrap_err();
    assert_eq!(up.lane(0).unwrap().incarnation, Incarnation([1; 16]));
}
