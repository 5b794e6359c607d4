//! A disk that fills up: what is queued is drained, and puts go on when there is space.

use std::{fs, path::Path, process::Command, sync::Arc};

use levada_core::{Commit, MarkWrite, Outcomes, PutError, Store, inspect::Inspect};
use levada_store::{ChannelKind, ChannelSpec, OnFull, StoreParams, Stores};

use crate::place::{check_audit, numbered, numbers, part, put_of, queued, settle, spec};

const MIB: u64 = 1 << 20;

/// A file system of its own, gone when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this may not be made; that is said.
    #[expect(clippy::print_stderr, reason = "a test that does not run must say so")]
    fn new(size: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "levada-test"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                eprintln!("NOT RUN: a small file system cannot be mounted here: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(gone.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn channels(on_full: OnFull) -> Vec<ChannelSpec> {
    vec![ChannelSpec {
        capacity_bytes: 1 << 30,
        on_full,
        ..spec("c", ChannelKind::Durable)
    }]
}

fn open(dir: &Path, on_full: OnFull) -> Arc<Stores> {
    let params = StoreParams {
        cache_bytes: 256 << 10,
        ..StoreParams::new(dir, channels(on_full))
    };
    levada_store::open(params).unwrap()
}

fn put(first: u64, events: u64) -> Commit {
    put_of(vec![("c", numbered(first..first + events))])
}

/// Puts until the disk is full; how many events were taken.
async fn fill(store: &Stores, events: u64) -> u64 {
    let mut next = 0;
    loop {
        match store.commit(put(next, events)).await {
            Ok(()) => next += events,
            Err(PutError::Full { .. }) => return next,
            Err(other) => unreachable!("{other}"),
        }
    }
}

/// Takes and settles until nothing is left, one small lease after the other.
async fn drain(store: &Stores, events: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while queued(store, "c") > 0 {
        let lease = crate::place::lease(store, "c", events).await;
        seen.extend(numbers(&lease.batch));
        settle(store, lease, Outcomes::Done).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_drained_to_the_end() {
    for (events, taken, restart) in [(1000, 250, false), (1, 1, false), (20, 7, true)] {
        let Some(disk) = SmallDisk::new(8 * MIB) else {
            return;
        };
        let dir = disk.path().join("store");
        let mut store = open(&dir, OnFull::Reject);
        let acked = fill(&store, events).await;
        assert!(acked > 1000, "only {acked} events fitted");
        assert_eq!(queued(&store, "c"), acked);
        let state = store.store().unwrap().state;
        assert!(state.contains("the disk is full"), "{state}");
        // Somebody else takes what is left of it.
        let mut other = fs::File::create(disk.path().join("other")).unwrap();
        while std::io::Write::write_all(&mut other, &[7; 4096]).is_ok() {}
        if restart {
            store.close();
            drop(store);
            store = open(&dir, OnFull::Reject);
        }
        let seen = drain(&store, taken).await;
        assert_eq!(seen, (0..acked).collect::<Vec<_>>());
        check_audit(&store);
        // What was drained is room again, though the disk has none.
        store.commit(put(0, 10)).await.unwrap();
        store.close();
        drop(store);
        let store = open(&dir, OnFull::Reject);
        assert_eq!(queued(&store, "c"), 10);
        check_audit(&store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_go_on_when_the_disk_has_space_again() {
    let Some(disk) = SmallDisk::new(16 * MIB) else {
        return;
    };
    let other = disk.path().join("other");
    let store = open(&disk.path().join("store"), OnFull::Block);
    fs::write(&other, vec![7; 8 << 20]).unwrap();
    let mut next = 0;
    let waiting = loop {
        let mut put = Box::pin(store.commit(put(next, 500)));
        tokio::select! {
            done = &mut put => match done {
                Ok(()) => next += 500,
                Err(PutError::Full { .. }) => {}
                Err(error) => unreachable!("{error}"),
            },
            () = until_someone_waits(&store) => break put,
        }
    };
    assert!(next > 0);
    fs::remove_file(&other).unwrap();
    waiting.await.unwrap();
    assert_eq!(store.store().unwrap().state, "ok");
    let seen = drain(&store, 1000).await;
    assert_eq!(seen, (0..next + 500).collect::<Vec<_>>());
    check_audit(&store);
}

async fn until_someone_waits(store: &Stores) {
    while crate::place::info(store, "c").waiting_puts == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eighth_of_a_small_disk_is_never_taken() {
    let Some(disk) = SmallDisk::new(16 * MIB) else {
        return;
    };
    let store = open(&disk.path().join("store"), OnFull::Reject);
    fill(&store, 300).await;
    let space = rustix::fs::statvfs(disk.path()).unwrap();
    let free = space.f_bavail * space.f_frsize;
    assert!(free >= 2 * MIB, "{free} bytes are left");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_of_marks_alone_is_taken_on_a_full_disk() {
    let Some(disk) = SmallDisk::new(8 * MIB) else {
        return;
    };
    let dir = disk.path().join("store");
    let store = open(&dir, OnFull::Reject);
    fill(&store, 100).await;
    let mut commit = put_of(vec![]);
    commit.marks.push(MarkWrite::set("line", &b"7"[..]));
    store.commit(commit).await.unwrap();
    store.close();
    drop(store);
    let store = open(&dir, OnFull::Reject);
    let marks = store.marks(&part("sources.test"));
    assert_eq!(marks.get("line").map(|value| &value[..]), Some(&b"7"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_syncs_faster_than_disks_can_is_named() {
    // Memory: a sync does nothing.
    let Some(disk) = SmallDisk::new(8 * MIB) else {
        return;
    };
    let store = open(&disk.path().join("store"), OnFull::Block);
    let info = loop {
        let info = store.store().unwrap();
        if info.probe_sync_us.is_some() {
            break info;
        }
        tokio::task::yield_now().await;
    };
    assert!(info.probe_is_implausible, "{info:?}");
}
