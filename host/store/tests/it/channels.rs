//! Channels that come, change and go while the store is open.

use levada_core::{Store, TakeError, inspect::Inspect};
use levada_store::{ChannelError, ChannelKind, StoreParams};
use levada_telemetry::Registry;

use crate::place::{
    at_most, channel, check_audit, drain, info, is_pending, lease, numbered, open, open_in, put,
    put_of, queued, spec,
};

#[tokio::test]
async fn an_added_channel_is_as_good_as_one_that_was_always_there() {
    let place = open(vec![spec("a", ChannelKind::Durable)]);
    for kind in [ChannelKind::Durable, ChannelKind::Memory] {
        place.store.set_channel(&spec(kind.as_str(), kind)).unwrap();
        put(&place.store, kind.as_str(), numbered(0..3)).await;
        assert_eq!(drain(&place.store, kind.as_str()).await, [0, 1, 2]);
    }
    put(&place.store, "durable", numbered(3..5)).await;
    place.store.close();
    let names = ["a", "durable"].map(|name| spec(name, ChannelKind::Durable));
    let store = open_in(place.dir.path(), names.into());
    assert_eq!(drain(&store, "durable").await, [3, 4]);
    check_audit(&store);
}

#[tokio::test]
async fn a_channel_with_events_is_not_removed() {
    let place = open(vec![
        spec("a", ChannelKind::Durable),
        spec("m", ChannelKind::Memory),
    ]);
    for name in ["a", "m"] {
        put(&place.store, name, numbered(0..3)).await;
        let refused = place.store.remove_channel(&channel(name)).unwrap_err();
        assert!(
            matches!(refused, ChannelError::Holds { events: 3, .. }),
            "{refused}"
        );
        assert_eq!(drain(&place.store, name).await, [0, 1, 2]);
        place.store.remove_channel(&channel(name)).unwrap();
        assert!(
            place
                .store
                .channels()
                .iter()
                .all(|info| info.name.as_str() != name)
        );
        let gone = place
            .store
            .lease(&channel(name), at_most(1))
            .await
            .unwrap_err();
        assert!(matches!(gone, TakeError::NoChannel { .. }), "{gone}");
        let refused = place
            .store
            .commit(put_of(vec![(name, numbered(0..1))]))
            .await;
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn a_channel_that_comes_back_goes_on_where_it_ended() {
    let place = open(vec![
        spec("a", ChannelKind::Durable),
        spec("b", ChannelKind::Durable),
    ]);
    put(&place.store, "a", numbered(0..3)).await;
    put(&place.store, "b", numbered(0..5)).await;
    drain(&place.store, "a").await;
    drain(&place.store, "b").await;
    // In the same process, and in one that never knew of it.
    place.store.remove_channel(&channel("a")).unwrap();
    place
        .store
        .set_channel(&spec("a", ChannelKind::Durable))
        .unwrap();
    put(&place.store, "a", numbered(3..4)).await;
    let again = lease(&place.store, "a", 1).await;
    assert_eq!(again.positions.first(), Some(4));
    drop(again);
    drain(&place.store, "a").await;
    place.store.close();
    let store = open_in(place.dir.path(), vec![spec("a", ChannelKind::Durable)]);
    store.set_channel(&spec("b", ChannelKind::Durable)).unwrap();
    put(&store, "b", numbered(5..6)).await;
    let again = lease(&store, "b", 1).await;
    assert_eq!(again.positions.first(), Some(6));
    drop(again);
    drain(&store, "b").await;
    check_audit(&store);
}

#[tokio::test]
async fn a_channel_that_grows_lets_in_who_waits() {
    let room = numbered([0]).bytes() as u64;
    let mut small = spec("a", ChannelKind::Durable);
    small.capacity_bytes = room;
    let place = open(vec![small.clone()]);
    put(&place.store, "a", numbered(0..1)).await;
    let mut waiting = Box::pin(place.store.commit(put_of(vec![("a", numbered(1..2))])));
    assert!(is_pending(&mut waiting).await);
    small.capacity_bytes = 2 * room;
    place.store.set_channel(&small).unwrap();
    waiting.await.unwrap();
    assert_eq!(info(&place.store, "a").capacity_bytes, 2 * room);
    // Smaller than what it holds: nothing is lost, and nothing more comes in.
    small.capacity_bytes = room;
    place.store.set_channel(&small).unwrap();
    assert_eq!(queued(&place.store, "a"), 2);
    let other = spec("a", ChannelKind::Memory);
    let refused = place.store.set_channel(&other).unwrap_err();
    assert!(matches!(refused, ChannelError::Type { .. }), "{refused}");
    assert_eq!(drain(&place.store, "a").await, [0, 1]);
    check_audit(&place.store);
}

#[tokio::test]
async fn the_gauges_of_a_channel_are_its_own() {
    // They were zipped with a list in another order: names out of order took each other's numbers.
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let channels = vec![
        spec("z", ChannelKind::Durable),
        spec("a", ChannelKind::Memory),
    ];
    let params = StoreParams {
        registry: registry.clone(),
        ..StoreParams::new(dir.path(), channels)
    };
    let store = levada_store::open(params).unwrap();
    put(&store, "z", numbered(0..3)).await;
    let shows = |line: &str| registry.render().lines().any(|shown| shown == line);
    assert!(
        shows("levada_channel_events{part=\"channels.z\"} 3"),
        "{}",
        registry.render()
    );
    assert!(shows("levada_channel_events{part=\"channels.a\"} 0"));
    drain(&store, "z").await;
    store.remove_channel(&channel("z")).unwrap();
    assert!(shows("levada_channel_events{part=\"channels.z\"} 0"));
}
