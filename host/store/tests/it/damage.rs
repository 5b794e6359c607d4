//! Files that are damaged: what takes over, what is kept, and what can still be read.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use levada_core::{
    Counter, DeadLetter, MarkWrite, Name, Outcomes, PutError, StateChange, States, Store,
    inspect::Inspect,
    state::{StateValue, Ticket},
};
use levada_store::{
    ChannelKind, OnCorruption, OpenError, SalvageReport, StoreParams, Stores, salvage,
};
use redb::{Database, TableDefinition};

use crate::place::{
    channel, check_audit, crashed_copy, drain, lease, numbered, open, open_in, part, put, put_of,
    queued, settle, spec,
};

fn one() -> Vec<levada_store::ChannelSpec> {
    vec![
        spec("c", ChannelKind::Durable),
        spec("m", ChannelKind::Memory),
    ]
}

fn letter() -> DeadLetter {
    DeadLetter {
        event: numbered([1]).event_bytes(0).unwrap(),
        origin: None,
        part: part("handlers.h"),
        flow: part("sources.test"),
        reason: "bad".into(),
        limit: None,
        backtrace: None,
        handler: None,
        recording: None,
        attempts: 1,
        at_ms: 7,
    }
}

/// A handler's first write.
fn kept() -> StateChange {
    let (ticket, _) = Ticket::new();
    let value = StateValue {
        bytes: "7".into(),
        expires_ms: None,
    };
    StateChange {
        handler: Name::new("h").unwrap(),
        from: 0,
        writes: [("count".to_owned(), Some(value))].into(),
        ticket,
    }
}

/// What the handler has of it.
fn has_kept(store: &Stores) -> bool {
    let saved = store.state(&Name::new("h").unwrap()).unwrap();
    saved
        .values
        .get("count")
        .is_some_and(|value| value.bytes == "7")
}

/// A store with a backlog, a mark, a handler's state, a dead letter and something delivered.
async fn filled(dir: &Path) -> Arc<Stores> {
    let store = open_in(dir, one());
    for n in 0..200 {
        let mut commit = put_of(vec![("c", numbered(n * 100..n * 100 + 100))]);
        commit.marks.push(MarkWrite::set("line", n.to_string()));
        if n == 5 {
            commit.effects.dead_letters.push(letter());
        }
        if n == 7 {
            commit.effects.states.push(kept());
        }
        store.commit(commit).await.unwrap();
    }
    let taken = lease(&store, "c", 300).await;
    settle(&store, taken, Outcomes::Done).await;
    store
}

/// Overwrites pages of a file, but for its header, with something else.
fn wreck(path: &Path, every: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in (2..pages).filter(|page| page % every == 0) {
        file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
    }
}

fn aside(dir: &Path, n: u32) -> PathBuf {
    dir.join(format!("store.redb.corrupt-{n}"))
}

fn quarantined(store: &Stores) -> u64 {
    let counts = store.counts().unwrap();
    let of_it = counts
        .iter()
        .filter(|count| count.counter == Counter::Quarantined);
    of_it.map(|count| count.amount).sum()
}

