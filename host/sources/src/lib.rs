//! The ways into an agent, one file each.
//!
//! A source reads what its peer sends, gives batches to an `Ingest` and acknowledges when the
//! commit is on disk, never before. It never sees a channel. Each source lists its settings once,
//! as `Params`; adding one touches its own file and [`kinds`].

mod avro;
#[cfg(any(feature = "http", feature = "mqtt"))]
#[cfg_attr(
    not(feature = "mqtt"),
    expect(dead_code, reason = "batches by time are made by mqtt only")
)]
mod batching;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "mqtt")]
mod mqtt;
mod seq;

use std::sync::Arc;

use levada_core::{Chance, Clock, SourceKind};
use levada_net::Transport;
use levada_telemetry::Registry;

/// What sources share of their agent.
#[derive(Debug, Clone)]
pub struct Deps {
    pub transport: Arc<dyn Transport>,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
    pub chance: Chance,
    /// The agent's name.
    pub agent: String,
}

/// Every type of source in this crate.
#[must_use]
pub fn kinds(deps: &Deps) -> Vec<SourceKind> {
    let mut kinds = vec![SourceKind::of(seq::Factory::new(deps))];
    #[cfg(feature = "http")]
    kinds.push(SourceKind::of(http::Factory::new(deps)));
    #[cfg(feature = "mqtt")]
    kinds.push(SourceKind::of(mqtt::Factory::new(deps)));
    kinds.extend(avro::kinds(deps));
    kinds
}
