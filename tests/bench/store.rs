//! P1 to P7: the durable channel against raw writes to the same disk.

use std::{
    fs::File,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use levada_core::{
    Batch, ChannelName, Commit, Effects, Outcomes, PartId, Settlement, Store, TaskSet, Want,
    inspect::{Inspect, StoreInfo},
    store::{ChannelPut, Need},
};
use levada_store::{ChannelKind, ChannelSpec, OnFull, StoreParams, Stores};
use tokio::runtime::Runtime;

use crate::{
    harness::{Bench, Samples, percentile_us, rate},
    limits::{RawAppend, RawOverwrite},
    load::{self, Body},
    report::{Report, Target},
};

/// Words to start this program with as the child that fills a store and is killed.
pub(crate) const FILL: &str = "--fill-and-die";

/// Events of the backlog of P7, and of each of its puts.
const BACKLOG: usize = 10_000_000;
const BACKLOG_BATCH: usize = 1000;

/// A store with one durable channel.
struct Durable {
    stores: Arc<Stores>,
    channel: ChannelName,
    part: PartId,
}

impl Durable {
    fn open(dir: &Path) -> Result<Self> {
        Self::open_slow(dir, Duration::ZERO)
    }

    /// Every sync of the file takes so much longer.
    fn open_slow(dir: &Path, sync_delay: Duration) -> Result<Self> {
        let channel = ChannelName::new("main").context("a channel's name")?;
        let spec = ChannelSpec {
            name: channel.clone(),
            kind: ChannelKind::Durable,
            capacity_bytes: 64 << 30,
            capacity_events: None,
            on_full: OnFull::Block,
            lanes: None,
        };
        let stores = levada_store::open(StoreParams {
            sync_delay,
            ..StoreParams::new(dir, vec![spec])
        })?;
        let part = PartId::parse("sources.bench").context("a part's name")?;
        Ok(Self {
            stores,
            channel,
            part,
        })
    }

    async fn put(&self, batch: &Batch) -> Result<()> {
        let put = ChannelPut {
            channel: self.channel.clone(),
            batch: batch.clone(),
            need: Need::Required,
        };
        let commit = Commit {
            part: self.part.clone(),
            puts: vec![put],
            marks: Vec::new(),
            effects: Effects::default(),
            deadline: None,
            received_ms: 0,
        };
        Ok(self.stores.commit(commit).await?)
    }

    async fn take(&self, events: usize) -> Result<usize> {
        let want = Want {
            events,
            bytes: usize::MAX,
            wait: Duration::ZERO,
            ..Want::default()
        };
        let lease = self.stores.lease(&self.channel, want).await?;
        let taken = lease.batch.len();
        let settlement = Settlement {
            part: self.part.clone(),
            outcomes: Outcomes::Done,
            marks: Vec::new(),
            effects: Effects::default(),
            durable: false,
        };
        self.stores.settle(lease, settlement).await?;
        Ok(taken)
    }

    fn info(&self) -> Result<StoreInfo> {
        self.stores.store().context("a durable channel has a file")
    }

    /// Puts and takes the batch so often, one after the other.
    async fn put_and_take(&self, batch: &Batch, times: usize) -> Result<Duration> {
        let begin = Instant::now();
        for _ in 0..times {
            self.put(batch).await?;
            let mut left = batch.len();
            while left > 0 {
                left -= self.take(left).await?;
            }
        }
        Ok(begin.elapsed())
    }
}

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for (events, times) in [(1000, 400), (100, 800), (1, 1500)] {
        throughput(bench, report, &runtime, (events, times))?;
    }
    group_commit(bench, report, &runtime)?;
    growing(bench, report, &runtime)?;
    reopening(bench, report, &runtime)
}

