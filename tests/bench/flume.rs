//! E4: the same load through Apache Flume 1.11 with its file channel and through Levada with its
//! durable channel. Both acknowledge after a sync; both have four clients and four connections out,
//! each with a thousand events at most; neither is pinned.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use levada_core::Batch;
use levada_tests::{
    agent::Agent,
    flume::{Flume, FlumeAgent, FlumeChannel, FlumeFlow, FlumeSink, Machine, Version, Wire},
    place,
};
use tokio::runtime::Runtime;

use crate::{
    ends::{self, Ran, Receiver},
    harness::{Bench, Samples, percentile_us},
    load::{self, Body},
    machine,
    report::{Report, Target, say},
    volume::Volume,
};

/// Events of a call, calls of a round, and calls that warm both up before the first.
const LOADS: [(usize, usize, usize); 3] = [(1000, 400, 400), (100, 3000, 2000), (1, 12_000, 4000)];

/// Clients, and connections out.
const CONNECTIONS: usize = 4;

/// The events that leave at once.
const SINK_BATCH: usize = 1000;

/// One of the two.
struct Side {
    agent: Program,
    source: SocketAddr,
    receiver: Receiver,
    pid: u32,
}

enum Program {
    Flume(FlumeAgent),
    Levada(Agent),
}

impl Side {
    fn flume(flume: &Flume, folder: &Path, runtime: &Runtime) -> Result<Self> {
        let receiver = Receiver::start()?;
        let source = place::free_address()?;
        let flow = FlumeFlow {
            name: "main".into(),
            listen: source,
            wire: Wire::Plain,
            channel: FlumeChannel::File(folder.join("flume-channel")),
            batch: SINK_BATCH,
            sinks: CONNECTIONS,
            sink: FlumeSink::Avro {
                to: receiver.address,
                wire: Wire::Plain,
            },
        };
        let mut agent = FlumeAgent::new(flume, folder, "flume", &[flow])?;
        agent.machine = Machine::Usual;
        runtime.block_on(async {
            agent.start()?;
            agent.ready().await
        })?;
        let pid = agent.id().context("Flume runs")?;
        Ok(Self {
            agent: Program::Flume(agent),
            source,
            receiver,
            pid,
        })
    }

    fn levada(folder: &Path, runtime: &Runtime) -> Result<Self> {
        let receiver = Receiver::start()?;
        let source = place::free_address()?;
        let parts = format!(
            "[sources.main]\ntype = \"avro\"\nlisten = \"{source}\"\nchannels = [\"main\"]\n\n\
             [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
             [sinks.main]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{}\"\n\
             connections = {CONNECTIONS}\n\
             batch = {{ events = {SINK_BATCH}, bytes = \"1MiB\", wait = \"1ms\" }}\n",
            receiver.address
        );
        let mut agent = Agent::new(folder, "levada", &parts)?;
        runtime.block_on(async {
            agent.start()?;
            agent.ready().await.map(|_| ())
        })?;
        let pid = agent.pid().context("the agent runs")?;
        Ok(Self {
            agent: Program::Levada(agent),
            source,
            receiver,
            pid,
        })
    }

    fn run(&self, batch: &Batch, batches: usize) -> Result<Ran> {
        let load = (CONNECTIONS, batches);
        ends::run((self.source, self.pid), &self.receiver, batch, load)
    }

    fn stop(self, runtime: &Runtime) -> Result<()> {
        match self.agent {
            Program::Flume(mut agent) => runtime.block_on(agent.stop()).map(|_| ()),
            Program::Levada(mut agent) => runtime.block_on(agent.stop()).map(|_| ()),
        }
    }
}

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let jars = Flume::find(Version::V1_11)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let flume = Side::flume(&jars, bench.dir.path(), &runtime)?;
    let levada = Side::levada(bench.dir.path(), &runtime)?;
    for load in LOADS {
        compare(bench, report, (&levada, &flume), load)?;
    }
    let resident = |side: &Side| machine::resident_mib(side.pid).map(Samples::one);
    report.beside(
        "E4",
        "resident memory after all of this",
        "MiB",
        &resident(&levada)?,
        ("Flume, -Xmx512m,", &resident(&flume)?),
    );
    levada.stop(&runtime)?;
    flume.stop(&runtime)?;
    device_bytes(bench, report, &jars, &runtime)?;
    say(
        "what is unfair: Flume reads every event into objects, which its interceptors would need; \
         its sinks sleep for up to 5 s when its channel was empty, which is in its events a second \
         and in no other row; both ends of the load are Levada's own code",
    );
    Ok(())
}

