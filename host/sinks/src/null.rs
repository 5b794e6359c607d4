//! Takes events and forgets them, as Flume's null sink does.

use std::sync::Arc;

use async_trait::async_trait;
use levada_core::{
    Delivery, Hop, Lease, Marks, OpenError, PartId, RunContext, Sink, SinkError,
    factory::SinkFactory, params,
};
use levada_telemetry::{Counter, Registry};

use crate::Deps;

params! {
    /// Settings of the `null` sink: none.
    pub(crate) struct Params {}
}

/// Builds [`NullSink`]s.
pub(crate) struct Factory {
    registry: Registry,
}

impl Factory {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            registry: deps.registry.clone(),
        }
    }
}

impl SinkFactory for Factory {
    const NAME: &'static str = "null";
    type Params = Params;

    fn build(&self, part: &PartId, _params: &Params) -> Box<dyn Sink> {
        let part = part.to_string();
        let help = "Bytes of events that the null sink took and forgot.";
        let bytes = self
            .registry
            .counter("levada_null_bytes", help, &[("part", &part)]);
        Box::new(NullSink { bytes })
    }
}

/// The sink that keeps nothing; how many events it took is counted by the flow.
#[derive(Debug)]
struct NullSink {
    bytes: Counter,
}

#[async_trait]
impl Sink for NullSink {
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        Ok(())
    }

    async fn deliver(&self, lease: &Lease, _cx: &RunContext) -> Result<Delivery, SinkError> {
        self.bytes.add(lease.batch.bytes() as u64);
        Ok(Delivery::done())
    }
}
