//! The one owner of wasmtime: user code as WebAssembly components, in a sandbox.
//!
//! [`check`] reads a handler's settings, [`inspect`] looks at a component without running it,
//! [`Handlers`] loads one into an interceptor, a sink, a source, or several of them. Whatever a guest
//! does (loop, grow, overflow, lie), the host goes on: every call has its limits, and an event on which a guest fails is found and
//! set aside while its neighbours are delivered in order.
//!
//! By itself a handler has no files, no sockets, no environment and no clock that moves. What the
//! operator grants ([`Grants`]) is one interface each.

mod engine;
mod grants;
mod limits;
mod params;
mod when;

mod code_memory;
mod compile;
mod inspect;
mod precompiled;

mod event;
mod guest;
mod http;
mod imports;
mod lookup;
mod meters;
mod ticker;
mod wasi;

mod broken;
mod fiber;
mod instance;
mod outcomes;
mod packed;
mod pool;
mod typed;
mod verdicts;

mod breaker;
mod handler;
mod handlers;
mod poll;
mod remark;
mod rescue;
mod sink;
mod source;
mod state;
mod timer;

mod record;
mod rerun;
mod tap;

pub mod zoo;

pub use code_memory::deny_write_execute;
pub use compile::{CompileBounds, CompileError, Compiler, compile_child};
pub use engine::MemoryReservation;
pub use event::{EventText, NoEvent};
pub use grants::{CredentialParams, Destination, GrantParams, Grants, LookupParams, Network};
pub use handlers::{Handlers, HandlersConfig, LoadError, Loaded, OpenError};
pub use inspect::{Given, Import, InspectError, Inspection, Role, inspect};
pub use limits::{Limit, LimitReached, LimitRow, Limits, WhenHit};
pub use params::{
    BatchParams, Config, HandlerParams, HandlerSpec, LimitParams, OnReject, OnTrap, Reuse, check,
};
pub use record::{Recording, RecordingError};
pub use remark::Remark;
pub use rerun::{Recorded, Replayed};
pub use sink::SinkHandler;
pub use source::SourceHandler;
pub use tap::{BatchSight, EventSight, Sight, Tap, TapParams, TooManyTaps};
pub use when::{When, WhenError};

#[cfg(test)]
mod tests;
