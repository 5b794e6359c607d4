//! A store as a released version left it: every table of it is read.
//!
//! `BLESS=1` writes the file anew; that is for a new format under a new name, never for one that
//! was released.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use levada_core::{
    Counter, DeadLetter, MarkWrite, Name, Outcome, Outcomes, StateChange, States, Store,
    inspect::Inspect,
    state::{SavedState, StateValue, Ticket},
};
use levada_store::{ChannelKind, ChannelSpec, Offline, OpenError, StoreParams, Stores};
use redb::{Database, TableDefinition};
use tempfile::TempDir;

use crate::place::{
    channel, check_audit, drain, lease, numbered, open, open_in, part, put, put_of, queued, settle,
    spec,
};

/// The version that is written now; the older ones are kept.
const NOW: &str = "1.1";

fn golden(version: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/store");
    folder.join(format!("{version}.redb.gz"))
}

fn channels() -> Vec<ChannelSpec> {
    vec![
        spec("c", ChannelKind::Durable),
        spec("d", ChannelKind::Durable),
    ]
}

fn letter() -> DeadLetter {
    DeadLetter {
        event: numbered([7]).event_bytes(0).unwrap(),
        origin: numbered([7]).origins().get(0),
        part: part("handlers.h"),
        flow: part("sources.test"),
        reason: "no such field".into(),
        limit: Some("output".into()),
        backtrace: Some("at line 1".into()),
        handler: Some("sha256:00".into()),
        recording: None,
        attempts: 2,
        at_ms: 7,
    }
}

fn kept() -> StateChange {
    let value = |text: &'static str, expires_ms| {
        let bytes = text.into();
        Some(StateValue { bytes, expires_ms })
    };
    StateChange {
        handler: Name::new("h").unwrap(),
        from: 0,
        writes: [
            ("count".to_owned(), value("3", None)),
            ("seen".to_owned(), value("", Some(7))),
        ]
        .into(),
        ticket: Ticket::new().0,
    }
}

/// Something in every table: rows, bitmaps, marks, heads, borders in full groups, letters,
/// counters, and one event in the quarantine.
async fn bless() {
    let place = open(channels());
    for n in 0..40 {
        put(&place.store, "d", numbered([n])).await;
        let taken = lease(&place.store, "d", 1).await;
        settle(&place.store, taken, Outcomes::Done).await;
    }
    let mut commit = put_of(vec![("c", numbered(0..20)), ("d", numbered(100..103))]);
    commit.marks.push(MarkWrite::set("line", &b"42"[..]));
    commit.effects.dead_letters.push(letter());
    commit.effects.states.push(kept());
    place.store.commit(commit).await.unwrap();
    put(&place.store, "c", numbered(20..40)).await;
    place.store.close();
    let path = place.dir.path().join("store.redb");
    let mut bytes = fs::read(&path).unwrap();
    let damaged = b"event-00000030";
    let found = bytes.windows(damaged.len()).position(|w| w == damaged);
    bytes[found.unwrap()] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = open_in(place.dir.path(), channels());
    let taken = lease(&store, "c", 40).await;
    let each = (0..39).map(|n| match n {
        0..5 => Outcome::Done,
        _ => Outcome::Retry,
    });
    settle(&store, taken, Outcomes::Each(each.collect())).await;
    store.close();
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(&fs::read(&path).unwrap()).unwrap();
    fs::write(golden(NOW), out.finish().unwrap()).unwrap();
}

fn unpacked(version: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let packed = fs::File::open(golden(version)).unwrap();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    fs::write(dir.path().join("store.redb"), bytes).unwrap();
    dir
}

#[tokio::test]
async fn a_store_of_format_1_0_is_read_whole() {
    let store = read_whole(unpacked("1.0")).await;
    assert_eq!(store.state(&kept().handler).unwrap(), SavedState::default());
}

#[tokio::test]
async fn a_store_of_format_1_1_is_read_whole() {
    if std::env::var_os("BLESS").is_some() {
        bless().await;
    }
    let store = read_whole(unpacked(NOW)).await;
    let values = kept().writes.into_iter();
    let values = values.map(|(key, value)| (key, value.unwrap()));
    let saved = SavedState {
        version: 0,
        values: values.collect(),
    };
    assert_eq!(store.state(&kept().handler).unwrap(), saved);
}

/// Looks at everything that [`bless`] has written.
async fn read_whole(dir: TempDir) -> Arc<Stores> {
    let offline = Offline::open(dir.path()).unwrap();
    assert!(offline.audit().iter().all(levada_store::Identity::holds));
    drop(offline);
    let store = open_in(dir.path(), channels());
    check_audit(&store);
    assert_eq!((queued(&store, "c"), queued(&store, "d")), (34, 3));
    let marks = store.marks(&part("sources.test"));
    assert_eq!(marks.get("line").map(|value| &value[..]), Some(&b"42"[..]));
    let letters = store.dead_letters(None, 10).unwrap();
    let found = &letters[0];
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (found.reason.as_str(), found.attempts),
        ("no such field", 2)
    );
    assert_eq!(found.body, "event-00000007");
    let counts = store.counts().unwrap();
    let counted = |counter| -> u64 {
        let same = counts.iter().filter(|count| count.counter == counter);
        same.map(|count| count.amount).sum()
    };
    assert_eq!(counted(Counter::Quarantined), 1);
    assert_eq!(counted(Counter::Delivered), 45);
    assert_eq!(store.borders(&channel("d"), 0).unwrap().len(), 40);
    let first = lease(&store, "d", 1).await;
    assert_eq!(first.positions.first(), Some(41));
    settle(&store, first, Outcomes::Retry).await;
    let expected: Vec<u64> = (5..40).filter(|n| *n != 30).collect();
    assert_eq!(drain(&store, "c").await, expected);
    assert_eq!(drain(&store, "d").await, [100, 101, 102]);
    check_audit(&store);
    store
}

#[test]
fn a_format_that_needs_a_later_reader_is_refused_by_name() {
    let dir = unpacked(NOW);
    let path = dir.path().join("store.redb");
    let db = Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let meta: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
        let mut value: Vec<u8> = [3_u16, 1, 2].iter().flat_map(|n| n.to_le_bytes()).collect();
        let crc = crc32c::crc32c_append(crc32c::crc32c(b"format"), &value);
        value.extend_from_slice(&crc.to_le_bytes());
        let mut table = txn.open_table(meta).unwrap();
        table.insert("format", &value[..]).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    let error = levada_store::open(StoreParams::new(dir.path(), channels())).unwrap_err();
    assert!(matches!(error, OpenError::Format { .. }), "{error}");
    assert!(error.to_string().contains("3.1"), "{error}");
    // It is no damage: the file stays where it is.
    assert!(path.exists());
}
