//! What is in the file, what a crash leaves of it, and what damage does to it.

use std::{fs, path::Path};

use levada_core::{Counter, MarkWrite, Outcomes, Store, inspect::Inspect};
use levada_store::{ChannelKind, Offline, OnCorruption, OpenError, StoreParams};

use crate::place::{
    channel, check_audit, crashed_copy, drain, lease, numbered, numbers, open, open_in, part, put,
    put_of, queued, settle, settlement, spec,
};

fn one() -> Vec<levada_store::ChannelSpec> {
    vec![spec("c", ChannelKind::Durable)]
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_crash() {
    let place = open(one());
    for n in 0..20 {
        let mut commit = put_of(vec![("c", numbered(n * 100..n * 100 + 100))]);
        commit.marks.push(MarkWrite::set("line", n.to_string()));
        place.store.commit(commit).await.unwrap();
    }
    let first = lease(&place.store, "c", 150).await;
    settle(&place.store, first, Outcomes::Done).await;
    let _held = lease(&place.store, "c", 10).await;
    let copy = crashed_copy(place.dir.path());
    let again = open_in(copy.path(), one());
    assert_eq!(queued(&again, "c"), 1850);
    let marks = again.marks(&part("sources.test"));
    assert_eq!(marks.get("line").map(|value| &value[..]), Some(&b"19"[..]));
    check_audit(&again);
    assert_eq!(drain(&again, "c").await, (150..2000).collect::<Vec<_>>());
    check_audit(&again);
}

#[tokio::test]
async fn origins_are_given_once_and_survive() {
    let place = open(vec![
        spec("c", ChannelKind::Durable),
        spec("d", ChannelKind::Durable),
    ]);
    let events = numbered(0..1000);
    // The second channel gets every other event of the same buffer.
    let half = events.select((0..1000).step_by(2));
    place
        .store
        .commit(put_of(vec![("c", events), ("d", half)]))
        .await
        .unwrap();
    let all = lease(&place.store, "c", 1000).await;
    let some = lease(&place.store, "d", 1000).await;
    let ids: Vec<_> = all.batch.origins().iter().collect();
    assert_eq!(ids.len(), 1000);
    let halved: Vec<_> = some.batch.origins().iter().collect();
    assert_eq!(halved, ids.iter().copied().step_by(2).collect::<Vec<_>>());
    let copy = crashed_copy(place.dir.path());
    let again = open_in(
        copy.path(),
        vec![
            spec("c", ChannelKind::Durable),
            spec("d", ChannelKind::Durable),
        ],
    );
    let read = lease(&again, "c", 1000).await;
    assert_eq!(read.batch.origins().iter().collect::<Vec<_>>(), ids);
    // Another life draws other ids.
    put(&again, "d", numbered([1])).await;
    let fresh = lease(&again, "d", 1000).await;
    let new = fresh.batch.origins().iter().last().unwrap();
    assert_ne!(new.incarnation, ids[0].incarnation);
}

#[tokio::test]
async fn a_file_with_a_torn_end_opens() {
    let place = open(one());
    put(&place.store, "c", numbered(0..5000)).await;
    for more in [0, 1, 4095, 4096, 5000, 3 << 20] {
        let copy = crashed_copy(place.dir.path());
        let path = copy.path().join("store.redb");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() + more).unwrap();
        drop(file);
        let again = open_in(copy.path(), one());
        assert_eq!(queued(&again, "c"), 5000, "{more} more bytes");
        put(&again, "c", numbered(5000..6000)).await;
        assert_eq!(drain(&again, "c").await.len(), 6000);
        assert_eq!(again.close().unclean, None);
        assert_eq!(fs::metadata(&path).unwrap().len() % 4096, 0);
    }
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("store.redb.new"), vec![0; 1_052_672]).unwrap();
    let store = open_in(dir.path(), one());
    put(&store, "c", numbered([1])).await;
    assert!(!dir.path().join("store.redb.new").exists());
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    for bytes in [
        &b""[..],
        b"hello",
        &[0; 8192],
        b"redb\x1A\x0A\xA9\x0D\x0A and no more",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        fs::write(&path, bytes).unwrap();
        let params = StoreParams {
            on_corruption: OnCorruption::Halt,
            ..StoreParams::new(dir.path(), one())
        };
        let error = levada_store::open(params).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("store.redb"), "{error}");
        // Nothing of it was changed.
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_second_process_learns_who_holds_the_store() {
    let place = open(one());
    let error = levada_store::open(StoreParams::new(place.dir.path(), one())).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(
        text.contains(&place.dir.path().display().to_string()),
        "{text}"
    );
    place.store.close();
    levada_store::open(StoreParams::new(place.dir.path(), one())).unwrap();
}

