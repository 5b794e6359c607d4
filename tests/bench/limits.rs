//! What the machine can do: the yardsticks of the other groups, and a row for each of them.

use std::{
    fs::{File, OpenOptions},
    hint::black_box,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::{
    harness::{Bench, Samples, percentile_us, rate},
    load::{self, Body},
    report::Report,
};

/// Blocks that a raw write is made of.
const BLOCK: usize = 4096;

/// R1: overwriting a zeroed file in place, past the page cache, each write on disk when it returns.
/// The least that a durable put can cost on this disk.
#[derive(Debug)]
pub(crate) struct RawOverwrite {
    file: File,
    size: u64,
    at: u64,
    /// Holds an aligned run of blocks from `from` on.
    buffer: Vec<u8>,
    from: usize,
    length: usize,
}

const RAW_SIZE: u64 = 64 << 20;

impl RawOverwrite {
    /// Prepares a file for writes of `payload` bytes, rounded up to blocks.
    pub(crate) fn new(dir: &Path, payload: usize) -> Result<Self> {
        let path = dir.join(format!("r1-{payload}"));
        let mut plain = File::create(&path).context("cannot make the file of R1")?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..RAW_SIZE >> 20 {
            plain.write_all(&zeros)?;
        }
        plain.sync_all()?;
        let flags = OFlags::DIRECT | OFlags::DSYNC;
        let flags = i32::try_from(flags.bits()).context("flags of open")?;
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&path)
            .context("cannot open a file past the page cache; choose another disk with --dir")?;
        let length = payload.div_ceil(BLOCK) * BLOCK;
        let mut buffer = vec![0_u8; length + BLOCK];
        let from = buffer.as_ptr().align_offset(BLOCK);
        for (n, byte) in buffer.iter_mut().enumerate() {
            *byte = u8::try_from(n % 251).unwrap_or(0);
        }
        Ok(Self {
            file,
            size: RAW_SIZE,
            at: 0,
            buffer,
            from,
            length,
        })
    }

    /// Writes so often; the time of each write.
    pub(crate) fn write(&mut self, times: usize) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            if self.at + self.length as u64 > self.size {
                self.at = 0;
            }
            let begin = Instant::now();
            self.file
                .write_all_at(&self.buffer[self.from..self.from + self.length], self.at)?;
            took.push(begin.elapsed());
            self.at += self.length as u64;
        }
        Ok(took)
    }
}

/// R3: appending to a file that grows, and `fdatasync`.
#[derive(Debug)]
pub(crate) struct RawAppend {
    path: PathBuf,
    payload: Vec<u8>,
}

impl RawAppend {
    pub(crate) fn new(dir: &Path, payload: usize) -> Self {
        Self {
            path: dir.join(format!("r3-{payload}")),
            payload: vec![0x5a; payload],
        }
    }

    /// Writes so often to a new file; the time of all.
    pub(crate) fn write(&mut self, times: usize) -> Result<Duration> {
        let mut file = File::create(&self.path).context("cannot make the file of R3")?;
        let begin = Instant::now();
        for _ in 0..times {
            file.write_all(&self.payload)?;
            file.sync_data()?;
        }
        Ok(begin.elapsed())
    }
}

/// Messages to and fro over loopback TCP; the time of each round trip.
pub(crate) fn round_trips(message: usize, times: usize) -> Result<Vec<Duration>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let echo = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; message];
        for _ in 0..times {
            stream.read_exact(&mut buffer)?;
            stream.write_all(&[0; 32])?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (payload, mut answer) = (vec![1; message], [0; 32]);
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let begin = Instant::now();
        stream.write_all(&payload)?;
        stream.read_exact(&mut answer)?;
        took.push(begin.elapsed());
    }
    echo.join()
        .ok()
        .context("the echo of the loopback ended badly")??;
    Ok(took)
}

/// Bytes a second over loopback TCP, in one direction.
fn loopback(bytes: usize) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let drain = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; 1 << 18];
        while stream.read(&mut buffer)? > 0 {}
        stream.write_all(&[0])?;
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    let payload = vec![1; 266 << 10];
    let begin = Instant::now();
    for _ in 0..bytes / payload.len() {
        stream.write_all(&payload)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    let took = begin.elapsed();
    drain
        .join()
        .ok()
        .context("the other end of the loopback ended badly")??;
    Ok(rate(bytes as u64, took))
}

/// Bytes a second that one core copies.
fn copying(bytes: usize) -> f64 {
    let from = vec![3_u8; 8 << 20];
    let mut to = vec![0_u8; 8 << 20];
    let begin = Instant::now();
    for _ in 0..bytes / from.len() {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
    rate(bytes as u64, begin.elapsed())
}

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let dir = bench.dir.path();
    for (events, times) in [(1000, 400), (100, 800), (1, 1500)] {
        let bytes = load::batch(events, Body::Text).bytes();
        let mut raw = RawOverwrite::new(dir, bytes)?;
        let mut append = RawAppend::new(dir, bytes);
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        let all = (events * times) as u64;
        let samples = bench.interleave(
            "limits",
            &mut [
                ("R1", &mut || {
                    let mut took = raw.write(times)?;
                    let sum: Duration = took.iter().sum();
                    p50.push(percentile_us(&mut took, 50));
                    p99.push(percentile_us(&mut took, 99));
                    Ok(rate(all, sum))
                }),
                ("R3", &mut || Ok(rate(all, append.write(times)?))),
            ],
        )?;
        let title = |what: &str| format!("{what}, batch {events}");
        report.figure(
            "R1",
            &title("raw overwrite, direct and synchronous"),
            "ev/s",
            &samples[0],
        );
        report.figure("R1", &title("one write, median"), "us", &Samples(p50));
        report.figure(
            "R1",
            &title("one write, 99th percentile"),
            "us",
            &Samples(p99),
        );
        report.figure(
            "R3",
            &title("raw append and fdatasync"),
            "ev/s",
            &samples[1],
        );
    }
    let samples = bench.interleave(
        "limits",
        &mut [
            ("copy", &mut || Ok(copying(2 << 30) / 1e9)),
            ("loopback", &mut || Ok(loopback(1 << 30)? / 1e9)),
        ],
    )?;
    report.figure("-", "copying memory", "GB/s", &samples[0]);
    report.figure(
        "-",
        "TCP over loopback, 266 KiB messages",
        "GB/s",
        &samples[1],
    );
    Ok(())
}
