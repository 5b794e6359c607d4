//! Messages at the border of what a side takes.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use levada_tests::{
    agent::Agent,
    avro,
    feeder::Feeder,
    flume::{
        Answer, FlumeAgent, FlumeChannel, FlumeFlow, FlumeSink, SdkClient, Version, Wire,
        read_containers,
    },
    peers::{self, Row},
    place,
    record::{Compared, Record, corpus},
    wait,
};

use crate::flume::{arrived, channel, files, flume, sink, source};

const WITHIN: Duration = Duration::from_secs(90);

/// `max-frame` of the source and of the sink.
const FRAME: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_at_the_frame_limit_is_taken_and_one_byte_more_is_not() -> Result<()> {
    frame_limit(Version::V1_11).await?;
    if peers::whole_matrix() {
        frame_limit(Version::V1_9).await?;
    }
    Ok(())
}

async fn frame_limit(version: Version) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let listen = place::free_address()?;
    let output = folder.path().join("output");
    let limits = "max-frame = \"64KiB\"\nmax-event = \"64KiB\"\n";
    let parts = [
        source("main", listen, limits),
        channel("main", ""),
        files("main", &output),
    ]
    .concat();
    let mut levada = Agent::new(folder.path(), "levada", &parts)?;
    levada.start()?;
    levada.ready().await?;
    let properties = [
        ("hosts", "h".to_owned()),
        ("hosts.h", listen.to_string()),
        ("batch-size", "1000".to_owned()),
    ];
    let mut client = SdkClient::start(&flume, folder.path(), "client", &properties).await?;
    let first = vec![Record::new(&[], "makes the handshake")];
    assert_eq!(client.append_batch(&first).await?, Answer::Ok);
    let fits = call_of("fits", FRAME)?;
    assert_eq!(client.append_batch(&fits).await?, Answer::Ok);
    let over = call_of("over", FRAME + 1)?;
    let answer = client.append_batch(&over).await?;
    assert!(
        matches!(&answer, Answer::Failed(why) if why.contains("EventDeliveryException")),
        "{answer:?}"
    );
    // The client made a new connection; nothing of the refused call is in the way.
    let last = vec![Record::new(&[], "goes on")];
    assert_eq!(client.append_batch(&last).await?, Answer::Ok);
    client.stop().await?;

    let sent = [first, fits, last].concat();
    let arrived = arrived(&output, sent.len(), WITHIN).await?;
    let compared = Compared::of(&sent, &arrived);
    let path = format!("SDK {version} -> Levada");
    Row::new("frame limit", &path, ("plain", sent.len()), &compared)
        .remark("one byte more: the connection ends, the client sees EventDeliveryException")
        .save()?;
    assert!(compared.is_same(), "{compared:?}");
    let logged = levada.logged();
    assert!(
        logged.contains("65537") && logged.contains("65536"),
        "the log does not name size and limit:\n{}",
        levada.tail()
    );
    assert!(levada.stop().await?.success(), "{}", levada.tail());
    let audit = levada.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

