//! Runs one source.

use std::sync::Arc;

use async_trait::async_trait;
use levada_core::{Ingest, Needs, OpenError, RunContext, Source, factory::Build};

use crate::{
    ingest::SourceIngest,
    supervise::{Failure, Runner, chain_text},
};

/// A source, what builds it, and what stands behind it.
pub(crate) struct SourceRunner {
    pub(crate) build: Build<Box<dyn Source>>,
    pub(crate) ingest: Arc<SourceIngest>,
    pub(crate) context: RunContext,
    /// `None` until it is open.
    pub(crate) source: Option<Box<dyn Source>>,
}

#[async_trait]
impl Runner for SourceRunner {
    async fn open(&mut self) -> Result<(), OpenError> {
        // The old one first lets go of what only one can hold, such as an address.
        self.source = None;
        let mut source = (self.build)();
        source.open().await?;
        self.source = Some(source);
        Ok(())
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let Some(source) = &mut self.source else {
            let text = "the source is not open".into();
            return Err(Failure {
                text,
                needs: Needs::Time,
            });
        };
        let ingest: Arc<dyn Ingest> = Arc::clone(&self.ingest) as _;
        let result = tokio::select! {
            biased;
            result = source.run(ingest, &self.context) => result,
            never = self.ingest.ticks() => match never {},
        };
        result.map_err(|error| Failure {
            text: chain_text(&error),
            needs: error.needs,
        })
    }

    async fn close(&mut self) {
        self.source = None;
    }
}
