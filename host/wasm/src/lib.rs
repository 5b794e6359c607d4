//! The one owner of wasmtime: user code as WebAssembly components, in a sandbox.
//!
//! [`check`] reads a handler's settings, [`inspect`] looks at a component without running it,
//! [`Handlers`] loads one into an interceptor. Whatever a guest does (loop, grow, overflow, lie),
//! the host goes on: every call has its limits, and an event on which a guest fails is found and
//! set aside while its neighbours are delivered in order.
//!
//! This crate grants nothing: no files, no sockets, no environment, no clock that moves.

mod engine;
mod limits;
mod params;

mod compile;
mod inspect;
mod precompiled;

mod guest;
mod imports;
mod meters;
mod ticker;
mod wasi;

mod instance;
mod packed;
mod pool;
mod typed;
mod verdicts;

mod breaker;
mod handler;
mod handlers;
mod rescue;

pub use compile::{CompileBounds, CompileError, Compiler, compile_child};
pub use engine::MemoryReservation;
pub use handlers::{Handlers, HandlersConfig, LoadError, OpenError};
pub use inspect::{Given, Import, InspectError, Inspection, Role, inspect};
pub use limits::{Limit, LimitReached, Limits};
pub use params::{
    BatchParams, Config, HandlerParams, HandlerSpec, LimitParams, OnReject, OnTrap, Reuse, check,
};

#[cfg(test)]
mod tests;
