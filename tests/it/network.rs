//! A network that cuts, mutes and squeezes, between real agents on two hosts (F26, F27, F36); many
//! senders at once (F34); a sink that is far slower than its source (F33).

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::BatchBuilder;
use levada_rpc::{Client, Meta, ServerParams, Status};
use levada_tests::{agent::Agent, island::Island, numbers, place, wait};
use tokio::{net::TcpSocket, task::JoinSet};

const WITHIN: Duration = Duration::from_secs(120);

/// Set where a second host must be there: that it cannot be made is a failure then.
const REQUIRED: &str = "LEVADA_REQUIRE_ISLANDS";

const DELIVERED: &str = "levada_sink_delivered_events_total";
const FAILURES: &str = "levada_sink_failures_total";

/// An edge here and an aggregator on an island.
struct Across {
    edge: Agent,
    aggregator: Agent,
    island: Island,
    folder: tempfile::TempDir,
    total: u64,
}

impl Across {
    /// `None` where the machine allows no second host. `source` and `sink` are more keys of the
    /// edge's two parts.
    async fn start(total: u64, source: &str, sink: &str) -> Result<Option<Self>> {
        let island = match Island::rise() {
            Ok(island) => island,
            Err(error) if env::var_os(REQUIRED).is_some() => return Err(error),
            Err(error) => {
                println!("not run: there is no second host here ({error:#})");
                return Ok(None);
            }
        };
        let folder = tempfile::tempdir()?;
        let at = SocketAddr::from((island.there(), 4141));
        let output = folder.path().join("output");
        let mut aggregator = Agent::new(
            folder.path(),
            "aggregator",
            &format!(
                "[sources.edges]\ntype = \"avro\"\nlisten = \"{at}\"\nplaintext = \"accept-risk\"\n\
                 channels = [\"main\"]\n\n[channels.main]\ntype = \"durable\"\n\
                 capacity = \"64MiB\"\n\n[sinks.files]\ntype = \"file-roll\"\nchannel = \"main\"\n\
                 directory = {:?}\nformat = \"json\"\n",
                output.display().to_string()
            ),
        )?
        .on(&island);
        let mut edge = Agent::new(
            folder.path(),
            "edge",
            &format!(
                "[sources.numbers]\ntype = \"seq\"\ntotal = {total}\nchannels = [\"main\"]\n\
                 {source}\n[channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
                 [sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{at}\"\n{sink}\n"
            ),
        )?;
        aggregator.start()?;
        aggregator.answers().await?;
        edge.start()?;
        edge.ready().await?;
        Ok(Some(Self {
            edge,
            aggregator,
            island,
            folder,
            total,
        }))
    }

    /// Waits until a counter of the edge's sink is above a number.
    async fn above(&self, counter: &str, number: f64) -> Result<f64> {
        self.edge
            .metric_until(counter, "part=\"sinks.up\"", WITHIN, |count| count > number)
            .await
    }

    /// Everything arrives; the books of both balance. Gives the number of lines that came twice.
    async fn finish(mut self) -> Result<u64> {
        let output = self.folder.path().join("output");
        wait::until("every number is in a file", WITHIN, || async {
            Ok((numbers::distinct(&output)? == self.total).then_some(()))
        })
        .await?;
        for agent in [&mut self.edge, &mut self.aggregator] {
            assert!(agent.stop().await?.success(), "{}", agent.tail());
            let audit = agent.audit().await?;
            assert!(audit.holds, "{audit:#?}");
        }
        Ok(numbers::lines(&output)? - self.total)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_without_a_word_is_noticed_and_nothing_is_lost() -> Result<()> {
    let batches = "batch-size = 100\nrate = 2000\n";
    let Some(across) = Across::start(10_000, batches, "").await? else {
        return Ok(());
    };
    across.above(DELIVERED, 500.0).await?;
    across.island.cut()?;
    across.above(FAILURES, 0.0).await?;
    across.island.mend()?;
    let twice = across.finish().await?;
    println!("cut: {twice} events came twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hears_and_is_not_heard_costs_nothing_but_time() -> Result<()> {
    let batches = "batch-size = 100\nrate = 2000\n";
    let sink = "request-timeout = \"3s\"\n";
    let Some(across) = Across::start(10_000, batches, sink).await? else {
        return Ok(());
    };
    across.above(DELIVERED, 500.0).await?;
    across.island.mute()?;
    across.above(FAILURES, 1.0).await?;
    across.island.unmute()?;
    let twice = across.finish().await?;
    println!("muted: {twice} events came twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_too_slow_for_a_whole_batch_carries_smaller_ones() -> Result<()> {
    let source = "batch-size = 200\nrate = 200\nbody-size = \"100B\"\n";
    let sink = "request-timeout = \"4s\"\ncompression = \"none\"\n";
    let Some(across) = Across::start(2000, source, sink).await? else {
        return Ok(());
    };
    // 200 events at 4 KB/s take longer than a call may.
    across.above(DELIVERED, 0.0).await?;
    across.island.squeeze("32kbit")?;
    across.above(FAILURES, 0.0).await?;
    let done = across.edge.metric(DELIVERED, "").await?;
    across.above(DELIVERED, done + 50.0).await?;
    across.island.widen()?;
    let twice = across.finish().await?;
    println!("squeezed: {twice} events came twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_senders_come_back_at_once_after_a_restart() -> Result<()> {
    const SENDERS: u16 = 500;
    const BATCHES: u64 = 4;
    let folder = tempfile::tempdir()?;
    let (at, output) = (place::free_address()?, folder.path().join("output"));
    let mut agent = Agent::new(
        folder.path(),
        "aggregator",
        &format!(
            "[sources.edges]\ntype = \"avro\"\nlisten = \"{at}\"\nchannels = [\"main\"]\n\n\
             [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n[sinks.files]\n\
             type = \"file-roll\"\nchannel = \"main\"\ndirectory = {:?}\nformat = \"json\"\n",
            output.display().to_string()
        ),
    )?;
    agent.start()?;
    agent.ready().await?;
    let mut senders = JoinSet::new();
    for n in 0..SENDERS {
        senders.spawn(send_all(n, at, BATCHES));
    }
    let accepted = "levada_source_accepted_events_total";
    agent
        .metric_until(accepted, "sources.edges", WITHIN, |count| count > 2000.0)
        .await?;
    agent.kill().await?;
    agent.start()?;
    agent.ready().await?;
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    let total = u64::from(SENDERS) * BATCHES * BATCH;
    wait::until("every number is in a file", WITHIN, || async {
        Ok((numbers::distinct(&output)? == total).then_some(()))
    })
    .await?;
    let peak = peak_rss(agent.pid().context("it runs")?)?;
    println!("{SENDERS} senders: at most {} MiB resident", peak >> 20);
    assert!(peak < 200 << 20, "{peak} bytes resident");
    assert!(agent.stop().await?.success(), "{}", agent.tail());
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

/// Events of a batch of one of the many senders.
const BATCH: u64 = 10;

/// One sender with an address of its own per hundred: sends until everything was acknowledged.
async fn send_all(sender: u16, to: SocketAddr, batches: u64) -> Result<()> {
    for n in 0..batches {
        let mut builder = BatchBuilder::default();
        for event in 0..BATCH {
            let number = (u64::from(sender) * batches + n) * BATCH + event;
            builder.push(
                std::iter::empty::<(&str, &str)>(),
                number.to_string().as_bytes(),
            );
        }
        let batch = builder.finish();
        wait::until("a batch is acknowledged", WITHIN, || async {
            Ok(send(sender, to, &batch).await.ok())
        })
        .await?;
    }
    Ok(())
}

async fn send(sender: u16, to: SocketAddr, batch: &levada_core::Batch) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    let [low, high] = (sender / 90 + 2).to_le_bytes();
    socket.bind((Ipv4Addr::new(127, 0, high, low), 0).into())?;
    let mut client = Client::new(Box::new(socket.connect(to).await?));
    let reply = client.append_batch(batch, &Meta::new()).await?;
    anyhow::ensure!(reply.result == Ok(Status::Ok), "{reply:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_far_slower_than_its_source_holds_it_up_and_memory_stays_flat() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let slow = SlowPeer::start().await?;
    let mut agent = Agent::new(
        folder.path(),
        "edge",
        &format!(
            "[sources.numbers]\ntype = \"seq\"\nbody-size = \"1KiB\"\nbatch-size = 100\n\
             channels = [\"main\"]\n\n[channels.main]\ntype = \"durable\"\ncapacity = \"32MiB\"\n\n\
             [sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{}\"\n\
             batch = {{ events = 10, wait = \"1ms\" }}\n",
            slow.at
        ),
    )?;
    agent.start()?;
    agent.ready().await?;
    agent
        .metric_until("levada_channel_waiting_puts", "", WITHIN, |puts| puts > 0.0)
        .await?;
    let pid = agent.pid().context("it runs")?;
    let full = peak_rss(pid)?;
    // Ten thousand events later, each of which made room for another.
    let done = agent.metric(DELIVERED, "").await?;
    agent
        .metric_until(DELIVERED, "", WITHIN, |count| count > done + 10_000.0)
        .await?;
    let later = peak_rss(pid)?;
    println!(
        "{} MiB when the channel was full, {} MiB later",
        full >> 20,
        later >> 20
    );
    assert!(later < full + (8 << 20), "{full} bytes grew to {later}");
    assert!(agent.stop().await?.success(), "{}", agent.tail());
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

/// Takes Avro RPC, one batch a millisecond.
struct SlowPeer {
    at: SocketAddr,
    _tasks: JoinSet<()>,
}

impl SlowPeer {
    async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut server = levada_rpc::Server::new(Box::new(stream), ServerParams::default());
                while let Ok(Some(call)) = server.next().await {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let meta = Meta::new();
                    if server.reply(call.token, Status::Ok, &meta).await.is_err() {
                        break;
                    }
                }
            }
        });
        Ok(Self { at, _tasks: tasks })
    }
}

/// The most memory that a process had resident.
fn peak_rss(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmHWM")?.parse::<u64>()? << 10)
}
