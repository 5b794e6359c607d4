//! Runs the simulations for as long as one wants: losses of power and errors of the disk under one
//! store, bits that change in its file, and agents that send to each other over a network that lies.
//!
//! A seed that finds something is printed with the command that replays it. With `--save` the
//! totals are added to those of earlier runs, and the next run goes on with the seeds after them.
#![expect(clippy::print_stdout, reason = "the report is its purpose")]

mod kinds;
mod search;
mod story;
mod summary;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use levada_tests::sim::{
    cuts::{self, Faults},
    hops,
};

use kinds::{Cuts, Flips, Hops};
use search::Goal;

/// Looks for what a disk and a network that lie can do.
#[derive(Debug, Parser)]
#[command(name = "chaos", bin_name = "cargo x chaos", max_term_width = 100)]
struct Arguments {
    /// At least so many losses of power under one store.
    #[arg(long, default_value_t = 3000)]
    cuts: u64,
    /// Lets operations of the disk fail, too: errors of the device and lacks of space.
    #[arg(long)]
    faults: bool,
    /// Runs this seed of losses of power alone, and shows all that was found.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds of three tiers over a network that lies, and nothing else.
    #[arg(long)]
    hops: Option<u64>,
    /// Runs this seed of three tiers alone, and tells its story.
    #[arg(long)]
    hop_seed: Option<u64>,
    /// So many single bits that change in the closed files of stores, and nothing else.
    #[arg(long)]
    flips: Option<u64>,
    /// Runs this seed of bits that change alone.
    #[arg(long)]
    flip_seed: Option<u64>,
    /// The first seed; without it, the one after those that were saved.
    #[arg(long)]
    from: Option<u64>,
    /// Adds what was done to `tests/bench/results/chaos.json`.
    #[arg(long)]
    save: bool,
}

impl Arguments {
    fn cuts(&self) -> Cuts {
        let faults = if self.faults {
            Faults::Planned
        } else {
            Faults::None
        };
        Cuts(cuts::Plan {
            faults,
            ..cuts::Plan::default()
        })
    }

    fn goal(&self, least: u64) -> Goal {
        Goal {
            least,
            from: self.from,
            saves: self.save,
        }
    }

    fn run(&self) -> Result<bool> {
        let hops = Hops(hops::Plan::default());
        if let Some(seed) = self.hop_seed {
            return Ok(search::replay(&hops, seed));
        }
        if let Some(least) = self.hops {
            return search::search(&hops, self.goal(least));
        }
        if let Some(seed) = self.flip_seed {
            return Ok(search::replay(&Flips, seed));
        }
        if let Some(least) = self.flips {
            return search::search(&Flips, self.goal(least));
        }
        match self.seed {
            Some(seed) => Ok(search::replay(&self.cuts(), seed)),
            None => search::search(&self.cuts(), self.goal(self.cuts)),
        }
    }
}

fn main() -> Result<ExitCode> {
    let clean = Arguments::parse().run()?;
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
