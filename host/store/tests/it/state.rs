//! Handlers' state: committed with the batch, read again after every kind of end.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_core::{
    Commit, MarkWrite, Name, PutError, StateChange, States, Store,
    marks::Expect,
    state::{Fate, Progress, StateValue, Ticket},
};
use levada_store::{ChannelKind, ChannelSpec, Stores};
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use crate::place::{
    check_audit, crashed_copy, is_pending, numbered, open, open_in, put_of, queued, spec,
};

fn channels() -> Vec<ChannelSpec> {
    vec![
        spec("c", ChannelKind::Durable),
        spec("m", ChannelKind::Memory),
    ]
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn value(bytes: &str) -> StateValue {
    StateValue {
        bytes: Bytes::copy_from_slice(bytes.as_bytes()),
        expires_ms: None,
    }
}

/// A put of one event with changes of one handler's state, made from a version.
fn change(to: &str, handler: &str, from: u64, writes: &[(&str, Option<&str>)]) -> (Commit, Fate) {
    let mut commit = put_of(vec![(to, numbered([1]))]);
    let (ticket, fate) = Ticket::new();
    let write = |(key, text): &(&str, Option<&str>)| ((*key).to_owned(), text.map(value));
    commit.effects.states.push(StateChange {
        handler: name(handler),
        from,
        writes: writes.iter().map(write).collect(),
        ticket,
    });
    (commit, fate)
}

/// A mark that is not what it is expected to be.
fn unmet() -> MarkWrite {
    MarkWrite {
        expect: Expect::Exactly(Some(Bytes::from_static(b"1"))),
        ..MarkWrite::set("at", &b"2"[..])
    }
}

fn state(store: &Stores, handler: &str) -> BTreeMap<String, String> {
    let saved = store.state(&name(handler)).unwrap();
    let text = |value: StateValue| String::from_utf8(value.bytes.to_vec()).unwrap();
    let entry = |(key, value)| (key, text(value));
    saved.values.into_iter().map(entry).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

#[tokio::test]
async fn state_is_there_with_the_batch_and_after_a_crash() {
    let place = open(channels());
    let (commit, fate) = change("c", "h", 0, &[("a", Some("1")), ("b", Some("2"))]);
    place.store.commit(commit).await.unwrap();
    assert_eq!(fate.progress(), Progress::Committed);
    let (commit, _) = change("c", "h", 1, &[("a", None), ("c", Some("3"))]);
    place.store.commit(commit).await.unwrap();
    // A name that begins like another is another handler.
    let (commit, _) = change("c", "h.2", 0, &[("a", Some("other"))]);
    place.store.commit(commit).await.unwrap();
    let expected = pairs([("b", "2"), ("c", "3")]);
    assert_eq!(state(&place.store, "h"), expected);
    let copy = crashed_copy(place.dir.path());
    let again = open_in(copy.path(), channels());
    assert_eq!(state(&again, "h"), expected);
    assert_eq!(state(&again, "h.2"), pairs([("a", "other")]));
    assert!(state(&again, "none").is_empty());
    assert_eq!(again.state(&name("h")).unwrap().version, 0);
    assert_eq!(queued(&again, "c"), 3);
    check_audit(&again);
}

#[tokio::test]
async fn state_is_durable_beside_a_memory_channel_too() {
    let place = open(channels());
    let (commit, _) = change("m", "h", 0, &[("a", Some("1"))]);
    place.store.commit(commit).await.unwrap();
    assert_eq!(queued(&place.store, "m"), 1);
    let copy = crashed_copy(place.dir.path());
    let again = open_in(copy.path(), channels());
    assert_eq!(state(&again, "h"), pairs([("a", "1")]));
    assert_eq!(queued(&again, "m"), 0);
}

#[tokio::test]
async fn what_is_refused_changes_no_state() {
    let place = open(channels());
    let (mut commit, fate) = change("c", "h", 0, &[("a", Some("1"))]);
    commit.marks.push(unmet());
    let refused = place.store.commit(commit).await;
    assert_eq!(refused, Err(PutError::Conflict { key: "at".into() }));
    assert_eq!(fate.progress(), Progress::Void);
    assert!(state(&place.store, "h").is_empty());
    check_audit(&place.store);
}

#[tokio::test]
async fn what_was_made_from_another_version_is_refused() {
    let place = open(channels());
    let store = &place.store;
    let (commit, _) = change("c", "h", 0, &[("a", Some("1"))]);
    store.commit(commit).await.unwrap();
    let stale = || {
        Err(PutError::Stale {
            handler: "h".into(),
        })
    };
    let (commit, _) = change("c", "h", 0, &[("a", Some("2"))]);
    assert_eq!(store.commit(commit).await, stale());
    // Also if nothing was written: it was handled with what is not so.
    let (commit, _) = change("c", "h", 0, &[]);
    assert_eq!(store.commit(commit).await, stale());
    let (commit, _) = change("c", "h", 1, &[]);
    store.commit(commit).await.unwrap();
    assert_eq!(store.state(&name("h")).unwrap().version, 1);
    assert_eq!(queued(store, "c"), 2);
    check_audit(store);
}

#[tokio::test]
async fn a_commit_that_is_refused_takes_those_built_on_it_along() {
    let place = open(channels());
    let store = &place.store;
    // All wait in one inbox: none of them is polled before the others are there.
    let (first, fate) = change("c", "h", 0, &[("a", Some("1"))]);
    let (mut bad, _) = change("c", "h", 1, &[("b", Some("2"))]);
    bad.marks.push(unmet());
    let (last, _) = change("c", "h", 2, &[("c", Some("3"))]);
    let mut first = Box::pin(store.commit(first));
    let mut bad = Box::pin(store.commit(bad));
    let mut last = Box::pin(store.commit(last));
    let _pending = [is_pending(&mut first).await, is_pending(&mut bad).await];
    assert_eq!(
        last.as_mut().await,
        Err(PutError::Stale {
            handler: "h".into()
        })
    );
    assert_eq!(first.await, Ok(()));
    assert_eq!(fate.progress(), Progress::Committed);
    assert!(bad.await.is_err());
    assert_eq!(state(store, "h"), pairs([("a", "1")]));
    check_audit(store);
}

#[tokio::test]
async fn an_entry_that_is_damaged_counts_as_none() {
    let place = open(channels());
    let writes = [("a", Some("sound-value")), ("b", Some("rotten-value"))];
    let (commit, _) = change("c", "h", 0, &writes);
    place.store.commit(commit).await.unwrap();
    place.store.close();
    let path = place.dir.path().join("store.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let rotten = b"rotten-value";
    let found = bytes.windows(rotten.len()).enumerate();
    let places: Vec<_> = found
        .filter(|(_, w)| w == rotten)
        .map(|(at, _)| at)
        .collect();
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let store = open_in(place.dir.path(), channels());
    assert_eq!(state(&store, "h"), pairs([("a", "sound-value")]));
    check_audit(&store);
}

#[derive(Debug, Clone)]
enum Op {
    Write(u8, Vec<(u8, Option<u8>)>),
    Stale(u8),
    Reopen,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let write = (0..6_u8, proptest::option::of(any::<u8>()));
    prop_oneof![
        8 => (0..3_u8, proptest::collection::vec(write, 1..5)).prop_map(|(h, w)| Op::Write(h, w)),
        1 => (0..3_u8).prop_map(Op::Stale),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 24,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..Default::default()
    })]

    #[test]
    fn the_state_of_each_handler_is_a_map(ops in proptest::collection::vec(op(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut model: BTreeMap<u8, BTreeMap<String, String>> = BTreeMap::new();
        let mut versions: BTreeMap<u8, u64> = BTreeMap::new();
        let mut place = open(channels());
        for op in ops {
            match op {
                Op::Write(handler, writes) => {
                    let texts: BTreeMap<_, _> = writes.iter()
                        .map(|(key, value)| (format!("k{key}"), value.map(|value| format!("v{value}"))))
                        .collect();
                    let writes: Vec<_> = texts.iter()
                        .map(|(key, value)| (key.as_str(), value.as_deref()))
                        .collect();
                    let version = versions.entry(handler).or_default();
                    let (commit, _) = change("c", &format!("h{handler}"), *version, &writes);
                    runtime.block_on(place.store.commit(commit)).unwrap();
                    *version += 1;
                    let kept = model.entry(handler).or_default();
                    for (key, value) in texts {
                        match value {
                            Some(value) => drop(kept.insert(key, value)),
                            None => drop(kept.remove(&key)),
                        }
                    }
                }
                Op::Stale(handler) => {
                    let version = versions.get(&handler).copied().unwrap_or_default() + 1;
                    let (commit, _) = change("c", &format!("h{handler}"), version, &[("k0", Some("no"))]);
                    assert!(runtime.block_on(place.store.commit(commit)).is_err());
                }
                Op::Reopen => {
                    place.store.close();
                    place.store = open_in(place.dir.path(), channels());
                    versions.clear();
                }
                Op::Crash => {
                    place.dir = crashed_copy(place.dir.path());
                    place.store = open_in(place.dir.path(), channels());
                    versions.clear();
                }
            }
            for handler in 0..3 {
                let expected = model.get(&handler).cloned().unwrap_or_default();
                prop_assert_eq!(state(&place.store, &format!("h{handler}")), expected);
            }
            check_audit(&place.store);
        }
    }
}
