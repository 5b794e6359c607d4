//! Write handlers for Levada: a function with an attribute.
//!
//! ```
//! use levada_sdk::{Event, Patch, Verdict, interceptor};
//!
//! /// Drops debug messages, marks the rest.
//! #[interceptor]
//! fn mark(event: &Event<'_>) -> Verdict {
//!     if event.header("level") == Some("debug") {
//!         return Verdict::discard("debug");
//!     }
//!     Patch::new().set("marked", "yes").into()
//! }
//! ```
//!
//! A sink gives events away, over [`http`] to where the operator lets it:
//!
//! ```
//! use levada_sdk::{Event, Outcome, http, sink};
//!
//! #[sink]
//! fn post(event: &Event<'_>) -> Outcome {
//!     match http::post("https://api.example/events").body(event.body()).send() {
//!         Ok(answer) if answer.is_success() => Outcome::done(),
//!         Ok(answer) => Outcome::retry(format!("status {}", answer.status)),
//!         Err(problem) => Outcome::retry(problem.to_string()),
//!     }
//! }
//! ```
//!
//! A source takes events in: it is polled, again and again, with the cursor that it gave last.
//! Cursor and events are committed together, so nothing is lost and nothing comes twice:
//!
//! ```
//! use levada_sdk::{Failure, NewEvent, Polled, http, source};
//!
//! #[source]
//! fn poll(cursor: Option<&[u8]>) -> Result<Polled, Failure> {
//!     let after = String::from_utf8_lossy(cursor.unwrap_or(b"0")).into_owned();
//!     let answer = http::get(format!("https://api.example/events?after={after}")).send();
//!     let answer = answer.map_err(|problem| problem.failure())?;
//!     match answer.header("x-last") {
//!         Some(last) => Ok(Polled::new(last).event(NewEvent::new(answer.body.clone())).more()),
//!         None => Ok(Polled::new(after)),
//!     }
//! }
//! ```
//!
//! Built for `wasm32-wasip2` this is a component in Levada's packed form: the batch is looked at
//! where the host put it, and only what changes goes back. Built for any other target it is an
//! ordinary crate: functions can be called in unit tests, and [`testing`] stands in for the host.
//!
//! **What a handler may rely on.** It is called with one batch at a time and gives one verdict for
//! each event. Delivery, retries and order are the host's business. An instance is used for many
//! batches, and may be replaced at any moment between two: what it keeps in memory (a `static`
//! with parsed settings) is a cache and nothing more. Settings never change while an instance
//! lives.
//!
//! **State and time.** What must outlive an instance belongs into [`state`]: it is committed with
//! the events. `#[timer]` beside the interceptor makes a function that is called although no event
//! came. Both, and what [`lookup`] and [`secrets`] read, is granted by the operator, line by line.
//!
//! **Memory.** With the feature `arena` (on by default) small allocations come from [`arena`]: an
//! allocator for many short-lived values. It needs no care: what outlives a call stays valid.
//!
//! This crate never touches files or sockets, and has no dependencies.

#[cfg(target_arch = "wasm32")]
mod abi;
pub mod arena;

mod answer;
mod batch;
mod failure;
mod outcome;
mod outcomes;
mod polled;
mod verdict;
mod verdicts;

pub mod call;
mod host;
pub mod http;
pub mod json;
pub mod log;
pub mod metrics;
pub mod settings;
pub mod text;

pub mod clock;
pub mod lookup;
pub mod random;
pub mod secrets;
pub mod state;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use batch::{Batch, Event, Events, Headers, Id};
pub use failure::Failure;
pub use levada_sdk_macros::{interceptor, sink, source, timer};
pub use outcome::{IntoOutcome, Outcome};
pub use outcomes::Outcomes;
pub use polled::Polled;
pub use verdict::{IntoVerdict, NewEvent, Patch, Verdict};
pub use verdicts::Verdicts;

/// What the attribute expands to. Not for use by hand.
#[doc(hidden)]
pub mod internals {
    #[cfg(target_arch = "wasm32")]
    pub use crate::abi::{IMPORTS, SINK, SOURCE, TIMER, WORLD, deliver, intercept, poll, tick};
    pub use crate::{outcomes::each_outcome, verdicts::each};
}

/// Exports a function for one event.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_each {
    ($function:ident) => {
        $crate::__export_batch!(@ |batch: &$crate::Batch<'_>, verdicts: &mut $crate::Verdicts| {
            $crate::internals::each(batch, verdicts, $function)
        });
    };
}

