//! The instrument itself: what a sync made durable stays, the rest takes every way it can.

use std::collections::BTreeSet;

use levada_core::Chance;
use levada_store::testing::Disk;

use super::{EIO, ENOSPC, End, Fault, Honesty, On, SimDisk};

/// A page of ones, synced; then twos and threes over it and a longer file, not synced.
fn written(seed: u64, honesty: Honesty) -> SimDisk {
    let disk = SimDisk::new(Chance::seeded(seed), honesty);
    disk.write(0, &[1; 4096]).unwrap();
    disk.sync().unwrap();
    disk.write(0, &[2; 4096]).unwrap();
    disk.write(0, &[3; 4096]).unwrap();
    disk.set_length(8192).unwrap();
    disk
}

#[test]
fn unsynced_sectors_are_kept_lost_torn_and_reordered_and_a_length_is_lost_alone() {
    let mut sectors = BTreeSet::new();
    let mut ends = BTreeSet::new();
    for seed in 0..400 {
        let disk = written(seed, Honesty::Honest);
        disk.restart(End::PowerCut);
        let image = disk.image();
        assert!(image.len() >= 4096, "what was synced is not cut");
        for sector in image[..4096].chunks(512) {
            assert!(sector.iter().all(|byte| (1..=3).contains(byte)));
            sectors.insert((sector[0], sector[511]));
        }
        ends.insert((image.len(), image[0]));
    }
    for kept_lost_reordered_torn in [(3, 3), (1, 1), (2, 2), (3, 1), (1, 3)] {
        assert!(sectors.contains(&kept_lost_reordered_torn), "{sectors:?}");
    }
    assert!(
        ends.contains(&(4096, 3)),
        "a length lost with the write kept"
    );
    assert!(
        ends.contains(&(8192, 1)),
        "a write lost with the length kept"
    );
    assert!(ends.iter().any(|(len, _)| *len > 4096 && *len < 8192));
}

#[test]
fn a_killed_process_leaves_what_the_system_has() {
    let disk = written(7, Honesty::Honest);
    disk.end_now();
    assert!(disk.write(0, &[9]).is_err());
    disk.restart(End::Kill);
    assert_eq!(disk.image()[..4096], [3; 4096]);
    // It is still not on the medium.
    disk.sync().unwrap();
    disk.restart(End::PowerCut);
    assert_eq!(disk.image()[..4096], [3; 4096]);
}

#[test]
fn a_disk_that_lies_loses_what_it_said_was_synced() {
    let lost = (0..100).any(|seed| {
        let disk = written(seed, Honesty::Lies);
        disk.restart(End::PowerCut);
        disk.image().is_empty()
    });
    assert!(lost);
}

#[test]
fn a_fault_comes_when_it_is_planned_and_a_failed_sync_forgets() {
    let mut forgot = false;
    for seed in 0..50 {
        let disk = written(seed, Honesty::Honest);
        disk.plan(Fault {
            after: 1,
            on: On::Sync,
            errno: EIO,
            sticky: false,
        });
        disk.sync().unwrap();
        disk.write(0, &[4; 4096]).unwrap();
        assert_eq!(disk.sync().unwrap_err().raw_os_error(), Some(EIO));
        assert!(disk.take_failed() && !disk.take_failed());
        // The next sync works, and the system shows what may be nowhere.
        disk.sync().unwrap();
        assert_eq!(disk.image()[..4096], [4; 4096]);
        disk.restart(End::PowerCut);
        forgot |= disk.image()[..4096] == [3; 4096];
    }
    assert!(forgot);
    let disk = written(1, Honesty::Honest);
    disk.plan(Fault {
        after: 0,
        on: On::Change,
        errno: ENOSPC,
        sticky: true,
    });
    for _ in 0..3 {
        assert!(disk.write(0, &[5; 512]).is_err());
        assert!(disk.set_length(1 << 20).is_err());
    }
    disk.repair();
    disk.write(0, &[5; 512]).unwrap();
}

#[test]
fn the_same_seed_leaves_the_same() {
    let image = |seed| {
        let disk = written(seed, Honesty::Honest);
        disk.restart(End::PowerCut);
        (disk.image(), disk.trace())
    };
    assert!((0..20).all(|seed| image(seed) == image(seed)));
}