/// P1, P2, P3, P4 (one sync a commit) and P5.
fn throughput(
    bench: &Bench,
    report: &mut Report,
    runtime: &Runtime,
    (events, times): (usize, usize),
) -> Result<()> {
    let dir = bench.dir.path();
    let batch = load::batch(events, Body::Text);
    let store = Durable::open(&dir.join(format!("throughput-{events}")))?;
    let mut raw = RawOverwrite::new(dir, batch.bytes())?;
    let mut append = RawAppend::new(dir, batch.bytes());
    let all = (events * times) as u64;
    runtime.block_on(store.put_and_take(&batch, 20))?;
    let before = store.info()?;
    let samples = bench.interleave(
        "store",
        &mut [
            ("put and take", &mut || {
                Ok(rate(
                    all,
                    runtime.block_on(store.put_and_take(&batch, times))?,
                ))
            }),
            ("R1", &mut || Ok(rate(all, raw.write(times)?.iter().sum()))),
            ("R3", &mut || Ok(rate(all, append.write(times)?))),
        ],
    )?;
    let after = store.info()?;
    let what = format!("durable put and take, batch {events}");
    let r1 = ("R1", &samples[1]);
    let (id, least) = if events == 1000 {
        ("P1", 0.38)
    } else {
        ("P3", 0.40)
    };
    report.against(
        id,
        &what,
        "ev/s",
        &samples[0],
        r1,
        Target::RatioAtLeast(least),
    );
    if events == 1000 {
        let r3 = ("R3", &samples[2]);
        report.against(
            "P2",
            &what,
            "ev/s",
            &samples[0],
            r3,
            Target::RatioAtLeast(0.9),
        );
    }
    let commits = (after.commits - before.commits) as f64;
    let flushes = (after.flushes - before.flushes) as f64;
    let what = format!("syncs a commit, batch {events}");
    report.judged(
        "P4",
        &what,
        "",
        &Samples::one(flushes / commits),
        Target::AtMost(1.0),
    );
    let payload = (bench.rounds * times * batch.bytes()) as f64;
    let written = (after.written_bytes - before.written_bytes) as f64;
    let what = format!("device bytes a payload byte, batch {events}");
    let bytes = Samples::one(written / payload);
    match events {
        1000 => report.judged("P5", &what, "", &bytes, Target::AtMost(1.25)),
        100 => report.judged("P5", &what, "", &bytes, Target::AtMost(2.2)),
        _ => report.figure("P5", &what, "", &bytes),
    }
    Ok(())
}

/// P4: how many batches share a sync when 16 producers put at once.
fn group_commit(bench: &Bench, report: &mut Report, runtime: &Runtime) -> Result<()> {
    const PRODUCERS: usize = 16;
    const PUTS: usize = 200;
    let store = Arc::new(Durable::open(&bench.dir.path().join("group"))?);
    let batch = load::batch(1, Body::Text);
    let samples = bench.interleave(
        "store",
        &mut [("16 producers", &mut || {
            let before = store.info()?.flushes;
            runtime.block_on(produce(&store, &batch, (PRODUCERS, PUTS)))?;
            Ok((store.info()?.flushes - before) as f64 / (PRODUCERS * PUTS) as f64)
        })],
    )?;
    let what = "syncs a batch, 16 producers";
    report.judged("P4", what, "", &samples[0], Target::AtMost(0.12));
    Ok(())
}

/// So many producers at once put the batch so often each, and everything is taken.
async fn produce(
    store: &Arc<Durable>,
    batch: &Batch,
    (producers, puts): (usize, usize),
) -> Result<Duration> {
    let begin = Instant::now();
    let mut tasks = TaskSet::new();
    for n in 0..producers {
        let (store, batch) = (Arc::clone(store), batch.clone());
        tasks.spawn(format!("producer {n}"), async move {
            for _ in 0..puts {
                store
                    .put(&batch)
                    .await
                    .expect("the store of a benchmark takes a put");
            }
        });
    }
    let mut left = producers * puts * batch.len();
    while left > 0 {
        left -= store.take(1000).await?;
    }
    while tasks.next().await.is_some() {}
    Ok(begin.elapsed())
}

