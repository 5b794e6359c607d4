//! A channel without room, on either side: the sender is told, keeps what it has, and goes on when
//! there is room.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{
    agent::Agent,
    feeder::Feeder,
    flume::{Answer, FlumeAgent, FlumeChannel, FlumeFlow, FlumeSink, SdkClient, Version, Wire},
    peers::{self, Row},
    place,
    record::{Compared, corpus},
};

use crate::flume::{arrived, channel, flume, sink, source, to_avro, to_file};

const WITHIN: Duration = Duration::from_secs(90);

/// What Flume's SDK says when it was answered FAILED.
const FAILED: &str = "Avro RPC call returned Status: FAILED";

/// The events of a call.
const BATCH: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_full_levada_is_answered_failed_and_can_go_on() -> Result<()> {
    full_levada(Version::V1_11, "block").await?;
    full_levada(Version::V1_9, "reject").await?;
    if peers::whole_matrix() {
        full_levada(Version::V1_9, "block").await?;
        full_levada(Version::V1_11, "reject").await?;
    }
    Ok(())
}

async fn full_levada(version: Version, on_full: &str) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (listen, up) = (place::free_address()?, place::free_address()?);
    // Two calls have room, and nobody takes them yet.
    let room = format!("events = {}\non-full = \"{on_full}\"\n", 2 * BATCH);
    let parts = [
        source("main", listen, "put-timeout = \"500ms\"\n"),
        channel("main", &room),
        sink("main", up, 1_000, ""),
    ]
    .concat();
    let mut levada = Agent::new(folder.path(), "full", &parts)?;
    levada.start()?;
    levada.ready().await?;
    let properties = [
        ("client.type", "default".to_owned()),
        ("hosts", "h".to_owned()),
        ("hosts.h", listen.to_string()),
        ("batch-size", BATCH.to_string()),
    ];
    let mut client = SdkClient::start(&flume, folder.path(), "client", &properties).await?;
    let events = corpus(4 * BATCH);
    let calls: Vec<_> = events.chunks(BATCH).collect();
    for call in &calls[..2] {
        assert_eq!(client.append_batch(call).await?, Answer::Ok);
    }
    // More than once: a refusal must leave nothing behind.
    for _ in 0..3 {
        let answer = client.append_batch(calls[2]).await?;
        assert!(
            matches!(&answer, Answer::Failed(why) if why.contains(FAILED)),
            "{answer:?}"
        );
    }

    let output = folder.path().join("output");
    let mut receiver = Agent::new(folder.path(), "receiver", &to_file("main", up, &output))?;
    receiver.start()?;
    receiver.ready().await?;
    levada
        .metric_until("levada_channel_events", "", WITHIN, |events| events == 0.0)
        .await?;
    for call in &calls[2..] {
        assert_eq!(client.append_batch(call).await?, Answer::Ok);
    }
    client.stop().await?;
    let arrived = arrived(&output, events.len(), WITHIN).await?;
    let compared = Compared::of(&events, &arrived);
    let path = format!("SDK {version} -> Levada, on-full = {on_full}");
    Row::new("full channel", &path, ("plain", BATCH), &compared)
        .remark("the client sees Status: FAILED")
        .save()?;
    assert!(compared.is_same(), "{compared:?}");
    for agent in [&mut levada, &mut receiver] {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        let audit = agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_flume_gets_the_rest_when_it_has_room() -> Result<()> {
    full_flume(Version::V1_11).await?;
    if peers::whole_matrix() {
        full_flume(Version::V1_9).await?;
    }
    Ok(())
}

/// Levada -> Flume with little room -> a Levada that starts late.
async fn full_flume(version: Version) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (first, second, third) = (
        place::free_address()?,
        place::free_address()?,
        place::free_address()?,
    );
    let flow = FlumeFlow {
        name: "main".into(),
        listen: second,
        wire: Wire::Plain,
        channel: FlumeChannel::Memory {
            capacity: 100,
            transaction: 100,
        },
        batch: 100,
        sinks: 1,
        sink: FlumeSink::Avro {
            to: third,
            wire: Wire::Plain,
        },
    };
    let mut full = FlumeAgent::new(&flume, folder.path(), "full", &[flow])?;
    full.start()?;
    let mut sender = Agent::new(
        folder.path(),
        "sender",
        &to_avro("main", first, second, BATCH),
    )?;
    sender.start()?;
    sender.ready().await?;
    full.ready().await?;
    let events = corpus(500);
    Feeder::to(first).feed(&events, 100).await?;
    sender
        .metric_until(
            "levada_avro_sent_calls_total",
            "result=\"refused\"",
            WITHIN,
            |calls| calls >= 3.0,
        )
        .await?;

    let output = folder.path().join("output");
    let mut receiver = Agent::new(folder.path(), "receiver", &to_file("main", third, &output))?;
    receiver.start()?;
    receiver.ready().await?;
    let arrived = arrived(&output, events.len(), WITHIN).await?;
    let compared = Compared::of(&events, &arrived);
    let path = format!("Levada -> Flume {version}");
    Row::new("full channel", &path, ("plain", BATCH), &compared).save()?;
    assert!(compared.is_same(), "{compared:?}");
    for agent in [&mut sender, &mut receiver] {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        let audit = agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
    }
    Ok(())
}
