//! What all parts of one agent share.

use std::sync::Arc;

use levada_core::{Chance, Clock, SystemClock};
use levada_net::{Handover, Tcp, Transport};
use levada_telemetry::Registry;

/// Metrics, time, chance and the network of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    pub(crate) agent: String,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Chance,
    pub(crate) transport: Arc<dyn Transport>,
}

impl Around {
    /// The machine's clock and network.
    pub(crate) fn machine(agent: &str) -> Self {
        Self {
            agent: agent.to_owned(),
            registry: Registry::new(),
            clock: Arc::new(SystemClock),
            chance: Chance::system(),
            transport: Arc::new(Handover::new(Arc::new(Tcp))),
        }
    }
}