/// Exports a function for a batch.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_batch {
    ($function:ident) => {
        $crate::__export_batch!(@ $function);
    };
    (@ $function:expr) => {
        const _: () = {
            /// The function as the host calls it.
            type Shape = fn(&$crate::Batch<'_>, &mut $crate::Verdicts) -> Result<(), $crate::Failure>;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:packed-interceptor-handler")]
            #[allow(dead_code, reason = "it is for the linker")]
            static WORLD: [u8; $crate::internals::WORLD.len()] = $crate::internals::WORLD;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:imports")]
            #[allow(dead_code, reason = "it is for the linker")]
            static IMPORTS: [u8; $crate::internals::IMPORTS.len()] = $crate::internals::IMPORTS;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(export_name = "levada:handler/packed-interceptor@0.1.0#intercept")]
            unsafe extern "C" fn __intercept(a: *mut u8, b: usize, c: *mut u8, d: usize) -> *const u8 {
                // SAFETY: only the host calls this, with two lists that it lowered for this call.
                unsafe { $crate::internals::intercept(a, b, c, d, $function) }
            }

            // The types are checked on every target.
            #[cfg(not(target_arch = "wasm32"))]
            const _: Shape = $function;
        };
    };
}

/// Exports a function as the timer.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_timer {
    ($function:ident) => {
        const _: () = {
            /// The function as the host calls it.
            type Shape = fn() -> Result<Vec<$crate::NewEvent>, $crate::Failure>;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:timer-handler")]
            #[allow(dead_code, reason = "it is for the linker")]
            static TIMER: [u8; $crate::internals::TIMER.len()] = $crate::internals::TIMER;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(export_name = "levada:handler/timer@0.1.0#tick")]
            unsafe extern "C" fn __tick() -> *const u8 {
                // SAFETY: only the host calls this.
                unsafe { $crate::internals::tick($function) }
            }

            // The types are checked on every target.
            #[cfg(not(target_arch = "wasm32"))]
            const _: Shape = $function;
        };
    };
}

/// Exports a function for one event of a sink.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_sink_each {
    ($function:ident) => {
        $crate::__export_sink_batch!(@ |batch: &$crate::Batch<'_>, outcomes: &mut $crate::Outcomes| {
            $crate::internals::each_outcome(batch, outcomes, $function)
        });
    };
}

/// Exports a function for a batch of a sink.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_sink_batch {
    ($function:ident) => {
        $crate::__export_sink_batch!(@ $function);
    };
    (@ $function:expr) => {
        const _: () = {
            /// The function as the host calls it.
            type Shape = fn(&$crate::Batch<'_>, &mut $crate::Outcomes) -> Result<(), $crate::Failure>;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:packed-sink-handler")]
            #[allow(dead_code, reason = "it is for the linker")]
            static WORLD: [u8; $crate::internals::SINK.len()] = $crate::internals::SINK;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:imports-of-sink")]
            #[allow(dead_code, reason = "it is for the linker")]
            static IMPORTS: [u8; $crate::internals::IMPORTS.len()] = $crate::internals::IMPORTS;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(export_name = "levada:handler/packed-sink@0.1.0#deliver")]
            unsafe extern "C" fn __deliver(a: *mut u8, b: usize, c: *mut u8, d: usize) -> *const u8 {
                // SAFETY: only the host calls this, with two lists that it lowered for this call.
                unsafe { $crate::internals::deliver(a, b, c, d, $function) }
            }

            // The types are checked on every target.
            #[cfg(not(target_arch = "wasm32"))]
            const _: Shape = $function;
        };
    };
}

/// Exports a function as the source.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_source {
    ($function:ident) => {
        const _: () = {
            /// The function as the host calls it.
            type Shape = fn(Option<&[u8]>) -> Result<$crate::Polled, $crate::Failure>;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:source-handler")]
            #[allow(dead_code, reason = "it is for the linker")]
            static SOURCE: [u8; $crate::internals::SOURCE.len()] = $crate::internals::SOURCE;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "component-type:levada-sdk:0.1.0:imports-of-source")]
            #[allow(dead_code, reason = "it is for the linker")]
            static IMPORTS: [u8; $crate::internals::IMPORTS.len()] = $crate::internals::IMPORTS;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(export_name = "levada:handler/source@0.1.0#poll")]
            unsafe extern "C" fn __poll(given: u32, cursor: *mut u8, len: usize) -> *const u8 {
                // SAFETY: only the host calls this, with a list that it lowered for this call.
                unsafe { $crate::internals::poll(given, cursor, len, $function) }
            }

            // The types are checked on every target.
            #[cfg(not(target_arch = "wasm32"))]
            const _: Shape = $function;
        };
    };
}
