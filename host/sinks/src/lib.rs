//! The native ways out of an agent, one file each.
//!
//! A sink is handed a batch and says what became of it; it never sees a channel. What a sink knows
//! about its own progress it gives back as marks, which are committed with the settlement. Each
//! sink lists its settings once, as `Params`; adding one touches its own file and [`kinds`].

mod avro;
mod file_roll;
mod logger;
mod null;

#[cfg(test)]
mod fake_hop;

use std::sync::Arc;

use levada_core::{Chance, Clock, SinkKind};
use levada_net::Transport;
use levada_telemetry::Registry;

/// What sinks share of their agent.
#[derive(Debug, Clone)]
pub struct Deps {
    pub transport: Arc<dyn Transport>,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
    pub chance: Chance,
    /// The agent's name.
    pub agent: String,
}

/// Every type of sink in this crate.
#[must_use]
pub fn kinds(deps: &Deps) -> Vec<SinkKind> {
    let mut kinds = vec![
        SinkKind::of(file_roll::Factory::new(deps)),
        SinkKind::of(logger::Factory),
        SinkKind::of(null::Factory::new(deps)),
    ];
    kinds.extend(avro::kinds(deps));
    kinds
}
