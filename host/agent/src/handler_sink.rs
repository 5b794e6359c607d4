//! Sinks that are handlers: `type = "handler"`, with the name of the handler beside it.

use std::sync::Arc;

use async_trait::async_trait;
use levada_core::{
    Delivery, Hop, Lease, Marks, Name, OpenError, PartId, RunContext, Sink, SinkError,
    factory::SinkFactory, params,
};

use crate::handler_part;

params! {
    /// Settings of the `handler` sink.
    pub(crate) struct Params {
        /// The handler that delivers the events: its name under `[handlers]`.
        pub handler: Name,
    }
}

/// Knows the keys of the type. What is built belongs to the handler, which is loaded later: see
/// [`crate::plan`].
pub(crate) struct Factory;

impl SinkFactory for Factory {
    const NAME: &'static str = handler_part::TYPE;
    type Params = Params;

    fn build(&self, _part: &PartId, params: &Params) -> Box<dyn Sink> {
        let handler = params.handler.clone();
        Box::new(NotLoaded { handler })
    }
}

/// A sink whose handler is not there. It does not open.
#[derive(Debug)]
struct NotLoaded {
    handler: Name,
}

impl NotLoaded {
    fn what(&self) -> String {
        format!("the handler `{}` is not loaded as a sink", self.handler)
    }
}

#[async_trait]
impl Sink for NotLoaded {
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        Err(OpenError::new(self.what()))
    }

    async fn deliver(&self, _: &Lease, _: &RunContext) -> Result<Delivery, SinkError> {
        let (what, source) = (self.what(), None);
        Err(SinkError::Fatal { what, source })
    }
}