/// A disk whose sync takes 5 ms longer, as an SD card's does: what one producer and what 16 get.
pub(crate) fn slow_disk(bench: &Bench, report: &mut Report) -> Result<()> {
    const SYNC: Duration = Duration::from_millis(5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let store = Arc::new(Durable::open_slow(&bench.dir.path().join("slow"), SYNC)?);
    let batch = load::batch(100, Body::Text);
    let put = |producers, puts| {
        let took = runtime.block_on(produce(&store, &batch, (producers, puts)))?;
        anyhow::Ok(rate((producers * puts * batch.len()) as u64, took))
    };
    let samples = bench.interleave(
        "slow disk",
        &mut [
            ("1 producer", &mut || put(1, 100)),
            ("16 producers", &mut || put(16, 100)),
        ],
    )?;
    for (samples, producers) in samples.iter().zip(["1 producer", "16 producers"]) {
        let what = format!("durable put and take, batch 100, {producers}, 5 ms a sync");
        report.figure("L", &what, "ev/s", samples);
    }
    Ok(())
}

/// P6: the slowest commits while nothing is taken.
fn growing(bench: &Bench, report: &mut Report, runtime: &Runtime) -> Result<()> {
    const PUTS: usize = 400;
    let batch = load::batch(1000, Body::Text);
    let store = Durable::open(&bench.dir.path().join("growing"))?;
    let mut raw = RawOverwrite::new(bench.dir.path(), batch.bytes())?;
    let samples = bench.interleave(
        "store",
        &mut [
            ("growing backlog", &mut || {
                runtime.block_on(async {
                    let mut took = Vec::with_capacity(PUTS);
                    for _ in 0..PUTS {
                        let begin = Instant::now();
                        store.put(&batch).await?;
                        took.push(begin.elapsed());
                    }
                    Ok(percentile_us(&mut took, 99))
                })
            }),
            ("R1", &mut || Ok(percentile_us(&mut raw.write(PUTS)?, 99))),
        ],
    )?;
    let r1 = ("R1 p99", &samples[1]);
    let what = "commit p99, batch 1000, growing backlog";
    report.against("P6", what, "us", &samples[0], r1, Target::RatioAtMost(4.0));
    Ok(())
}

/// P7: a child fills a store and is killed; then the time until the store takes a put again.
fn reopening(bench: &Bench, report: &mut Report, runtime: &Runtime) -> Result<()> {
    let dir = bench.dir.path().join("backlog");
    let own = std::env::current_exe().context("cannot find this program")?;
    let status = Command::new(own)
        .arg(FILL)
        .arg(&dir)
        .status()
        .context("cannot start the child")?;
    ensure!(
        status.code().is_none(),
        "the child that fills a store was to be killed, got {status}"
    );
    let mut took = Vec::new();
    let batch = load::batch(1, Body::Text);
    // Once: afterwards the file was closed in order, and a second time would show another thing.
    forget(&dir.join("store.redb"))?;
    let begin = Instant::now();
    let store = Durable::open(&dir)?;
    runtime.block_on(store.put(&batch))?;
    took.push(begin.elapsed().as_secs_f64() * 1e3);
    let queued: u64 = store
        .stores
        .channels()
        .iter()
        .map(|channel| channel.events)
        .sum();
    ensure!(
        queued > BACKLOG as u64,
        "the backlog is there: {queued} events"
    );
    let what = "ready after kill -9, 10 M events queued, cold cache";
    report.judged("P7", what, "ms", &Samples(took), Target::AtMost(5000.0));
    Ok(())
}

/// Drops the file from the page cache.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// What the child does: fills, then dies without a word.
pub(crate) fn fill_and_die(dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let store = Durable::open(dir)?;
    let batch = load::batch(BACKLOG_BATCH, Body::Text);
    runtime.block_on(async {
        for _ in 0..BACKLOG / BACKLOG_BATCH {
            store.put(&batch).await?;
        }
        anyhow::Ok(())
    })?;
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
    Ok(())
}
