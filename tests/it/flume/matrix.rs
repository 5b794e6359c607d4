//! Every way from a Flume to a Levada and back without faults: what arrives is what was sent, byte
//! for byte, once, in order. The flows of a path run side by side in the same processes.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use levada_tests::{
    agent::Agent,
    feeder::Feeder,
    flume::{
        Certificates, FlumeAgent, FlumeChannel, FlumeFlow, FlumeSink, Version, Wire,
        read_containers,
    },
    peers::{self, Row},
    place,
    record::{Compared, Record, corpus},
    wait,
};

use crate::flume::{channel, files, flume, read_json, sink, source};

/// How long everything may take to arrive: an idle Flume looks every five seconds.
const WITHIN: Duration = Duration::from_secs(90);

/// One flow of a path: how its bytes travel, and how many events a call has.
struct Cell {
    name: String,
    wire: Wire,
    batch: usize,
    events: Vec<Record>,
    /// Where the three agents of a path listen for it, first to last.
    listen: [SocketAddr; 3],
}

fn cells() -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for wire in Wire::ALL {
        for (batch, events) in [(1, 100), (100, 1_000), (1_000, 3_000)] {
            cells.push(Cell {
                name: format!("{}-{batch}", wire.name()),
                wire,
                batch,
                events: corpus(events),
                listen: [
                    place::free_address()?,
                    place::free_address()?,
                    place::free_address()?,
                ],
            });
        }
    }
    Ok(cells)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_flume_to_flume_through_levada() -> Result<()> {
    between(Version::V1_11, Version::V1_9).await?;
    between(Version::V1_9, Version::V1_11).await?;
    if peers::whole_matrix() {
        between(Version::V1_11, Version::V1_11).await?;
        between(Version::V1_9, Version::V1_9).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_levada_to_levada_through_flume() -> Result<()> {
    around(Version::V1_11).await?;
    if peers::whole_matrix() {
        around(Version::V1_9).await?;
    }
    Ok(())
}

/// Flume -> Levada -> Flume.
async fn between(first: Version, last: Version) -> Result<()> {
    let (Some(first), Some(last)) = (flume(first)?, flume(last)?) else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let cells = cells()?;
    let output = |cell: &Cell| folder.path().join("output").join(&cell.name);
    let flow = |cell: &Cell, at: usize, wire, sink| FlumeFlow {
        name: cell.name.clone(),
        listen: cell.listen[at],
        wire,
        channel: FlumeChannel::memory(),
        batch: cell.batch,
        sinks: 1,
        sink,
    };
    let up = |cell: &Cell| {
        let (to, wire) = (cell.listen[1], cell.wire);
        flow(cell, 0, Wire::Plain, FlumeSink::Avro { to, wire })
    };
    let down = |cell: &Cell| flow(cell, 2, cell.wire, FlumeSink::Files(output(cell)));
    let up: Vec<_> = cells.iter().map(up).collect();
    let down: Vec<_> = cells.iter().map(down).collect();
    let mut sender = FlumeAgent::new(&first, folder.path(), "sender", &up)?;
    let mut receiver = FlumeAgent::new(&last, folder.path(), "receiver", &down)?;
    let certificates = Certificates::make(folder.path()).await?;
    let parts = |cell: &Cell| {
        let receives = cell.wire.levada_source(first.version, &certificates);
        let sends = cell.wire.levada_sink(last.version, &certificates);
        [
            source(&cell.name, cell.listen[1], &receives),
            channel(&cell.name, ""),
            sink(&cell.name, cell.listen[2], cell.batch, &sends),
        ]
        .concat()
    };
    let parts: Vec<_> = cells.iter().map(parts).collect();
    let mut levada = Agent::new(folder.path(), "levada", &parts.concat())?;
    receiver.start()?;
    sender.start()?;
    levada.start()?;
    levada.ready().await?;
    receiver.ready().await?;
    sender.ready().await?;
    feed(&cells).await?;
    let arrived = all_arrived(&cells, |cell| read_containers(&output(cell))).await?;
    let path = format!(
        "Flume {} -> Levada -> Flume {}",
        first.version, last.version
    );
    judge(&path, &cells, &arrived)?;
    assert!(levada.stop().await?.success(), "{}", levada.tail());
    books(&levada, &cells).await
}

/// Levada -> Flume -> Levada, with Flume's file channel.
async fn around(version: Version) -> Result<()> {
    let Some(flume) = flume(version)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let cells = cells()?;
    let output = |cell: &Cell| -> PathBuf { folder.path().join("output").join(&cell.name) };
    let certificates = Certificates::make(folder.path()).await?;
    let parts = |cell: &Cell| {
        let sends = cell.wire.levada_sink(version, &certificates);
        [
            source(&cell.name, cell.listen[0], ""),
            channel(&cell.name, ""),
            sink(&cell.name, cell.listen[1], cell.batch, &sends),
        ]
        .concat()
    };
    let parts: Vec<_> = cells.iter().map(parts).collect();
    let mut sender = Agent::new(folder.path(), "sender", &parts.concat())?;
    let flows: Vec<_> = cells
        .iter()
        .map(|cell| FlumeFlow {
            name: cell.name.clone(),
            listen: cell.listen[1],
            wire: cell.wire,
            channel: FlumeChannel::File(folder.path().join("channels").join(&cell.name)),
            batch: cell.batch,
            sinks: 1,
            sink: FlumeSink::Avro {
                to: cell.listen[2],
                wire: cell.wire,
            },
        })
        .collect();
    let mut between = FlumeAgent::new(&flume, folder.path(), "between", &flows)?;
    let parts = |cell: &Cell| {
        let receives = cell.wire.levada_source(version, &certificates);
        [
            source(&cell.name, cell.listen[2], &receives),
            channel(&cell.name, ""),
            files(&cell.name, &output(cell)),
        ]
        .concat()
    };
    let parts: Vec<_> = cells.iter().map(parts).collect();
    let mut receiver = Agent::new(folder.path(), "receiver", &parts.concat())?;
    between.start()?;
    receiver.start()?;
    sender.start()?;
    receiver.ready().await?;
    sender.ready().await?;
    between.ready().await?;
    feed(&cells).await?;
    let arrived = all_arrived(&cells, |cell| read_json(&output(cell))).await?;
    judge(
        &format!("Levada -> Flume {version} -> Levada"),
        &cells,
        &arrived,
    )?;
    for agent in [&mut sender, &mut receiver] {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        books(agent, &cells).await?;
    }
    Ok(())
}

async fn feed(cells: &[Cell]) -> Result<()> {
    for cell in cells {
        let mut feeder = Feeder::to(cell.listen[0]);
        feeder.feed(&cell.events, cell.batch).await?;
        assert_eq!(feeder.repeated, 0, "{} was refused", cell.name);
    }
    Ok(())
}

/// Waits until as many events arrived in every cell as were sent, and gives them.
async fn all_arrived(
    cells: &[Cell],
    read: impl Fn(&Cell) -> Result<Vec<Record>>,
) -> Result<Vec<Vec<Record>>> {
    let mut arrived = Vec::new();
    for cell in cells {
        let what = format!("everything of {} arrived", cell.name);
        let events = wait::until(&what, WITHIN, || {
            let events = read(cell);
            async move { Ok(Some(events?).filter(|events| events.len() >= cell.events.len())) }
        });
        arrived.push(events.await?);
    }
    Ok(arrived)
}

fn judge(path: &str, cells: &[Cell], arrived: &[Vec<Record>]) -> Result<()> {
    for (cell, arrived) in cells.iter().zip(arrived) {
        let compared = Compared::of(&cell.events, arrived);
        println!("{path}, {}: {compared:?}", cell.name);
        Row::new("matrix", path, (cell.wire.name(), cell.batch), &compared).save()?;
        assert!(compared.is_same(), "{path}, {}: {compared:?}", cell.name);
    }
    Ok(())
}

/// The agent's own books, after it ended.
async fn books(agent: &Agent, cells: &[Cell]) -> Result<()> {
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    for cell in cells {
        let sent = cell.events.len() as u64;
        let source = format!("sources.{}", cell.name);
        let channel = format!("channels.{}", cell.name);
        assert_eq!(audit.count(&source, "accepted"), Some(sent), "{source}");
        assert_eq!(audit.count(&channel, "delivered"), Some(sent), "{channel}");
    }
    Ok(())
}
