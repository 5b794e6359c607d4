//! E1 to E3 and W4: the whole agent between two sockets, on one core of its own. This program sends,
//! receives and counts on the other cores.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use levada_core::Batch;
use levada_tests::{agent::Agent, place};
use tokio::runtime::Runtime;

use crate::{
    ends::{self, Ran, Receiver, Sender},
    harness::{Bench, Samples, percentile_us},
    limits::{self, RawOverwrite},
    load::{self, Body},
    machine,
    report::{Report, Target},
};

/// An agent with one source, one channel, one sink.
pub(crate) struct Hop {
    agent: Agent,
    source: SocketAddr,
    receiver: Receiver,
    pub(crate) pid: u32,
}

impl Hop {
    /// Starts an agent; `handler` names a guest, `channel` is the type of the channel.
    pub(crate) fn start(
        bench: &Bench,
        runtime: &Runtime,
        (name, channel, handler): (&str, &str, Option<&str>),
    ) -> Result<Self> {
        let receiver = Receiver::start()?;
        let source = place::free_address()?;
        let mut parts = format!(
            "[sources.in]\ntype = \"avro\"\nlisten = \"{source}\"\nchannels = [\"main\"]\n{}\n\
             [channels.main]\ntype = \"{channel}\"\ncapacity = \"64MiB\"\n\n\
             [sinks.out]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{}\"\nconnections = 4\n\
             batch = {{ events = 1000, bytes = \"1MiB\", wait = \"1ms\" }}\n",
            handler.map_or("", |_| "interceptors = [\"guest\"]\n"),
            receiver.address
        );
        if let Some(guest) = handler {
            let component = place::guest(guest)?;
            parts += &format!(
                "\n[handlers.guest]\ncomponent = {:?}\n",
                component.display().to_string()
            );
        }
        let mut agent = Agent::new(bench.dir.path(), name, &parts)?;
        runtime.block_on(async {
            agent.start()?;
            agent.ready().await.map(|_| ())
        })?;
        let pid = agent.pid().context("the agent runs")?;
        machine::pin_to_one_core(pid)?;
        Ok(Self {
            agent,
            source,
            receiver,
            pid,
        })
    }

    /// Sends `batches` over `connections` and waits until all events came out.
    fn run(&self, batch: &Batch, connections: usize, batches: usize) -> Result<Ran> {
        ends::run(
            (self.source, self.pid),
            &self.receiver,
            batch,
            (connections, batches),
        )
    }

    fn stop(mut self, runtime: &Runtime) -> Result<()> {
        runtime.block_on(self.agent.stop()).map(|_| ())
    }
}

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let start = |name, channel, handler| Hop::start(bench, &runtime, (name, channel, handler));
    let memory = start("memory", "memory", None)?;
    let plain = start("durable", "durable", None)?;
    let noop = start("durable-noop", "durable", Some("noop"))?;
    let finder = start("durable-find", "durable", Some("find-add"))?;
    throughput(bench, report, [&memory, &plain, &noop, &finder])?;
    latency(bench, report, &plain)?;
    for hop in [memory, plain, noop, finder] {
        hop.stop(&runtime)?;
    }
    Ok(())
}

fn throughput(
    bench: &Bench,
    report: &mut Report,
    [memory, plain, noop, finder]: [&Hop; 4],
) -> Result<()> {
    let (thousand, hundred) = (load::batch(1000, Body::Text), load::batch(100, Body::Text));
    let mut processor = [Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let [first, second, third, fourth, fifth] = &mut processor;
    let once = |hop: &Hop, batch: &Batch, (connections, batches), used: &mut Vec<f64>| {
        let ran = hop.run(batch, connections, batches)?;
        used.push(ran.processor_us);
        anyhow::Ok(ran.rate)
    };
    let (large, small) = ((4, 2000), (16, 8000));
    let samples = bench.interleave(
        "hop",
        &mut [
            ("memory", &mut || once(memory, &thousand, large, first)),
            ("durable", &mut || once(plain, &thousand, large, second)),
            ("durable, no-op handler", &mut || {
                once(noop, &thousand, large, third)
            }),
            ("durable, find and add", &mut || {
                once(finder, &thousand, large, fourth)
            }),
            ("durable, find and add, batch 100", &mut || {
                once(finder, &hundred, small, fifth)
            }),
        ],
    )?;
    let what = "durable hop, 1000 x 4, find-and-add handler";
    let yardstick = ("memory hop", &samples[0]);
    report.against(
        "E1",
        what,
        "ev/s",
        &samples[3],
        yardstick,
        Target::RatioAtLeast(0.30),
    );
    let what = "durable hop, 100 x 16, find-and-add handler";
    report.judged("E2", what, "ev/s", &samples[4], Target::AtLeast(600_000.0));
    let what = "durable hop, 1000 x 4, no-op handler";
    let yardstick = ("without", &samples[1]);
    report.against(
        "W4",
        what,
        "ev/s",
        &samples[2],
        yardstick,
        Target::RatioAtLeast(0.85),
    );
    let names = [
        "memory hop, 1000 x 4",
        "durable hop, 1000 x 4",
        "the same, no-op handler",
        "the same, find-and-add handler",
        "durable hop, 100 x 16, find-and-add handler",
    ];
    for (name, used) in names.iter().zip(processor) {
        report.figure(
            "E",
            &format!("{name}: processor time"),
            "us/ev",
            &Samples(used),
        );
    }
    let resident = machine::resident_mib(finder.pid)?;
    let what = "resident memory at full speed, one handler";
    report.judged(
        "F3",
        what,
        "MiB",
        &Samples::one(resident),
        Target::AtMost(40.0),
    );
    Ok(())
}

/// E3: how long a sender waits for its acknowledgement.
fn latency(bench: &Bench, report: &mut Report, plain: &Hop) -> Result<()> {
    const TIMES: usize = 1000;
    let batch = load::batch(100, Body::Text);
    let mut raw = RawOverwrite::new(bench.dir.path(), batch.bytes())?;
    let samples = bench.interleave(
        "latency",
        &mut [
            ("ack", &mut || {
                Ok(percentile_us(&mut plain.run(&batch, 1, TIMES)?.acks, 99))
            }),
            ("R1 and TCP", &mut || {
                let disk = percentile_us(&mut raw.write(TIMES)?, 99);
                let mut trips = limits::round_trips(batch.bytes(), TIMES)?;
                Ok(disk + percentile_us(&mut trips, 99))
            }),
        ],
    )?;
    let yardstick = ("R1 p99 + TCP p99", &samples[1]);
    let what = "ack p99, batch 100, one connection";
    report.against(
        "E3",
        what,
        "us",
        &samples[0],
        yardstick,
        Target::RatioAtMost(3.0),
    );
    Ok(())
}

/// For other groups: the time from the start of the process to its first acknowledgement.
pub(crate) fn first_ack(bench: &Bench, runtime: &Runtime, round: usize) -> Result<Duration> {
    let name = format!("start-{round}");
    let mut hop = Hop::start(bench, runtime, (&name, "durable", Some("noop")))?;
    // Its code is compiled and cached now; the measured start finds it there.
    runtime.block_on(hop.agent.stop())?;
    let batch = load::batch(1, Body::Text);
    let begin = Instant::now();
    {
        let _runtime = runtime.enter();
        hop.agent.start()?;
    }
    loop {
        if let Ok(mut sender) = Sender::connect(hop.source, &batch) {
            sender.run(1)?;
            break;
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "the agent does not answer"
        );
        thread::sleep(Duration::from_micros(200));
    }
    let took = begin.elapsed();
    hop.stop(runtime)?;
    Ok(took)
}
