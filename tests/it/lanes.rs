//! Channels that are divided by a key, between real agents: several connections, each in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::Chance;
use levada_tests::{
    agent::Agent,
    outputs::{self, Line},
    place, wait,
};

const WITHIN: Duration = Duration::from_secs(90);

/// How many devices there are, and how many events each has.
const DEVICES: u64 = 8;
const EACH: u64 = 5_000;

/// How often an agent is killed.
const KILLS: u64 = 12;

const LANES: &str = "lanes = { count = 4, key = \"device\" }";

/// An agent that makes the events of all devices.
fn edge(sinks: &str) -> String {
    let device = |n| {
        format!(
            "[sources.d{n}]\ntype = \"seq\"\ntotal = {EACH}\nrate = 700\nbatch-size = 25\n\
             headers = {{ device = \"device-{n}\" }}\nchannels = [\"main\"]\n\n"
        )
    };
    let devices: String = (0..DEVICES).map(device).collect();
    format!(
        "{devices}[channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n{LANES}\n\n{sinks}"
    )
}

fn sink(name: &str, to: SocketAddr) -> String {
    format!(
        "[sinks.{name}]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{to}\"\n\
         batch = {{ events = 70, wait = \"1ms\" }}\n\n"
    )
}

fn aggregator(at: SocketAddr, output: &Path) -> String {
    format!(
        "[sources.edges]\ntype = \"avro\"\nlisten = \"{at}\"\ntrust-plaintext = true\n\
         channels = [\"main\"]\n\n\
         [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n{LANES}\n\n\
         [sinks.files]\ntype = \"file-roll\"\nchannel = \"main\"\nformat = \"json\"\n\
         directory = {:?}\n",
        output.display().to_string()
    )
}

/// The numbers of every device, in the order in which they lie in the files.
fn numbers(output: &Path) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    if !output.is_dir() {
        return Ok(found);
    }
    for path in outputs::files(output)? {
        // A file may get its final name between listing and reading; it is read next time.
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines();
        for line in lines.filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let device = line.headers.get("device").context("a device")?;
            let number = line.body.parse()?;
            found.entry(device.clone()).or_default().push(number);
        }
    }
    Ok(found)
}

/// Waits until every event lies in a file.
async fn all_arrived(outputs: &[&Path]) -> Result<()> {
    wait::until("every event is in a file", WITHIN, || async {
        let mut distinct = BTreeSet::new();
        for output in outputs {
            for (device, numbers) in numbers(output)? {
                distinct.extend(numbers.into_iter().map(|n| (device.clone(), n)));
            }
        }
        Ok((distinct.len() as u64 == DEVICES * EACH).then_some(()))
    })
    .await
}

async fn stop(agents: &mut [Agent]) -> Result<()> {
    for agent in agents {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        let audit = agent.audit().await?;
        assert!(audit.holds, "`{}`: {audit:#?}", agent.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_of_killed_agents_arrive_once_and_each_key_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (at, output) = (place::free_address()?, folder.path().join("output"));
    let mut agents = [
        Agent::new(folder.path(), "aggregator", &aggregator(at, &output))?,
        Agent::new(folder.path(), "edge", &edge(&sink("up", at)))?,
    ];
    for agent in &mut agents {
        agent.start()?;
        agent.ready().await?;
    }
    let chance = Chance::seeded(7);
    for _ in 0..KILLS {
        tokio::time::sleep(chance.jitter(Duration::from_millis(700))).await;
        let agent = &mut agents[usize::try_from(chance.below(2))?];
        agent.kill().await?;
        agent.start()?;
        agent.ready().await?;
    }
    all_arrived(&[&output]).await?;
    let sessions = agents[0].metric("levada_avro_connections", "").await?;
    let repeats = agents[0]
        .metric("levada_hop_repeated_events_total", "")
        .await?;
    stop(&mut agents).await?;
    let expected: Vec<_> = (0..EACH).collect();
    for (device, numbers) in numbers(&output)? {
        assert!(numbers == expected, "{device}: {} numbers", numbers.len());
    }
    println!(
        "{KILLS} kills, {sessions} connections, {repeats} repeats since the last were cut off"
    );
    assert!(sessions > 1.0, "one connection for each lane");
    Ok(())
}

/// Sinks that share a channel with lanes take turns at each: nothing arrives twice, and each
/// aggregator sees every device in order.
#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_share_lanes_store_everything_once_and_in_order() -> Result<()> {
    let group = "[groups.uplink]\nsinks = [\"up\", \"up2\"]\npolicy = \"round-robin\"\n";
    for group in ["", group] {
        let folder = tempfile::tempdir()?;
        let at = [place::free_address()?, place::free_address()?];
        let output = [0, 1].map(|n| folder.path().join(format!("output-{n}")));
        let sinks = sink("up", at[0]) + &sink("up2", at[1]) + group;
        let mut agents = [
            Agent::new(folder.path(), "one", &aggregator(at[0], &output[0]))?,
            Agent::new(folder.path(), "two", &aggregator(at[1], &output[1]))?,
            Agent::new(folder.path(), "edge", &edge(&sinks))?,
        ];
        for agent in &mut agents {
            agent.start()?;
            agent.ready().await?;
        }
        all_arrived(&[&output[0], &output[1]]).await?;
        stop(&mut agents).await?;
        let mut all = 0;
        for output in &output {
            let found = numbers(output)?;
            let here: usize = found.values().map(Vec::len).sum();
            println!("{here} events at one of two aggregators");
            assert!(here > 100, "the other got nearly all");
            all += here;
            for (device, numbers) in found {
                assert!(numbers.is_sorted_by(|a, b| a < b), "{device}");
            }
        }
        assert_eq!(all as u64, DEVICES * EACH, "stored twice");
    }
    Ok(())
}