/// One size of batch: rate, processor time, acknowledgements.
fn compare(
    bench: &Bench,
    report: &mut Report,
    (levada, flume): (&Side, &Side),
    (events, batches, warm): (usize, usize, usize),
) -> Result<()> {
    let batch = load::batch(events, Body::Text);
    flume.run(&batch, warm)?;
    levada.run(&batch, warm)?;
    let mut ran = [Vec::new(), Vec::new()];
    let [ours, theirs] = &mut ran;
    let once = |side: &Side, all: &mut Vec<Ran>| {
        let ran = side.run(&batch, batches)?;
        let rate = ran.rate;
        all.push(ran);
        anyhow::Ok(rate)
    };
    let rates = bench.interleave(
        &format!("against Flume, batch {events}"),
        &mut [
            ("Flume", &mut || once(flume, theirs)),
            ("Levada", &mut || once(levada, ours)),
        ],
    )?;
    let [mut ours, mut theirs] = ran;
    let used = |all: &[Ran]| Samples(all.iter().map(|ran| ran.processor_us).collect());
    let (our_time, their_time) = (used(&ours), used(&theirs));
    let per_second = |time: &Samples| time.map(|us| 1e6 / us);
    let name = format!("batch {events} x {CONNECTIONS}");
    report.against(
        "E4",
        &format!("events a processor second, {name}"),
        "ev/s",
        &per_second(&our_time),
        ("Flume", &per_second(&their_time)),
        Target::RatioAtLeast(20.0),
    );
    let mut beside = |what: &str, unit: &str, ours: &Samples, theirs: &Samples| {
        report.beside(
            "E4",
            &format!("{what}, {name}"),
            unit,
            ours,
            ("Flume", theirs),
        );
    };
    beside("processor time", "us/ev", &our_time, &their_time);
    beside("events a second", "ev/s", &rates[1], &rates[0]);
    for percent in [50, 99] {
        let acks = |all: &mut [Ran]| {
            let each = all
                .iter_mut()
                .map(|ran| percentile_us(&mut ran.acks, percent));
            Samples(each.collect())
        };
        let what = format!("ack p{percent}");
        beside(&what, "us", &acks(&mut ours), &acks(&mut theirs));
    }
    Ok(())
}

/// What each writes to its disk for an event: on file systems of their own, whose devices count.
fn device_bytes(bench: &Bench, report: &mut Report, jars: &Flume, runtime: &Runtime) -> Result<()> {
    let mount = |name| Volume::mount(bench.dir.path(), name);
    let (ours, theirs) = match (mount("levada-disk"), mount("flume-disk")) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(error), _) | (_, Err(error)) => {
            say(&format!(
                "not measured: device bytes, which need root: {error:#}"
            ));
            return Ok(());
        }
    };
    let levada = Side::levada(&ours.folder, runtime)?;
    let flume = Side::flume(jars, &theirs.folder, runtime)?;
    for (events, batches, _) in LOADS {
        let batch = load::batch(events, Body::Text);
        let each = |side: &Side, volume: &Volume| {
            let before = volume.written()?;
            side.run(&batch, batches)?;
            let bytes = volume.written()? - before;
            anyhow::Ok(Samples::one(bytes as f64 / (events * batches) as f64))
        };
        report.beside(
            "E4",
            &format!("device bytes, batch {events} x {CONNECTIONS}"),
            "B/ev",
            &each(&levada, &ours)?,
            ("Flume", &each(&flume, &theirs)?),
        );
    }
    levada.stop(runtime)?;
    flume.stop(runtime)
}