#[tokio::test]
async fn a_damaged_event_is_set_aside_alone() {
    let place = open(one());
    put(&place.store, "c", numbered(0..500)).await;
    place.store.close();
    flip(&place.dir.path().join("store.redb"), b"event-00000123");
    let again = open_in(place.dir.path(), one());
    let taken = lease(&again, "c", 1000).await;
    let expected: Vec<_> = (0..500).filter(|n| *n != 123).collect();
    assert_eq!(numbers(&taken.batch), expected);
    let positions = taken.positions.len();
    assert_eq!(positions, 499);
    settle(&again, taken, Outcomes::Done).await;
    assert_eq!(quarantined(&again), 1);
    check_audit(&again);
    again.close();
    let again = open_in(place.dir.path(), one());
    assert_eq!((queued(&again, "c"), quarantined(&again)), (0, 1));
    check_audit(&again);
}

#[tokio::test]
async fn a_damaged_header_sets_its_row_aside() {
    let place = open(one());
    put(&place.store, "c", numbered(0..100)).await;
    put(&place.store, "c", numbered(100..200)).await;
    let taken = lease(&place.store, "c", 1).await;
    let first = taken.batch.origins().get(0).unwrap();
    settle(&place.store, taken, Outcomes::Done).await;
    place.store.close();
    // The incarnation of the origin ids lies in the header of both rows: flip the first.
    flip(&place.dir.path().join("store.redb"), &first.incarnation.0);
    let again = open_in(place.dir.path(), one());
    let left = drain(&again, "c").await;
    assert!(left == (100..200).collect::<Vec<_>>() || left == (1..100).collect::<Vec<_>>());
    assert_eq!(quarantined(&again) + left.len() as u64, 199);
    check_audit(&again);
}

