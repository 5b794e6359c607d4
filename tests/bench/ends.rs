//! The two ends of a hop: what sends to an agent, and what receives from it.
//!
//! What is received is not validated: the receiver must not be what is measured.

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

use crate::machine;

/// Takes events from an agent, says OK, and counts them.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    events: Arc<AtomicU64>,
}

impl Receiver {
    pub(crate) fn start() -> Result<Self> {
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

    pub(crate) fn wait_for(&self, events: u64) -> Result<()> {
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
pub(crate) struct Sender {
    stream: TcpStream,
    call: Vec<u8>,
    answer: Decoder,
}

impl Sender {
    pub(crate) fn connect(to: SocketAddr, batch: &Batch) -> Result<Self> {
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
    pub(crate) fn run(&mut self, times: usize) -> Result<Vec<Duration>> {
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

pub(crate) struct Ran {
    /// Events a second, from the first call to the last event out.
    pub(crate) rate: f64,
    /// Processor time of the agent, an event.
    pub(crate) processor_us: f64,
    pub(crate) acks: Vec<Duration>,
}

/// Sends `batches` over `connections` to the source of an agent and waits until all events came out
/// at the receiver.
pub(crate) fn run(
    (source, pid): (SocketAddr, u32),
    receiver: &Receiver,
    batch: &Batch,
    (connections, batches): (usize, usize),
) -> Result<Ran> {
    let before = receiver.events.load(Ordering::Relaxed);
    let senders: Result<Vec<_>> = (0..connections)
        .map(|_| Sender::connect(source, batch))
        .collect();
    let each = batches / connections;
    let events = (each * connections * batch.len()) as u64;
    let used = machine::processor_time(pid)?;
    let begin = Instant::now();
    let threads: Vec<_> = senders?
        .into_iter()
        .map(|mut sender| thread::spawn(move || sender.run(each)))
        .collect();
    let mut acks = Vec::new();
    for thread in threads {
        acks.extend(thread.join().ok().context("a sender ended badly")??);
    }
    receiver.wait_for(before + events)?;
    let took = begin.elapsed();
    let used = machine::processor_time(pid)?.saturating_sub(used);
    let events = events as f64;
    Ok(Ran {
        rate: events / took.as_secs_f64(),
        processor_us: used.as_secs_f64() * 1e6 / events,
        acks,
    })
}