/// Every event of a file: channel to numbers.
fn salvaged(path: &Path) -> (BTreeMap<String, Vec<u64>>, SalvageReport) {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let report = salvage(path, |found| {
        let text = std::str::from_utf8(&found.event.body()[6..]).unwrap();
        let numbers = all.entry(found.channel.to_owned()).or_default();
        numbers.push(text.parse().unwrap());
        Ok::<(), Infallible>(())
    });
    let report = report.unwrap().unwrap();
    (all, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_set_aside_at_the_start_and_a_fresh_one_takes_over() {
    let place = open(vec![]);
    let other = tempfile::tempdir().unwrap();
    let store = filled(other.path()).await;
    let copy = crashed_copy(other.path());
    let before = store.store().unwrap().incarnation;
    drop((place, store));
    let path = copy.path().join("store.redb");
    wreck(&path, 7);
    let readable = salvaged(&path).0;
    let store = open_in(copy.path(), one());
    let info = store.store().unwrap();
    assert_eq!(
        info.set_aside,
        [aside(copy.path(), 1).display().to_string()]
    );
    assert_ne!(info.incarnation, before);
    // Nothing of what can be read of it was changed.
    assert!(readable["c"].len() > 5_000);
    assert!(salvaged(&aside(copy.path(), 1)).0 == readable);
    assert_eq!(queued(&store, "c"), 0);
    check_audit(&store);
    put(&store, "c", numbered(0..10)).await;
    assert_eq!(drain(&store, "c").await, (0..10).collect::<Vec<_>>());
    check_audit(&store);
    store.close();
    // And again: the first is not overwritten.
    fs::write(&path, b"nothing that redb knows").unwrap();
    let store = open_in(copy.path(), one());
    assert!(aside(copy.path(), 2).exists());
    assert!(salvaged(&aside(copy.path(), 1)).0 == readable);
    check_audit(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_met_at_work_keeps_what_memory_knows() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let before = store.store().unwrap().incarnation;
    let held = lease(&store, "c", 10).await;
    put(&store, "m", numbered(0..3)).await;
    wreck(&dir.path().join("store.redb"), 1);
    // Sinks read, sources write, until one of them meets it.
    let mut next = 20_000;
    while store.store().unwrap().set_aside.is_empty() {
        let read = store
            .lease(&channel("c"), crate::place::at_most(20_000))
            .await;
        drop(read);
        let events = numbered(next..next + 1);
        let answer = store.commit(put_of(vec![("c", events)])).await;
        assert!(
            matches!(answer, Ok(()) | Err(PutError::Store { .. })),
            "{answer:?}"
        );
        next += 1;
    }
    let info = store.store().unwrap();
    assert_eq!(info.state, "ok");
    assert_ne!(info.incarnation, before);
    check_audit(&store);
    // A sink that had something in hand may end it; it is counted with the damaged file.
    settle(&store, held, Outcomes::Done).await;
    check_audit(&store);
    let marks = store.marks(&part("sources.test"));
    assert_eq!(marks.get("line").map(|value| &value[..]), Some(&b"199"[..]));
    assert!(has_kept(&store));
    assert!(quarantined(&store) > 0);
    put(&store, "c", numbered(0..10)).await;
    let seen = drain(&store, "c").await;
    assert_eq!(seen[seen.len() - 10..], (0..10).collect::<Vec<_>>());
    assert_eq!(lease(&store, "m", 3).await.batch.len(), 3);
    store.close();
    let store = open_in(dir.path(), one());
    let marks = store.marks(&part("sources.test"));
    assert_eq!(marks.get("line").map(|value| &value[..]), Some(&b"199"[..]));
    assert!(has_kept(&store));
    check_audit(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_stays_where_it_is_if_that_is_wanted() {
    let other = tempfile::tempdir().unwrap();
    let store = filled(other.path()).await;
    let copy = crashed_copy(other.path());
    drop(store);
    let path = copy.path().join("store.redb");
    wreck(&path, 7);
    let readable = salvaged(&path).0;
    let params = StoreParams {
        on_corruption: OnCorruption::Halt,
        ..StoreParams::new(copy.path(), one())
    };
    let error = levada_store::open(params).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"), "{error}");
    assert!(salvaged(&path).0 == readable);
    assert!(!aside(copy.path(), 1).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_another_program_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let foreign = Database::create(&path).unwrap();
    let txn = foreign.begin_write().unwrap();
    let table: TableDefinition<'_, u64, u64> = TableDefinition::new("theirs");
    txn.open_table(table).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(foreign);
    let error = levada_store::open(StoreParams::new(dir.path(), one())).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    let refused = salvage(&path, |_| Ok::<(), Infallible>(())).unwrap_err();
    assert!(refused.to_string().contains("another program"), "{refused}");
    assert!(!aside(dir.path(), 1).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_file_is_salvaged_to_what_was_queued() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let first = lease(&store, "c", 50).await;
    settle(&store, first, Outcomes::Done).await;
    let copy = crashed_copy(dir.path());
    let (found, report) = salvaged(&copy.path().join("store.redb"));
    assert_eq!(found["c"], (350..20_000).collect::<Vec<_>>());
    assert_eq!(report.without_index, None);
    assert_eq!((report.damaged_events, report.damaged_rows), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrecked_file_gives_what_still_makes_sense_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let copy = crashed_copy(dir.path());
    drop(store);
    let path = copy.path().join("store.redb");
    wreck(&path, 7);
    let (found, report) = salvaged(&path);
    assert!(report.without_index.is_some());
    let mut numbers = found["c"].clone();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), found["c"].len(), "told twice");
    assert!(numbers.iter().all(|number| *number < 20_000));
    // One page of seven is gone, and a row lies on a few.
    assert!(numbers.len() > 5_000, "only {}", numbers.len());
}

#[test]
fn what_is_no_store_is_not_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    for (bytes, why) in [
        (&b""[..], "only 0 bytes"),
        (b"redb\x1A\x0A\xA9\x0D\x0A", "only 9 bytes"),
        (&[7; 9000], "no redb file"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = salvage(&path, |_| Ok::<(), Infallible>(())).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
