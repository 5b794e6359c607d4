//! E1 to E3 and W4: the whole agent between two sockets, on one core of its own.
//!
//! This program sends, receives and counts on the other cores. What it receives it does not
//! validate: the receiver must not be what is measured.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use levada_core::{Batch, avro};
use levada_rpc::{
    Meta, Method, Status,
    call::{self, CallHead, Greeting},
    codec,
    frame::{self, Decoder},
    handshake::{self, HandshakeRequest},
    message::Reader,
};
use levada_tests::{agent::Agent, place};
use tokio::runtime::Runtime;

use crate::{
    harness::{Bench, Samples, percentile_us},
    limits::{self, RawOverwrite},
    load::{self, Body},
    machine,
    report::{Report, Target},
};

/// Takes events from an agent, says OK, and counts them.
struct Receiver {
    address: SocketAddr,
    events: Arc<AtomicU64>,
}

impl Receiver {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let events = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&events);
        // The threads end with their connections, the listener with the program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || serve(stream, &counter));
            }
        });
        Ok(Self { address, events })
    }

    fn wait_for(&self, events: u64) -> Result<()> {
        let begin = Instant::now();
        while self.events.load(Ordering::Relaxed) < events {
            ensure!(
                begin.elapsed() < Duration::from_secs(120),
                "events do not arrive"
            );
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// One connection of an agent's sink, until it ends.
fn serve(mut stream: TcpStream, counter: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut decoder = Decoder::new(64 << 20);
    let mut buffer = vec![0; 1 << 18];
    let mut greeted = false;
    let mut out = Vec::new();
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let mut input = &buffer[..count];
        while let Some(frame) = decoder.decode(&mut input)? {
            let mut reader = Reader::new(&frame.message, 0);
            let meta = Meta::new();
            let greeting = if greeted {
                None
            } else {
                let matched = HandshakeRequest::read(&mut reader)?.answer();
                Some(Greeting {
                    matched,
                    meta: &meta,
                })
            };
            greeted = true;
            let head = CallHead::read(&mut reader)?;
            out.clear();
            if head.method == Ok(Method::Ping) {
                call::write_bare_reply(&mut out, frame.serial, greeting);
            } else {
                call::write_reply(&mut out, frame.serial, greeting, &meta, Ok(Status::Ok));
            }
            stream.write_all(&out)?;
            let mut at = head.params_at;
            let events = match head.method {
                Ok(Method::AppendBatch) => avro::read_long(&frame.message, &mut at)?,
                Ok(Method::Append) => 1,
                _ => 0,
            };
            counter.fetch_add(events.unsigned_abs(), Ordering::Relaxed);
        }
    }
}

/// A connection to an agent's source, with one prepared call.
struct Sender {
    stream: TcpStream,
    call: Vec<u8>,
    answer: Decoder,
}

impl Sender {
    fn connect(to: SocketAddr, batch: &Batch) -> Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let call = framed(batch, false);
        let mut sender = Self {
            stream,
            call,
            answer: Decoder::new(1 << 20),
        };
        sender.send(&framed(&batch.slice(0..0), true))?;
        Ok(sender)
    }

    /// Sends a call and waits for its answer.
    fn send(&mut self, call: &[u8]) -> Result<Bytes> {
        self.stream.write_all(call)?;
        let mut buffer = [0; 4096];
        loop {
            let count = self.stream.read(&mut buffer)?;
            ensure!(count > 0, "the agent ended the connection");
            if let Some(frame) = self.answer.decode(&mut &buffer[..count])? {
                return Ok(frame.message);
            }
        }
    }

    /// Sends the prepared call so often; the time of each.
    fn run(&mut self, times: usize) -> Result<Vec<Duration>> {
        let call = std::mem::take(&mut self.call);
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let begin = Instant::now();
            let answer = self.send(&call)?;
            took.push(begin.elapsed());
            ensure!(
                answer[..] == [0, 0, 0],
                "the agent refused a batch: {answer:?}"
            );
        }
        self.call = call;
        Ok(took)
    }
}

fn framed(batch: &Batch, greet: bool) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_head(&mut out, 1, 1);
    frame::write_buffer(&mut out, |out| {
        if greet {
            handshake::write_request(out, None, &Meta::new());
        }
        CallHead::write(out, &Meta::new(), Method::AppendBatch);
        codec::write_events(out, Method::AppendBatch, batch);
    });
    out
}

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
        let before = self.receiver.events.load(Ordering::Relaxed);
        let senders: Result<Vec<_>> = (0..connections)
            .map(|_| Sender::connect(self.source, batch))
            .collect();
        let each = batches / connections;
        let events = (each * connections * batch.len()) as u64;
        let used = machine::processor_time(self.pid)?;
        let begin = Instant::now();
        let threads: Vec<_> = senders?
            .into_iter()
            .map(|mut sender| thread::spawn(move || sender.run(each)))
            .collect();
        let mut acks = Vec::new();
        for thread in threads {
            acks.extend(thread.join().ok().context("a sender ended badly")??);
        }
        self.receiver.wait_for(before + events)?;
        let took = begin.elapsed();
        let used = machine::processor_time(self.pid)?.saturating_sub(used);
        let events = events as f64;
        Ok(Ran {
            rate: events / took.as_secs_f64(),
            processor_us: used.as_secs_f64() * 1e6 / events,
            acks,
        })
    }

    fn stop(mut self, runtime: &Runtime) -> Result<()> {
        runtime.block_on(self.agent.stop()).map(|_| ())
    }
}

struct Ran {
    /// Events a second, from the first call to the last event out.
    rate: f64,
    /// Processor time of the agent, an event.
    processor_us: f64,
    acks: Vec<Duration>,
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
