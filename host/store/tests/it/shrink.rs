//! The space of a drained backlog goes back to an idle disk (P8 of the performance plan).

use std::time::{Duration, Instant};

use levada_core::{BatchBuilder, Outcomes, Store};
use levada_store::{
    ChannelKind, StoreParams,
    testing::{self, Disk as _, Stepper},
};

use crate::{
    broken::Broken,
    place::{check_audit, is_pending, lease, numbered, numbers, put_of, settlement, spec},
};

const SPARE: u64 = 1 << 20;
const BACKLOG: usize = 24;

fn params(disk: &Broken, dir: &std::path::Path) -> StoreParams {
    let channels = ["kept", "drained"].map(|name| spec(name, ChannelKind::Durable));
    StoreParams {
        spare_bytes: SPARE,
        ..disk.params(dir, channels.into())
    }
}

fn length(disk: &Broken) -> u64 {
    disk.length().unwrap()
}

fn run(writer: &mut Stepper, now: Instant) {
    while writer.step(now) {}
}

#[tokio::test]
async fn an_idle_store_gives_the_space_of_a_drained_backlog_back() {
    let (disk, dir) = (Broken::default(), tempfile::tempdir().unwrap());
    let (store, mut writer) = testing::open_stepped(params(&disk, dir.path())).unwrap();
    let now = Instant::now();
    let mut large = BatchBuilder::default();
    for _ in 0..BACKLOG {
        large.push([("a", "b")], &vec![7; 1 << 20]);
    }
    // What is kept is written last: it lies at the end of the file.
    let puts = [("drained", large.finish()), ("kept", numbered(0..100))];
    for (channel, batch) in puts {
        let mut put = store.commit(put_of(vec![(channel, batch)]));
        assert!(is_pending(&mut put).await);
        run(&mut writer, now);
        put.await.unwrap();
    }
    let full = length(&disk);
    assert!(full > (BACKLOG as u64) << 20);
    let taken = lease(&store, "drained", BACKLOG).await;
    assert_eq!(taken.batch.len(), BACKLOG);
    let mut settled = Box::pin(store.settle(taken, settlement(Outcomes::Done)));
    assert!(is_pending(&mut settled).await);
    run(&mut writer, now + Duration::from_secs(1));
    settled.await.unwrap();
    run(&mut writer, now + Duration::from_secs(2));
    assert_eq!(length(&disk), full, "not idle yet");
    run(&mut writer, now + Duration::from_secs(10));
    assert!(length(&disk) < 4 * SPARE, "{} bytes", length(&disk));
    // It is not tried again for nothing.
    assert!(!writer.step(now + Duration::from_secs(200)));

    let mut put = store.commit(put_of(vec![("kept", numbered(100..200))]));
    assert!(is_pending(&mut put).await);
    run(&mut writer, now + Duration::from_secs(201));
    put.await.unwrap();
    writer.close();
    drop(store);
    let (store, writer) = testing::open_stepped(params(&disk, dir.path())).unwrap();
    let kept = lease(&store, "kept", 200).await;
    assert_eq!(numbers(&kept.batch), (0..200).collect::<Vec<_>>());
    check_audit(&store);
    writer.close();
}
