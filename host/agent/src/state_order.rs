//! Handlers with state that would wait for each other for ever.
//!
//! Such a handler has one batch at a time, from its call until the batch has its place in the store.
//! So a chain holds the state of its first handler while it waits for that of its second: two chains
//! with the same two in opposite order can stop each other, and a chain with one of them twice stops
//! itself.

use std::collections::BTreeMap;

use levada_config::SourceConfig;
use levada_core::{PartId, Problem, Problems, Source, settings::Span};

use crate::blueprint::{Checked, CheckedHandler};

/// Which handler comes before which in a chain, and where that chain is written.
type Before<'a> = BTreeMap<(&'a PartId, &'a PartId), Span>;

/// Adds every such problem.
pub(crate) fn check(
    sources: &[Checked<SourceConfig, Box<dyn Source>>],
    handlers: &[CheckedHandler],
    problems: &mut Problems,
) {
    let has_state = |part: &&PartId| {
        let handler = handlers.iter().find(|handler| handler.part == **part);
        handler.is_some_and(|handler| handler.spec.grants.state.is_some())
    };
    let mut before = Before::new();
    for source in sources {
        let table = &source.config.table;
        let span = table
            .get("interceptors")
            .map_or(table.span, |(_, value)| value.span);
        let chain: Vec<_> = source.config.chain.iter().filter(has_state).collect();
        let Some((message, other)) = clash(&chain, span, &mut before) else {
            continue;
        };
        let path = table.path_of("interceptors");
        let problem = Problem::error(Some(span), path, message).help(
            "a handler with state has one batch at a time: name it once in a chain, and in the same \
             order in all of them",
        );
        problems.push(match other {
            Some(other) => problem.related(other, "the other way round here"),
            None => problem,
        });
    }
}

/// What is wrong with a chain after those before it, and where the other half of it is.
fn clash<'a>(
    chain: &[&'a PartId],
    span: Span,
    before: &mut Before<'a>,
) -> Option<(String, Option<Span>)> {
    for (place, first) in chain.iter().copied().enumerate() {
        for then in chain[place + 1..].iter().copied() {
            if first == then {
                let name = &first.name;
                return Some((format!("`{name}` would wait for itself"), None));
            }
            if let Some(other) = path(then, first, before) {
                let (first, then) = (&first.name, &then.name);
                let message = format!("`{first}` and `{then}` would wait for each other");
                return Some((message, Some(other)));
            }
            before.entry((first, then)).or_insert(span);
        }
    }
    None
}

/// Where it is written that one comes before the other, at once or over others between them.
fn path(from: &PartId, to: &PartId, before: &Before<'_>) -> Option<Span> {
    let mut reached = vec![(from, None)];
    let mut at = 0;
    while let Some((part, over)) = reached.get(at).copied() {
        at += 1;
        for ((first, then), span) in before {
            if *first != part || reached.iter().any(|(seen, _)| seen == then) {
                continue;
            }
            let over = over.or(Some(*span));
            if *then == to {
                return over;
            }
            reached.push((then, over));
        }
    }
    None
}
