//! Three tiers over a network that lies: edges that make events, relays, and a last tier that takes
//! note. Stores, flows, sinks and sources are the product; disks, network and time are simulated.
//!
//! A seed draws the agents, what happens to the links, the connections, the machines and their
//! disks. Then everything heals, and everything that was acknowledged must have arrived: once, but
//! for the kinds of seed in which the delivery contract allows more (D4.6, D4.7).

mod agent;
mod book;
mod forger;
mod moves;
mod net;
mod parts;
mod planted;
mod stream;
mod wiring;
mod world;

use std::{fmt, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use levada_core::Chance;

use super::{cuts::panic_text, totals::HopTotals};
use world::World;

/// What a run is to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// `None` has the seed draw it.
    pub kind: Option<Kind>,
    pub plant: Plant,
    /// How often something happens before everything heals.
    pub moves: u32,
}

impl Default for Plan {
    /// Forty moves of whatever kind.
    fn default() -> Self {
        Self {
            kind: None,
            plant: Plant::Nothing,
            moves: 40,
        }
    }
}

/// What the delivery contract promises beside that nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything is stored once, in order, whatever happens.
    Exact,
    /// Nobody trusts a mark: what was in flight may be stored again.
    Plaintext,
    /// Stores are put back to older copies: what those held may be stored again.
    Restored,
    /// Edges change between two relays: what was in flight may be stored by both.
    Receivers,
}

impl Kind {
    fn draw(chance: &Chance) -> Self {
        match chance.below(10) {
            0..=5 => Self::Exact,
            6 => Self::Plaintext,
            7 | 8 => Self::Restored,
            _ => Self::Receivers,
        }
    }
}

/// A bug that is planted to see whether it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// Receivers acknowledge before their commit.
    EarlyAck,
    /// Receivers write a mark whatever it is by then.
    AnyMark,
    /// Receivers do not look at `prev`.
    NoPrev,
    /// Senders take every mark for one of this life of their store (D4.6).
    NoGuard,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An acknowledged event did not arrive.
    Lost(String),
    /// An event was stored more often than is allowed.
    Twice(String),
    /// The events of one edge lie in another order than it made them.
    Order(String),
    /// Bytes that nobody put there.
    Wrong(String),
    /// An accounting identity does not hold.
    Unbalanced(String),
    /// A store does not open any more.
    Unopenable(String),
    /// Everything has healed, and something does not go on.
    Stuck(String),
    Panicked(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Lost(text) => ("lost", text),
            Self::Twice(text) => ("stored twice", text),
            Self::Order(text) => ("out of order", text),
            Self::Wrong(text) => ("wrong bytes", text),
            Self::Unbalanced(text) => ("an identity does not hold", text),
            Self::Unopenable(text) => ("a store does not open", text),
            Self::Stuck(text) => ("stuck", text),
            Self::Panicked(text) => ("a panic", text),
        };
        write!(f, "{what}: {text}")
    }
}

/// What a seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub totals: HopTotals,
    pub finding: Option<Finding>,
    /// Equal for equal runs.
    pub trace: u64,
}

/// Runs one seed to its end, or to the first finding.
///
/// # Panics
/// If the machine has no runtime or no folder for temporary files.
#[must_use]
pub fn run(seed: u64, plan: &Plan) -> Report {
    in_simulated_time(async {
        let mut world = World::new(seed, *plan);
        let lived = AssertUnwindSafe(world.live()).catch_unwind().await;
        let finding = match lived {
            Ok(lived) => lived.err(),
            Err(panic) => Some(Finding::Panicked(panic_text(&*panic))),
        };
        world.report(seed, finding)
    })
}

/// Runs something in a time that passes when everybody waits.
fn in_simulated_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime
        .expect("the machine has room for a runtime")
        .block_on(work)
}

#[cfg(test)]
mod tests;