#[tokio::test]
async fn the_offline_view_changes_nothing() {
    let place = open(one());
    put(&place.store, "c", numbered(0..10)).await;
    let first = lease(&place.store, "c", 3).await;
    settle(&place.store, first, Outcomes::Done).await;
    let error = Offline::open(place.dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let copy = crashed_copy(place.dir.path());
    let before = fs::read(copy.path().join("store.redb")).unwrap();
    let view = Offline::open(copy.path()).unwrap();
    let info = &view.channels()[0];
    assert_eq!((info.name.as_str(), info.events), ("c", 7));
    assert!(view.audit().iter().all(levada_store::Identity::holds));
    drop(view);
    assert_eq!(fs::read(copy.path().join("store.redb")).unwrap(), before);
}

#[tokio::test]
async fn a_channel_with_events_is_not_forgotten() {
    let place = open(one());
    put(&place.store, "c", numbered(0..10)).await;
    place.store.close();
    let others = vec![
        spec("c", ChannelKind::Memory),
        spec("d", ChannelKind::Durable),
    ];
    let error = levada_store::open(StoreParams::new(place.dir.path(), others)).unwrap_err();
    assert!(
        matches!(error, OpenError::Orphaned { events: 10, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn borders_are_kept_of_the_last_thousand_rows() {
    let place = open(one());
    let mut last = 0;
    for round in 0..24_u64 {
        for n in 0..50 {
            put(&place.store, "c", numbered([round * 50 + n])).await;
        }
        let all = lease(&place.store, "c", 50).await;
        last = all.positions.last().unwrap();
        settle(&place.store, all, Outcomes::Done).await;
    }
    let borders = place.store.borders(&channel("c"), 0).unwrap();
    assert!((1024..=1060).contains(&borders.len()), "{}", borders.len());
    assert_eq!(borders.last().unwrap().position, last);
    assert!(
        borders
            .windows(2)
            .all(|pair| pair[0].position + 1 == pair[1].position)
    );
    place.store.close();
    let again = open_in(place.dir.path(), one());
    assert_eq!(again.borders(&channel("c"), 0).unwrap(), borders);
    // Positions go on where they were.
    put(&again, "c", numbered([0])).await;
    let next = lease(&again, "c", 1).await;
    assert_eq!(next.positions.first(), Some(last + 1));
}

#[tokio::test]
async fn a_sinks_marks_and_a_lazy_settlement_survive_a_clean_close() {
    let place = open(one());
    put(&place.store, "c", numbered(0..10)).await;
    let taken = lease(&place.store, "c", 4).await;
    let mut ended = settlement(Outcomes::Done);
    ended.durable = false;
    ended.marks.push(MarkWrite::set("length", &b"42"[..]));
    place.store.settle(taken, ended).await.unwrap();
    place.store.close();
    let again = open_in(place.dir.path(), one());
    let marks = again.marks(&part("sinks.test"));
    assert_eq!(
        marks.get("length").map(|value| &value[..]),
        Some(&b"42"[..])
    );
    assert_eq!(drain(&again, "c").await, (4..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_events_are_rows_of_their_own() {
    let place = open(one());
    let mut builder = levada_core::BatchBuilder::default();
    let sizes = [10, 300_000, 20, 2 << 20, 130_000, 5];
    for (n, size) in sizes.into_iter().enumerate() {
        builder.push(
            [("n", n.to_string())],
            &vec![u8::try_from(n).unwrap(); size],
        );
    }
    let batch = builder.finish();
    put(&place.store, "c", batch.clone()).await;
    place.store.close();
    let again = open_in(place.dir.path(), one());
    let taken = lease(&again, "c", 100).await;
    assert_eq!(taken.batch, batch);
    settle(&again, taken, Outcomes::Done).await;
    check_audit(&again);
}

#[tokio::test]
async fn a_damaged_index_is_read_from_the_rows_again() {
    let place = open(one());
    for n in 0..3 {
        put(&place.store, "c", numbered(n * 10..n * 10 + 10)).await;
    }
    let borders_before = {
        let copy = crashed_copy(place.dir.path());
        let other = open_in(copy.path(), one());
        drain(&other, "c").await;
        other.borders(&channel("c"), 0).unwrap()
    };
    place.store.close();
    // The key of the second row's entry: `i`, channel 1, lane 0, position 11.
    let key = [
        b"i".as_slice(),
        &1_u32.to_be_bytes(),
        &0_u32.to_be_bytes(),
        &11_u64.to_be_bytes(),
    ];
    flip_all(&place.dir.path().join("store.redb"), &key.concat());
    let again = open_in(place.dir.path(), one());
    assert_eq!(queued(&again, "c"), 30);
    check_audit(&again);
    assert_eq!(drain(&again, "c").await, (0..30).collect::<Vec<_>>());
    let mut expected = borders_before;
    // The damaged entry is not found again to leave a border.
    expected.retain(|border| border.position != 20);
    assert_eq!(again.borders(&channel("c"), 0).unwrap(), expected);
    check_audit(&again);
}

/// Flips one bit wherever these bytes lie in a file.
fn flip_all(path: &Path, bytes: &[u8]) {
    let mut file = fs::read(path).unwrap();
    let found: Vec<_> = (0..file.len() - bytes.len())
        .filter(|at| file[*at..].starts_with(bytes))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        file[at + bytes.len() - 1] ^= 1;
    }
    fs::write(path, file).unwrap();
}

fn quarantined(store: &levada_store::Stores) -> u64 {
    let counts = store.counts().unwrap();
    let of_it = counts
        .iter()
        .filter(|count| count.counter == Counter::Quarantined);
    of_it.map(|count| count.amount).sum()
}

/// Flips one bit in the first place where these bytes lie in a file.
fn flip(path: &Path, bytes: &[u8]) {
    let mut file = fs::read(path).unwrap();
    let at = file
        .windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap();
    file[at + bytes.len() - 1] ^= 1;
    fs::write(path, file).unwrap();
}
