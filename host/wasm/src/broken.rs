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
    /// Where the call is recorded, if it is.
    pub(crate) recording: Option<String>,
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
            recording: None,
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
            recording: None,
        }
    }

    /// The guest's innermost functions on one line, for a log: without those through which Rust's
    /// own library ends, and each once in a row.
    pub(crate) fn at(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let frames = self.backtrace.as_ref()?.lines();
        let mut names: Vec<_> = frames.filter_map(function).collect();
        names.dedup();
        let of_library = names.iter().take_while(|name| is_of_library(name)).count();
        // A library alone is better than nothing.
        let own = names.get(of_library..).filter(|own| !own.is_empty());
        let own = own.unwrap_or(&names);
        (!own.is_empty()).then(|| own[..own.len().min(SHOWN)].join(" < "))
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
        } else {
            // Some of wasmtime's errors say what they are, some do not.
            let what = root.strip_prefix("wasm trap: ").unwrap_or(&root);
            let what = what.trim_start_matches("trap: ");
            (None, format!("trap: {what}"))
        };
        Self {
            reason: escape(&reason),
            limit,
            backtrace,
            contract: false,
            recording: None,
        }
    }
}

/// The name of a frame's function, without the hash that Rust appends.
fn function(frame: &str) -> Option<&str> {
    let (_, name) = frame.split_once('!')?;
    Some(match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => name,
    })
}

/// Whether it is one of the functions through which a panic of Rust ends.
fn is_of_library(name: &str) -> bool {
    let of = [
        "abort", "__rustc", "std::", "std[", "core::", "core[", "alloc::", "alloc[",
    ];
    of.iter().any(|start| name.starts_with(start))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_called_one_once() {
        for (error, reason) in [
            (wasmtime::Error::msg("trap: asked to"), "trap: asked to"),
            (
                wasmtime::Error::msg("wasm trap: asked to"),
                "trap: asked to",
            ),
            (wasmtime::Error::msg("asked to"), "trap: asked to"),
            (Trap::IntegerOverflow.into(), "trap: integer overflow"),
        ] {
            assert_eq!(Broken::of(&error).reason, reason, "{error}");
        }
    }

    #[test]
    fn the_innermost_functions_are_named() {
        let mut broken = Broken::of(&wasmtime::Error::msg("x"));
        assert_eq!(broken.at(), None);
        let frames = |names: &[&str]| {
            let frame = |name: &&str| format!("\n    0: 0x1f - a.wasm!{name}");
            let frames: String = names.iter().map(frame).collect();
            Some(format!("error while executing at wasm backtrace:{frames}"))
        };
        let panic = [
            "abort",
            "std[d1]::process::abort",
            "core[6d]::panicking::panic_fmt",
        ];
        let own = [
            "a::deep::h0123456789abcdef",
            "a::deep::h0123456789abcdef",
            "a::b",
            "c",
            "d",
        ];
        broken.backtrace = frames(&[&panic[..], &own].concat());
        assert_eq!(broken.at().as_deref(), Some("a::deep < a::b < c"));
        broken.backtrace = frames(&panic);
        let all = "abort < std[d1]::process::abort < core[6d]::panicking::panic_fmt";
        assert_eq!(broken.at().as_deref(), Some(all));
    }
}
