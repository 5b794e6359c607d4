//! `cargo x bench`: every figure beside its yardstick, measured in the same run.
//!
//! The rows and their targets are those of the performance plan: P (store), W (handlers), F
//! (footprint), A (codec), E (end to end). Ratios are what counts; absolute figures move with the
//! machine, so the load average and the disk's own sync times stand beside them.

mod harness;
mod machine;
mod report;

mod codec;
mod ends;
mod flume;
mod handler;
mod hop;
mod idle;
mod limits;
mod link;
mod load;
mod store;
mod volume;
mod zoo;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::{harness::Bench, report::Report};

/// Measures Levada, each figure beside its yardstick from the same run.
#[derive(Debug, Parser)]
#[command(
    name = "cargo x bench",
    bin_name = "cargo x bench",
    max_term_width = 100
)]
struct Arguments {
    /// What to measure; everything, if nothing is named.
    groups: Vec<Group>,
    /// Measures the hop against another program instead of against its own limits.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<Peer>,
    /// Interleaved rounds; the median of them is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where to put the files that are written; a folder on the disk that is to be measured.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Writes the figures to `tests/bench/results/<NAME>.json`; if they are there already, the
    /// difference is printed.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// What the machine can do: disk, memory, loopback.
    Limits,
    /// P1 to P7: durable put and take against raw writes.
    Store,
    /// A1: receiving events against a generic Avro decoder.
    Codec,
    /// W1 to W3, W5, W6: handlers against native code, their forms.
    Handler,
    /// E1 to E3, W4: the whole agent between two sockets; links between two agents, with TLS, zstd
    /// and from far away; a slow disk.
    Hop,
    /// F1 to F3: start, size, memory.
    Idle,
    /// F62 to F78: what hostile handlers cost their neighbours.
    Zoo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// E4: Apache Flume 1.11 with its file channel.
    Flume,
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let done = match &words[..] {
        [_, fill, dir] if fill == store::FILL => store::fill_and_die(dir.as_ref()),
        _ => run(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::begin()?;
    let bench = Bench::new(arguments.rounds, arguments.dir.as_deref())?;
    let wanted = |group| arguments.groups.is_empty() || arguments.groups.contains(&group);
    if wanted(Group::Limits) {
        limits::run(&bench, &mut report)?;
    }
    if wanted(Group::Store) {
        store::run(&bench, &mut report)?;
    }
    if wanted(Group::Codec) {
        codec::run(&bench, &mut report)?;
    }
    if wanted(Group::Handler) {
        handler::run(&bench, &mut report)?;
    }
    if wanted(Group::Hop) {
        match arguments.against {
            None => {
                hop::run(&bench, &mut report)?;
                link::run(&bench, &mut report)?;
                store::slow_disk(&bench, &mut report)?;
            }
            Some(Peer::Flume) => flume::run(&bench, &mut report)?,
        }
    }
    if wanted(Group::Idle) {
        idle::run(&bench, &mut report)?;
    }
    if wanted(Group::Zoo) {
        zoo::run(&bench, &mut report)?;
    }
    report.end(arguments.save.as_deref())
}
