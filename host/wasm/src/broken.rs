//! Why an instance is dead: what an error of wasmtime, or of the host on its behalf, means.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
};

use thiserror::Error;
use wasmtime::{Trap, WasmBacktrace};

use crate::{
    guest::escape,
    limits::{Limit, LimitReached},
    verdicts::Breach,
};

/// Why an instance is dead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub(crate) struct Broken {
    pub(crate) reason: String,
    pub(crate) limit: Option<Limit>,
    pub(crate) backtrace: Option<String>,
    /// Whether the guest ended well and its answer was void.
    pub(crate) contract: bool,
}

impl From<Breach> for Box<Broken> {
    fn from(breach: Breach) -> Self {
        Box::new(Broken::breach(breach.to_string()))
    }
}

/// Runs what may panic in the host's own code.
pub(crate) fn caught<T>(run: impl FnOnce() -> wasmtime::Result<T>) -> Result<T, Box<Broken>> {
    broken_if(panic::catch_unwind(AssertUnwindSafe(run)))
}

pub(crate) fn broken_if<T>(
    result: Result<wasmtime::Result<T>, Box<dyn Any + Send>>,
) -> Result<T, Box<Broken>> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Box::new(Broken::of(&error))),
        Err(_) => Err(Box::new(Broken {
            reason: "the host panicked while it ran the guest".into(),
            limit: None,
            backtrace: None,
            contract: false,
        })),
    }
}

impl Broken {
    /// The guest ended well, and its answer is void.
    pub(crate) fn breach(reason: String) -> Self {
        Self {
            reason,
            limit: None,
            backtrace: None,
            contract: true,
        }
    }

    /// Finds out what wasmtime's error means.
    fn of(error: &wasmtime::Error) -> Self {
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(|frames| cut(&frames.to_string()));
        let root = error.root_cause().to_string();
        let (limit, reason) = if let Some(reached) = error.downcast_ref::<LimitReached>() {
            (Some(reached.limit), reached.to_string())
        } else if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
            let allowed = levada_core::ByteSize(crate::engine::WASM_STACK as u64);
            let reached = LimitReached::new(Limit::Stack, allowed);
            (Some(Limit::Stack), reached.to_string())
        } else if let Some(limit) = private_limit(&root) {
            (
                Some(limit),
                format!("the limit `{limit}` was reached: {root}"),
            )
        } else if error.downcast_ref::<Trap>().is_some() {
            (
                None,
                format!("trap: {}", root.trim_start_matches("wasm trap: ")),
            )
        } else {
            (None, format!("trap: {root}"))
        };
        Self {
            reason: escape(&reason),
            limit,
            backtrace,
            contract: false,
        }
    }
}

/// Limits whose errors are private to wasmtime 48: known by their text, each held by a test.
fn private_limit(text: &str) -> Option<Limit> {
    let known = [
        (
            "fuel allocated for hostcalls has been exhausted",
            Limit::Lifted,
        ),
        ("store handle limit exceeded", Limit::Handles),
        ("instance count too high", Limit::Instances),
        ("memory count too high", Limit::Memories),
        ("table count too high", Limit::Tables),
    ];
    let known = known.into_iter().find(|(part, _)| text.contains(part));
    known.map(|(_, limit)| limit)
}

/// Bytes of a backtrace that is kept.
const LONGEST_BACKTRACE: usize = 8 << 10;

fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST_BACKTRACE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
