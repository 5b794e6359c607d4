//! What a link between two agents costs: in the clear, with TLS, compressed, and far away.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use levada_core::Batch;
use levada_tests::{agent::Agent, delay::Delay, pki::Pki, place};
use tokio::runtime::Runtime;

use crate::{
    ends::{self, Receiver},
    harness::{Bench, Samples},
    load::{self, Body},
    machine,
    report::Report,
};

/// How far away the far one is.
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// What differs between the links.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    tls: bool,
    zstd: bool,
    far: bool,
    window: usize,
}

const PLAIN: Kind = Kind {
    name: "plain",
    tls: false,
    zstd: false,
    far: false,
    window: 8,
};

const KINDS: [Kind; 6] = [
    PLAIN,
    Kind {
        name: "tls",
        tls: true,
        ..PLAIN
    },
    Kind {
        name: "zstd",
        zstd: true,
        ..PLAIN
    },
    Kind {
        name: "tls-zstd",
        tls: true,
        zstd: true,
        ..PLAIN
    },
    Kind {
        name: "far",
        far: true,
        ..PLAIN
    },
    Kind {
        name: "far-window-1",
        far: true,
        window: 1,
        ..PLAIN
    },
];

/// Two agents, and what is between them.
struct Link {
    edge: Agent,
    aggregator: Agent,
    source: SocketAddr,
    receiver: Receiver,
    pids: [u32; 2],
    _delay: Option<Delay>,
}

impl Link {
    fn start(bench: &Bench, runtime: &Runtime, pki: &Pki, kind: Kind) -> Result<Self> {
        let receiver = Receiver::start()?;
        let (source, middle) = (place::free_address()?, place::free_address()?);
        let delay = match kind.far {
            true => Some(runtime.block_on(Delay::start(middle, ROUND_TRIP))?),
            false => None,
        };
        let to = delay.as_ref().map_or(middle, |delay| delay.listen);
        let secure = |name| {
            if kind.tls {
                pki.tls(name)
            } else {
                String::new()
            }
        };
        let trust = if kind.tls {
            ""
        } else {
            "trust-plaintext = true\n"
        };
        let channel = "[channels.main]\ntype = \"durable\"\ncapacity = \"256MiB\"\n\n";
        let compression = if kind.zstd { "zstd" } else { "none" };
        let edge = format!(
            "[sources.in]\ntype = \"avro\"\nlisten = \"{source}\"\nchannels = [\"main\"]\n\n\
             {channel}[sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{to}\"\n\
             window = {}\ncompression = \"{compression}\"\n{}\n",
            kind.window,
            secure("edge")
        );
        let aggregator = format!(
            "[sources.edges]\ntype = \"avro\"\nlisten = \"{middle}\"\nchannels = [\"main\"]\n\
             compression = \"{compression}\"\n{trust}{}\n\n\
             {channel}[sinks.out]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{}\"\n",
            secure("aggregator"),
            receiver.address
        );
        let below: PathBuf = bench.dir.path().join("link").join(kind.name);
        let mut aggregator = Agent::new(&below, "aggregator", &aggregator)?;
        let mut edge = Agent::new(&below, "edge", &edge)?;
        runtime.block_on(async {
            for agent in [&mut aggregator, &mut edge] {
                agent.start()?;
                agent.ready().await?;
            }
            anyhow::Ok(())
        })?;
        let pid = |agent: &Agent| agent.pid().context("the agent runs");
        Ok(Self {
            pids: [pid(&edge)?, pid(&aggregator)?],
            edge,
            aggregator,
            source,
            receiver,
            _delay: delay,
        })
    }

    /// Events a second through both agents; the processor time of both goes to `used`.
    fn run(&self, batch: &Batch, batches: usize, used: &mut Vec<f64>) -> Result<f64> {
        let before = machine::processor_time(self.pids[1])?;
        let shape = (4, batches);
        let ran = ends::run((self.source, self.pids[0]), &self.receiver, batch, shape)?;
        let above = machine::processor_time(self.pids[1])?.saturating_sub(before);
        let events = (batches * batch.len()) as f64;
        used.push(ran.processor_us + above.as_secs_f64() * 1e6 / events);
        Ok(ran.rate)
    }
}

/// The rows of this group: what each kind of link delivers against the plain one.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let pki = runtime.block_on(async {
        let pki = Pki::new(bench.dir.path(), "pki").await?;
        pki.issue("edge").await?;
        pki.issue("aggregator").await?;
        anyhow::Ok(pki)
    })?;
    let batch = load::batch(1000, Body::Text);
    let links: Result<Vec<_>> = KINDS
        .into_iter()
        .map(|kind| Link::start(bench, &runtime, &pki, kind))
        .collect();
    let links = links?;
    let mut used = vec![Vec::new(); KINDS.len()];
    let mut candidates: Vec<Box<dyn FnMut() -> Result<f64> + '_>> = Vec::new();
    for ((link, kind), used) in links.iter().zip(KINDS).zip(&mut used) {
        // The far ones wait for the road, not for work: fewer batches say the same.
        let batches = if kind.far { 100 } else { 400 };
        let batch = &batch;
        candidates.push(Box::new(move || link.run(batch, batches, used)));
    }
    let mut named: Vec<(&str, &mut dyn FnMut() -> Result<f64>)> = KINDS
        .iter()
        .zip(&mut candidates)
        .map(|(kind, candidate)| (kind.name, &mut **candidate as &mut dyn FnMut() -> _))
        .collect();
    let samples = bench.interleave("link", &mut named)?;
    drop(candidates);
    for (n, kind) in KINDS.iter().enumerate() {
        let what = format!("edge to aggregator, 1000 x 4, {}", what(*kind));
        if n == 0 {
            report.figure("L", &what, "ev/s", &samples[n]);
        } else {
            report.beside("L", &what, "ev/s", &samples[n], ("plain", &samples[0]));
        }
        let what = format!("{}: processor time of both", kind.name);
        report.figure("L", &what, "us/ev", &Samples(used[n].clone()));
    }
    for mut link in links {
        runtime.block_on(async {
            link.edge.stop().await?;
            link.aggregator.stop().await
        })?;
    }
    Ok(())
}

fn what(kind: Kind) -> String {
    let mut words = Vec::new();
    if kind.tls {
        words.push("mutual TLS".to_owned());
    }
    if kind.zstd {
        words.push("zstd".to_owned());
    }
    if kind.far {
        words.push(format!("{} ms round trip", ROUND_TRIP.as_millis()));
        words.push(format!("window {}", kind.window));
    }
    if words.is_empty() {
        words.push("in the clear".to_owned());
    }
    words.join(", ")
}
