//! Sink groups between real agents: an aggregator that dies, one that stands by, and one that is
//! back.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use levada_tests::{agent::Agent, numbers, place, wait};

const WITHIN: Duration = Duration::from_secs(60);

/// Events of one run.
const TOTAL: u64 = 20_000;

/// An edge that makes numbered events, and the two aggregators of its group.
struct Pair {
    edge: Agent,
    aggregators: [Agent; 2],
    folder: tempfile::TempDir,
}

impl Pair {
    async fn start(group: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = [place::free_address()?, place::free_address()?];
        let mut edge = Agent::new(folder.path(), "edge", &edge(at, group))?;
        let aggregator = |n: usize| {
            let output = folder.path().join("output").join(n.to_string());
            Agent::new(
                folder.path(),
                &format!("agg{n}"),
                &aggregator(at[n], &output),
            )
        };
        let mut aggregators = [aggregator(0)?, aggregator(1)?];
        for agent in &mut aggregators {
            agent.start()?;
            agent.ready().await?;
        }
        edge.start()?;
        edge.ready().await?;
        Ok(Self {
            edge,
            aggregators,
            folder,
        })
    }

    /// Waits until a sink of the edge has delivered more than `events`.
    async fn delivered(&self, sink: &str, events: f64) -> Result<f64> {
        let label = format!("part=\"{sink}\"");
        let name = "levada_sink_delivered_events_total";
        self.edge
            .metric_until(name, &label, WITHIN, |count| count > events)
            .await
    }

    /// Waits until every number lies in a file; stops everything; the books must balance.
    async fn finish(mut self) -> Result<()> {
        let output = self.folder.path().join("output");
        wait::until("every number is in a file", WITHIN, || async {
            Ok((numbers::distinct(&output)? == TOTAL).then_some(()))
        })
        .await?;
        for agent in std::iter::once(&mut self.edge).chain(&mut self.aggregators) {
            assert!(agent.stop().await?.success(), "{}", agent.tail());
            let audit = agent.audit().await?;
            assert!(audit.holds, "{audit:#?}");
        }
        Ok(())
    }
}

fn edge(to: [SocketAddr; 2], group: &str) -> String {
    let sinks = [("up", to[0]), ("up2", to[1])].map(|(name, to)| {
        format!(
            "[sinks.{name}]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{to}\"\n\
             batch = {{ events = 100, wait = \"1ms\" }}\n"
        )
    });
    format!(
        "[sources.numbers]\ntype = \"seq\"\ntotal = {TOTAL}\nrate = 5000\nbatch-size = 100\n\
         channels = [\"main\"]\n\n[channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
         {}\n[groups.uplink]\nsinks = [\"up\", \"up2\"]\n{group}\n",
        sinks.join("\n")
    )
}

fn aggregator(at: SocketAddr, output: &Path) -> String {
    format!(
        "[sources.edges]\ntype = \"avro\"\nlisten = \"{at}\"\nchannels = [\"main\"]\n\n\
         [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
         [sinks.files]\ntype = \"file-roll\"\nchannel = \"main\"\ndirectory = {:?}\n\
         format = \"json\"\n",
        output.display().to_string()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_goes_to_the_second_aggregator_and_comes_back_with_nothing_lost() -> Result<()> {
    let mut pair = Pair::start("policy = \"failover\"\npriorities = { up = 2, up2 = 1 }").await?;
    pair.delivered("sinks.up", 1000.0).await?;
    assert_eq!(
        pair.edge
            .metric("levada_sink_delivered_events_total", "part=\"sinks.up2\"")
            .await?,
        0.0,
        "the second stands by"
    );
    pair.aggregators[0].kill().await?;
    pair.delivered("sinks.up2", 1000.0).await?;
    let before = pair.delivered("sinks.up", 0.0).await?;
    pair.aggregators[0].start()?;
    pair.aggregators[0].ready().await?;
    pair.delivered("sinks.up", before).await?;
    pair.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_feeds_both_aggregators_and_loses_nothing_when_one_dies() -> Result<()> {
    let mut pair = Pair::start("policy = \"round-robin\"\nmax-penalty = \"4s\"").await?;
    pair.delivered("sinks.up", 500.0).await?;
    pair.delivered("sinks.up2", 500.0).await?;
    pair.aggregators[1].kill().await?;
    let before = pair.delivered("sinks.up", 0.0).await?;
    pair.delivered("sinks.up", before + 500.0).await?;
    pair.aggregators[1].start()?;
    pair.aggregators[1].ready().await?;
    pair.finish().await
}
