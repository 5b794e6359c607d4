//! Stores in temporary folders, and events that can be told apart.

use std::{
    future::{Future, poll_fn},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use levada_core::{
    Batch, BatchBuilder, ChannelName, Commit, Effects, Lease, Outcomes, PartId, Settlement, Store,
    Want,
    store::{ChannelPut, Need},
};
use levada_store::{ChannelKind, ChannelSpec, OnFull, StoreParams, Stores};
use tempfile::TempDir;

/// A store in a folder of its own.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<Stores>,
}

pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

pub(crate) fn part(text: &str) -> PartId {
    PartId::parse(text).unwrap()
}

/// A roomy channel that blocks when full.
pub(crate) fn spec(name: &str, kind: ChannelKind) -> ChannelSpec {
    ChannelSpec {
        name: channel(name),
        kind,
        capacity_bytes: 64 << 20,
        capacity_events: None,
        on_full: OnFull::Block,
        lanes: None,
    }
}

/// A fresh store with these channels.
pub(crate) fn open(channels: Vec<ChannelSpec>) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(dir.path(), channels);
    Place { dir, store }
}

/// Opens a store with a small memory, so that most rows are read back from the file.
pub(crate) fn open_in(dir: &Path, channels: Vec<ChannelSpec>) -> Arc<Stores> {
    let params = StoreParams {
        cache_bytes: 1 << 20,
        ..StoreParams::new(dir, channels)
    };
    levada_store::open(params).unwrap()
}

/// Events whose bodies are `event-<number>` and that carry a header.
pub(crate) fn numbered(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let mut builder = BatchBuilder::default();
    for number in numbers {
        builder.push([("kind", "test")], format!("event-{number:08}").as_bytes());
    }
    builder.finish()
}

/// The numbers of such events.
pub(crate) fn numbers(batch: &Batch) -> Vec<u64> {
    let number = |body: &[u8]| std::str::from_utf8(&body[6..]).unwrap().parse().unwrap();
    batch.iter().map(|event| number(event.body())).collect()
}

/// A put of these batches, without marks or effects.
pub(crate) fn put_of(puts: Vec<(&str, Batch)>) -> Commit {
    let put = |(name, batch)| ChannelPut {
        channel: channel(name),
        batch,
        need: Need::Required,
    };
    Commit {
        part: part("sources.test"),
        puts: puts.into_iter().map(put).collect(),
        marks: Vec::new(),
        effects: Effects::default(),
        deadline: None,
        received_ms: 1_000,
    }
}

pub(crate) async fn put(store: &Stores, name: &str, batch: Batch) {
    store.commit(put_of(vec![(name, batch)])).await.unwrap();
}

/// Up to so many events, without waiting for more.
pub(crate) fn at_most(events: usize) -> Want {
    Want {
        events,
        bytes: 1 << 30,
        wait: Duration::ZERO,
        ..Want::default()
    }
}

pub(crate) async fn lease(store: &Stores, name: &str, events: usize) -> Lease {
    store.lease(&channel(name), at_most(events)).await.unwrap()
}

pub(crate) fn settlement(outcomes: Outcomes) -> Settlement {
    Settlement {
        part: part("sinks.test"),
        outcomes,
        marks: Vec::new(),
        effects: Effects::default(),
        durable: true,
    }
}

pub(crate) async fn settle(store: &Stores, lease: Lease, outcomes: Outcomes) {
    store.settle(lease, settlement(outcomes)).await.unwrap();
}

/// Every number that is queued, taken and given back.
pub(crate) async fn drain(store: &Stores, name: &str) -> Vec<u64> {
    let mut all = Vec::new();
    while queued(store, name) > 0 {
        let lease = lease(store, name, 1000).await;
        all.extend(numbers(&lease.batch));
        settle(store, lease, Outcomes::Done).await;
    }
    all
}

/// How many events are queued or leased.
pub(crate) fn queued(store: &Stores, name: &str) -> u64 {
    info(store, name).events
}

pub(crate) fn info(store: &Stores, name: &str) -> levada_core::inspect::ChannelInfo {
    use levada_core::inspect::Inspect;
    store
        .channels()
        .into_iter()
        .find(|info| info.name.as_str() == name)
        .unwrap()
}

/// Fails unless every accounting identity of the channels holds.
pub(crate) fn check_audit(store: &Stores) {
    let broken: Vec<_> = store
        .audit()
        .into_iter()
        .filter(|identity| !identity.holds())
        .collect();
    assert!(broken.is_empty(), "{broken:?}");
}

/// Copies the store's file as a crash would leave it, into a folder of its own.
pub(crate) fn crashed_copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join("store.redb"), copy.path().join("store.redb")).unwrap();
    copy
}

/// Polls once; whether there is no answer yet.
pub(crate) async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    poll_once(future).await.is_none()
}

/// Polls once; the answer if there is one.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let answer = |poll| match poll {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    };
    poll_fn(|cx| Poll::Ready(answer(Pin::new(&mut *future).poll(cx)))).await
}
