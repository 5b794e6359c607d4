//! Either side killed in mid-stream (F37): Levada -> Flume with its file channel -> Levada. Nothing
//! is missing; what came twice is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use levada_tests::{
    agent::Agent,
    feeder::Feeder,
    flume::{FlumeAgent, FlumeChannel, FlumeFlow, FlumeSink, Version, Wire},
    outputs::Watch,
    peers::{self, Row},
    place,
    record::{Compared, Record, nth},
    wait,
};
use tokio::{sync::oneshot, time};

use crate::flume::{flume, read_json, to_avro, to_file};

/// How long the stream may stand after a kill: Java starts, Flume's sink waits five seconds.
const WITHIN: Duration = Duration::from_secs(120);

/// The most events in one call.
const BATCH: usize = 100;

/// A kill comes when so many more have arrived: in the middle of the stream.
const BETWEEN: u64 = 400;

/// How long the producer waits after each call of 20 events.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
enum Who {
    Sender,
    Flume,
    Receiver,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_stream_nothing_is_missing() -> Result<()> {
    use Who::{Flume, Receiver, Sender};
    if peers::whole_matrix() {
        let often = [Flume, Receiver, Sender].repeat(5);
        stream(Version::V1_11, &often).await?;
        stream(Version::V1_9, &often).await
    } else {
        stream(Version::V1_9, &[Flume, Receiver, Sender, Flume]).await
    }
}

async fn stream(version: Version, kills: &[Who]) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (first, second, third) = (
        place::free_address()?,
        place::free_address()?,
        place::free_address()?,
    );
    let output = folder.path().join("output");
    let flow = FlumeFlow {
        name: "main".into(),
        listen: second,
        wire: Wire::Plain,
        channel: FlumeChannel::File(folder.path().join("channel")),
        batch: BATCH,
        sinks: 1,
        sink: FlumeSink::Avro {
            to: third,
            wire: Wire::Plain,
        },
    };
    let mut between = FlumeAgent::new(&flume, folder.path(), "between", &[flow])?;
    let mut sender = Agent::new(
        folder.path(),
        "sender",
        &to_avro("main", first, second, BATCH),
    )?;
    let mut receiver = Agent::new(folder.path(), "receiver", &to_file("main", third, &output))?;
    between.start()?;
    for agent in [&mut sender, &mut receiver] {
        agent.start()?;
        agent.ready().await?;
    }
    between.ready().await?;

    let producer = Producer::start(first);
    let mut watch = Watch::new(&output);
    for who in kills {
        more_arrive(&mut watch).await?;
        match who {
            Who::Flume => {
                between.kill().await?;
                between.start()?;
                between.ready().await?;
            }
            Who::Sender => killed(&mut sender).await?,
            Who::Receiver => killed(&mut receiver).await?,
        }
    }
    more_arrive(&mut watch).await?;
    let (events, repeated) = producer.finish().await?;
    for (agent, what) in [(&sender, "sender"), (&receiver, "receiver")] {
        let empty = agent.metric_until("levada_channel_events", "", WITHIN, |queued| queued == 0.0);
        empty.await.context(what)?;
    }
    wait::until("everything arrived", WITHIN, || {
        let compared = read_json(&output).map(|arrived| Compared::of(&events, &arrived));
        async { Ok((compared?.missing == 0).then_some(())) }
    })
    .await?;
    for agent in [&mut sender, &mut receiver] {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        let audit = agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
    }
    let compared = Compared::of(&events, &read_json(&output)?);
    let path = format!("Levada -> Flume {version} -> Levada");
    let remark = format!("{} kills, {repeated} calls made again", kills.len());
    println!("{path}, {remark}: {compared:?}");
    Row::new("kill -9", &path, ("plain", BATCH), &compared)
        .remark(remark)
        .save()?;
    assert!(compared.is_complete(), "{compared:?}");
    Ok(())
}

async fn killed(agent: &mut Agent) -> Result<()> {
    agent.kill().await?;
    agent.start()?;
    agent.ready().await.map(|_| ())
}

/// Waits until the stream flows.
async fn more_arrive(watch: &mut Watch) -> Result<()> {
    let before = watch.lines()?;
    wait::until("events arrive", WITHIN, || {
        let lines = watch.lines();
        async move { Ok((lines? >= before + BETWEEN).then_some(())) }
    })
    .await
}

/// Sends numbered events until it is told to finish.
struct Producer {
    enough: Arc<AtomicBool>,
    done: oneshot::Receiver<Result<(usize, u32)>>,
    _tasks: TaskSet,
}

impl Producer {
    fn start(to: std::net::SocketAddr) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (tx, done) = oneshot::channel();
        let mut tasks = TaskSet::new();
        let stop = Arc::clone(&enough);
        tasks.spawn("producer", async move {
            // If nobody waits any more the test has failed already.
            tx.send(produce(to, &stop).await).ok();
        });
        Self {
            enough,
            done,
            _tasks: tasks,
        }
    }

    /// Everything that was acknowledged, and how many calls were made again.
    async fn finish(self) -> Result<(Vec<Record>, u32)> {
        self.enough.store(true, Ordering::Relaxed);
        let (count, repeated) = self.done.await.context("the producer ended")??;
        Ok(((0..count).map(nth).collect(), repeated))
    }
}

async fn produce(to: std::net::SocketAddr, enough: &AtomicBool) -> Result<(usize, u32)> {
    const CALL: usize = 20;
    let mut feeder = Feeder::to(to);
    let mut count = 0;
    while !enough.load(Ordering::Relaxed) {
        let events: Vec<_> = (count..count + CALL).map(nth).collect();
        feeder.feed(&events, CALL).await?;
        count += CALL;
        time::sleep(PAUSE).await;
    }
    Ok((count, feeder.repeated))
}
