//! What there is to simulate, each kind by its seeds.

use levada_tests::sim::{
    cuts::{self, Faults},
    flips, hops,
    totals::{FlipTotals, HopTotals, Totals},
};
use serde::Serialize;

use crate::{
    story,
    summary::{Account, Summary},
};

/// What one seed, or many, came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome<T> {
    pub(crate) totals: T,
    pub(crate) finding: Option<String>,
    /// Equal for equal runs.
    pub(crate) trace: u64,
}

/// One kind of simulation.
pub(crate) trait Kind: Sync {
    type Totals: Default + Serialize + Send + PartialEq;
    /// What is counted towards the goal.
    const UNIT: &'static str;
    /// How many of those a seed makes, about.
    const PER_SEED: u64;

    fn run(&self, seed: u64) -> Outcome<Self::Totals>;
    /// The same, with its story if it has one.
    fn tell(&self, seed: u64) -> Outcome<Self::Totals> {
        self.run(seed)
    }
    fn add(to: &mut Self::Totals, other: &Self::Totals);
    /// How far this goes towards the goal.
    fn done(totals: &Self::Totals) -> u64;
    fn findings(totals: &Self::Totals) -> u64;
    /// What replays a seed.
    fn replay(&self, seed: u64) -> String;
    fn account<'a>(&self, summary: &'a mut Summary) -> &'a mut Account<Self::Totals>;
}

/// Losses of power under one store.
#[derive(Debug)]
pub(crate) struct Cuts(pub(crate) cuts::Plan);

impl Kind for Cuts {
    type Totals = Totals;
    const UNIT: &'static str = "cuts";
    const PER_SEED: u64 = 6;

    fn run(&self, seed: u64) -> Outcome<Totals> {
        let report = cuts::run(seed, &self.0);
        Outcome {
            totals: report.totals,
            finding: report.finding.map(|finding| finding.to_string()),
            trace: report.trace,
        }
    }

    fn add(to: &mut Totals, other: &Totals) {
        to.add(other);
    }

    fn done(totals: &Totals) -> u64 {
        totals.cuts
    }

    fn findings(totals: &Totals) -> u64 {
        totals.findings
    }

    fn replay(&self, seed: u64) -> String {
        let faults = match self.0.faults {
            Faults::None => "",
            Faults::Planned => " --faults",
        };
        format!("cargo x chaos --seed {seed}{faults}")
    }

    fn account<'a>(&self, summary: &'a mut Summary) -> &'a mut Account<Totals> {
        match self.0.faults {
            Faults::None => &mut summary.cuts,
            Faults::Planned => &mut summary.faults,
        }
    }
}

/// Agents that send to each other over a network that lies.
#[derive(Debug)]
pub(crate) struct Hops(pub(crate) hops::Plan);

impl Kind for Hops {
    type Totals = HopTotals;
    const UNIT: &'static str = "seeds";
    const PER_SEED: u64 = 1;

    fn run(&self, seed: u64) -> Outcome<HopTotals> {
        let report = hops::run(seed, &self.0);
        Outcome {
            totals: report.totals,
            finding: report.finding.map(|finding| finding.to_string()),
            trace: report.trace,
        }
    }

    fn tell(&self, seed: u64) -> Outcome<HopTotals> {
        story::tell(|| self.run(seed))
    }

    fn add(to: &mut HopTotals, other: &HopTotals) {
        to.add(other);
    }

    fn done(totals: &HopTotals) -> u64 {
        totals.seeds
    }

    fn findings(totals: &HopTotals) -> u64 {
        totals.findings
    }

    fn replay(&self, seed: u64) -> String {
        format!("cargo x chaos --hop-seed {seed}")
    }

    fn account<'a>(&self, summary: &'a mut Summary) -> &'a mut Account<HopTotals> {
        &mut summary.hops
    }
}

/// Bits that change in the closed file of a store.
#[derive(Debug)]
pub(crate) struct Flips;

impl Kind for Flips {
    type Totals = FlipTotals;
    const UNIT: &'static str = "flips";
    const PER_SEED: u64 = flips::FLIPS;

    fn run(&self, seed: u64) -> Outcome<FlipTotals> {
        let report = flips::run(seed);
        Outcome {
            totals: report.totals,
            finding: report.finding,
            trace: 0,
        }
    }

    fn add(to: &mut FlipTotals, other: &FlipTotals) {
        to.add(other);
    }

    fn done(totals: &FlipTotals) -> u64 {
        totals.flips
    }

    fn findings(totals: &FlipTotals) -> u64 {
        totals.findings
    }

    fn replay(&self, seed: u64) -> String {
        format!("cargo x chaos --flip-seed {seed}")
    }

    fn account<'a>(&self, summary: &'a mut Summary) -> &'a mut Account<FlipTotals> {
        &mut summary.flips
    }
}
