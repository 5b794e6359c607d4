//! Sources that are handlers: `type = "handler"`, with the name of the handler beside it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    Ingest, Name, OpenError, PartId, Problem, Problems, RunContext, Source, SourceError, Table,
    factory::SourceFactory, params, settings::Params as _, units::format_duration,
};
use levada_wasm::SourceHandler;

use crate::handler_part;

params! {
    /// Settings of the `handler` source.
    pub(crate) struct Params {
        /// The handler that is polled for events: its name under `[handlers]`. Its cursor is kept
        /// under the name of the source: another handler goes on from there.
        pub handler: Name,
        /// The longest wait from one poll to the next, whatever the handler asks for.
        pub max_wait: Duration = "1h",
    }
}

/// The longest `max-wait`.
const MOST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Knows the keys of the type. What is built belongs to the handler, which is loaded later: see
/// [`crate::plan`].
pub(crate) struct Factory;

impl SourceFactory for Factory {
    const NAME: &'static str = handler_part::TYPE;
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        let least = SourceHandler::LEAST_WAIT;
        if !(least..=MOST_WAIT).contains(&params.max_wait) {
            let (key, place) = (
                table.path_of("max-wait"),
                handler_part::place(table, "max-wait"),
            );
            let problem = Problem::error(Some(place), key, "not a wait between two polls");
            let (least, most) = (format_duration(least), format_duration(MOST_WAIT));
            problems.push(problem.allowed(format!("{least} to {most}")));
        }
    }

    fn build(&self, _part: &PartId, params: &Params) -> Box<dyn Source> {
        let handler = params.handler.clone();
        Box::new(NotLoaded { handler })
    }
}

/// The `max-wait` of a source whose table is checked.
pub(crate) fn max_wait(table: &Table) -> Duration {
    let params = Params::read_fields(table, &mut Problems::new());
    params.map_or(MOST_WAIT, |params| params.max_wait)
}

/// A source whose handler is not there. It does not open.
#[derive(Debug)]
struct NotLoaded {
    handler: Name,
}

impl NotLoaded {
    fn what(&self) -> String {
        format!("the handler `{}` is not loaded as a source", self.handler)
    }
}

#[async_trait]
impl Source for NotLoaded {
    async fn open(&mut self) -> Result<(), OpenError> {
        Err(OpenError::new(self.what()))
    }

    async fn run(&mut self, _: Arc<dyn Ingest>, _: &RunContext) -> Result<(), SourceError> {
        Err(SourceError::fatal(self.what()))
    }
}
