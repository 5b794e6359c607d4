//! Sources and sinks that are handlers: `type = "handler"`.
//!
//! A handler stands under `[handlers]` whatever it is used as, with its limits and grants in one
//! place; where it is used decides its role.

use levada_config::{HandlerConfig, SinkConfig, SourceConfig};
use levada_core::{Name, PartId, PartKind, Problem, Problems, Table, settings::Span};

use crate::{
    blueprint::Blueprint,
    plan::{Loaded, LoadedHandler},
};

/// The word under `type`.
pub(crate) const TYPE: &str = "handler";

/// The handler that a source or a sink is, if it is one.
pub(crate) fn handler_of(table: &Table) -> Option<PartId> {
    let text = |key: &str| table.get(key).and_then(|(_, value)| value.text());
    if text("type") != Some(TYPE) {
        return None;
    }
    Some(PartId {
        kind: PartKind::Handlers,
        name: Name::new(text("handler")?)?,
    })
}

/// Finds sources and sinks that name a handler which is not configured.
pub(crate) fn check_names(
    sources: &[SourceConfig],
    sinks: &[SinkConfig],
    handlers: &[HandlerConfig],
    problems: &mut Problems,
) {
    let sources = sources.iter().map(|source| &source.table);
    let tables = sources.chain(sinks.iter().map(|sink| &sink.table));
    let handlers: Vec<_> = handlers.iter().map(|config| &config.part).collect();
    for table in tables {
        let Some(wanted) = handler_of(table).filter(|wanted| !handlers.contains(&wanted)) else {
            continue;
        };
        let known: Vec<_> = handlers.iter().map(|part| part.name.as_str()).collect();
        let wanted = wanted.name.as_str();
        let message = format!("there is no handler `{wanted}`");
        let place = Some(place(table, "handler"));
        let problem = Problem::error(place, table.path_of("handler"), message);
        problems.push(match &known[..] {
            [] => problem.help(format!("add [handlers.{wanted}] with its `component`")),
            known => problem
                .allowed(known.join(", "))
                .nearest(wanted, known.iter().copied()),
        });
    }
}

/// What a component can be used as, and how it is said that one is used so.
const INTERCEPTOR: &str = "an interceptor is named in `interceptors` of a source";
const SINK: &str = "a sink is used by `type = \"handler\"` under [sinks]";
const SOURCE: &str = "a source is used by `type = \"handler\"` under [sources]";

/// Finds handlers that are used as what their components are not.
pub(crate) fn check_roles(blueprint: &Blueprint, loaded: &Loaded, problems: &mut Problems) {
    for source in &blueprint.sources {
        let table = &source.config.table;
        let has = |handler: &LoadedHandler| handler.roles.interceptor.is_some();
        for part in &source.config.chain {
            check_role(
                loaded,
                part,
                (table, "interceptors"),
                "interceptor",
                has,
                problems,
            );
        }
        let has = |handler: &LoadedHandler| handler.roles.source.is_some();
        if let Some(part) = handler_of(table) {
            check_role(loaded, &part, (table, "handler"), "source", has, problems);
        }
    }
    for sink in &blueprint.sinks {
        let table = &sink.config.table;
        let has = |handler: &LoadedHandler| handler.roles.sink.is_some();
        if let Some(part) = handler_of(table) {
            check_role(loaded, &part, (table, "handler"), "sink", has, problems);
        }
    }
}

/// Whether a handler `has` the role that a key of a part gives it; one that did not load was told
/// already.
fn check_role(
    loaded: &Loaded,
    part: &PartId,
    (table, key): (&Table, &str),
    role: &str,
    has: impl Fn(&LoadedHandler) -> bool,
    problems: &mut Problems,
) {
    let Some(handler) = loaded.get(part).filter(|handler| !has(handler)) else {
        return;
    };
    let levada_wasm::Loaded {
        interceptor,
        sink,
        source,
        ..
    } = &handler.roles;
    let is = [
        (interceptor.is_some(), INTERCEPTOR),
        (sink.is_some(), SINK),
        (source.is_some(), SOURCE),
    ];
    let is: Vec<_> = is.into_iter().filter(|(is, _)| *is).collect();
    let help: Vec<_> = is.into_iter().map(|(_, help)| help).collect();
    let message = format!("`{part}` is no {role}: its component has none");
    let problem = Problem::error(Some(place(table, key)), table.path_of(key), message);
    problems.push(problem.help(help.join("; ")));
}

/// Where a key of a part is written.
pub(crate) fn place(table: &Table, key: &str) -> Span {
    table.get(key).map_or(table.span, |(_, value)| value.span)
}
