//! What is worth a word before a handler runs, and keeps nothing from running.

use levada_core::tasks;

use crate::{
    HandlerSpec, Handlers, Inspection,
    handlers::read,
    inspect::{inspect, is_ours},
};

/// What an operator should know, and what keeps nothing from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The key in the handler's table.
    pub key: String,
    pub what: &'static str,
    /// What to do.
    pub help: &'static str,
}

impl Handlers {
    /// What a handler's settings say and its component has no use for, or the reverse. Reads the
    /// component's file; nothing is said if that cannot be read.
    pub async fn remarks(spec: &HandlerSpec) -> Vec<Remark> {
        let path = spec.component.clone();
        let seen = tasks::blocking(move || inspect(&read(&path).ok()?).ok()).await;
        seen.map_or_else(Vec::new, |seen| of(spec, &seen))
    }
}

fn of(spec: &HandlerSpec, seen: &Inspection) -> Vec<Remark> {
    let unused = spec.grants.unused(seen).into_iter().map(|grant| Remark {
        key: format!("grants.{grant}"),
        what: "the component has no use for this grant",
        help: "remove it",
    });
    let mut remarks: Vec<_> = unused.collect();
    let has_timer = seen.exports.iter().any(|name| is_ours(name, "timer"));
    let timer = match (has_timer, spec.every) {
        (true, None) => Some((
            "the component has a timer that is never called",
            "every = \"10s\"",
        )),
        (false, Some(_)) => Some(("the component has no timer", "remove it")),
        _ => None,
    };
    remarks.extend(timer.map(|(what, help)| Remark {
        key: "every".into(),
        what,
        help,
    }));
    remarks
}
