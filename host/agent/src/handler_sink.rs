//! Sinks that are handlers: `type = "handler"`, with the name of the handler beside it.
//!
//! A handler stands under `[handlers]` whatever it is used as, with its limits and grants in one
//! place; where it is used decides its role.

use std::sync::Arc;

use async_trait::async_trait;
use levada_config::{HandlerConfig, SinkConfig};
use levada_core::{
    Delivery, Hop, Lease, Marks, Name, OpenError, PartId, PartKind, Problem, Problems, RunContext,
    Sink, SinkError, Table, factory::SinkFactory, params, settings::Span,
};

use crate::{blueprint::Blueprint, plan::Loaded};

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
    const NAME: &'static str = "handler";
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

/// The handler that a sink is, if it is one.
pub(crate) fn handler_of(sink: &Table) -> Option<PartId> {
    let text = |key: &str| sink.get(key).and_then(|(_, value)| value.text());
    if text("type") != Some(Factory::NAME) {
        return None;
    }
    Some(PartId {
        kind: PartKind::Handlers,
        name: Name::new(text("handler")?)?,
    })
}

/// Finds sinks that name a handler which is not configured.
pub(crate) fn check_names(
    sinks: &[SinkConfig],
    handlers: &[HandlerConfig],
    problems: &mut Problems,
) {
    let handlers: Vec<_> = handlers.iter().map(|config| &config.part).collect();
    for sink in sinks.iter().map(|config| &config.table) {
        let Some(wanted) = handler_of(sink).filter(|wanted| !handlers.contains(&wanted)) else {
            continue;
        };
        let known: Vec<_> = handlers.iter().map(|part| part.name.as_str()).collect();
        let wanted = wanted.name.as_str();
        let message = format!("there is no handler `{wanted}`");
        let place = Some(place(sink, "handler"));
        let problem = Problem::error(place, sink.path_of("handler"), message);
        problems.push(match &known[..] {
            [] => problem.help(format!("add [handlers.{wanted}] with its `component`")),
            known => problem
                .allowed(known.join(", "))
                .nearest(wanted, known.iter().copied()),
        });
    }
}

/// Finds handlers that are used as what their components are not.
pub(crate) fn check_roles(blueprint: &Blueprint, loaded: &Loaded, problems: &mut Problems) {
    let role = |part: &PartId, role: &str| format!("`{part}` is no {role}: its component has none");
    for source in &blueprint.sources {
        let chain = source.config.chain.iter();
        for part in chain.filter(|part| {
            let handler = loaded.get(part);
            handler.is_some_and(|handler| handler.roles.interceptor.is_none())
        }) {
            let table = &source.config.table;
            let place = Some(place(table, "interceptors"));
            let key = table.path_of("interceptors");
            let problem = Problem::error(place, key, role(part, "interceptor"));
            problems.push(problem.help("a sink is used by `type = \"handler\"` under [sinks]"));
        }
    }
    for sink in &blueprint.sinks {
        let table = &sink.config.table;
        let Some(part) = handler_of(table) else {
            continue;
        };
        let handler = loaded.get(&part);
        if handler.is_some_and(|handler| handler.roles.sink.is_none()) {
            let place = Some(place(table, "handler"));
            let problem = Problem::error(place, table.path_of("handler"), role(&part, "sink"));
            problems.push(problem.help("an interceptor is named in `interceptors` of a source"));
        }
    }
}

fn place(table: &Table, key: &str) -> Span {
    table.get(key).map_or(table.span, |(_, value)| value.span)
}