/// Events whose `appendBatch` is a message of exactly so many bytes.
fn call_of(name: &str, bytes: usize) -> Result<Vec<Record>> {
    let mut events: Vec<_> = (0..20)
        .map(|n| Record::new(&[("n", &n.to_string())], format!("{name} {n}")))
        .collect();
    let size = |events: &[Record]| {
        let events: Vec<_> = events.iter().map(Record::to_avro).collect();
        avro::call("appendBatch", &avro::events(&events)).len()
    };
    // The last body fills up; its length may then take more bytes itself.
    let mut missing = bytes - size(&events);
    while missing > 0 {
        let last = events.last_mut().map(|event| &mut event.body);
        last.into_iter()
            .for_each(|body| body.resize(body.len() + missing.min(FRAME / 2), b'x'));
        let now = size(&events);
        if now > bytes {
            let last = events.last_mut().map(|event| &mut event.body);
            last.into_iter()
                .for_each(|body| body.truncate(body.len() - (now - bytes)));
            break;
        }
        missing = bytes - now;
    }
    ensure!(size(&events) == bytes, "{} bytes", size(&events));
    Ok(events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_over_the_frame_limit_reaches_flume_in_parts_and_in_order() -> Result<()> {
    in_parts(Version::V1_9, Limit::Frame).await?;
    if peers::whole_matrix() {
        in_parts(Version::V1_11, Limit::Frame).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flume_that_takes_less_than_a_batch_at_once_gets_it_in_parts_and_in_order() -> Result<()>
{
    in_parts(Version::V1_11, Limit::Transaction).await?;
    if peers::whole_matrix() {
        in_parts(Version::V1_9, Limit::Transaction).await?;
    }
    Ok(())
}

/// Why a sink's batch of a thousand events cannot be one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The sink's own `max-frame`.
    Frame,
    /// The most that the channel of the Flume takes at once, which it tells nobody: it answers
    /// FAILED, however often it is asked.
    Transaction,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame limit",
            Self::Transaction => "small transactions",
        }
    }

    /// A Levada with this limit before it, or in it.
    fn levada(self, listen: SocketAddr, to: SocketAddr) -> String {
        let own = match self {
            Self::Frame => "max-frame = \"64KiB\"\n",
            Self::Transaction => "",
        };
        [
            source("main", listen, ""),
            channel("main", ""),
            sink("main", to, 1_000, own),
        ]
        .concat()
    }

    fn channel(self) -> FlumeChannel {
        match self {
            Self::Frame => FlumeChannel::memory(),
            Self::Transaction => FlumeChannel::Memory {
                capacity: 10_000,
                transaction: SMALL,
            },
        }
    }

    /// In how many calls these events must come at least.
    fn least(self, events: &[Record]) -> usize {
        match self {
            Self::Frame => {
                let bytes: usize = events.iter().map(|event| event.to_avro().len()).sum();
                bytes.div_ceil(FRAME)
            }
            Self::Transaction => events.len().div_ceil(SMALL),
        }
    }
}

/// A Flume's `transactionCapacity`, its default.
const SMALL: usize = 100;

async fn in_parts(version: Version, limit: Limit) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (first, second) = (place::free_address()?, place::free_address()?);
    let output = folder.path().join("output");
    let flow = FlumeFlow {
        name: "main".into(),
        listen: second,
        wire: Wire::Plain,
        channel: limit.channel(),
        batch: SMALL,
        sinks: 1,
        sink: FlumeSink::Files(output.clone()),
    };
    let mut receiver = FlumeAgent::new(&flume, folder.path(), "receiver", &[flow])?;
    receiver.start()?;
    let mut levada = Agent::new(folder.path(), "levada", &limit.levada(first, second))?;
    levada.start()?;
    levada.ready().await?;
    let events = corpus(2_000);
    Feeder::to(first).feed(&events, 1_000).await?;
    receiver.ready().await?;
    let arrived = wait::until("everything arrived", WITHIN, || {
        let arrived = read_containers(&output);
        async { Ok(Some(arrived?).filter(|arrived| arrived.len() >= events.len())) }
    })
    .await?;
    let compared = Compared::of(&events, &arrived);
    let calls = receiver
        .count("SOURCE.main", "AppendBatchAcceptedCount")
        .await?;
    let least = limit.least(&events) as u64;
    assert!(calls >= least, "{calls} calls, at least {least} are needed");
    let path = format!("Levada -> Flume {version}");
    println!("{path}, {limit:?}, {calls} calls: {compared:?}");
    Row::new(limit.name(), &path, ("plain", 1_000), &compared)
        .remark(format!("taken in {calls} calls"))
        .save()?;
    assert!(compared.is_same(), "{compared:?}");
    assert!(levada.stop().await?.success(), "{}", levada.tail());
    let audit = levada.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}
