//! The nouns and the plugs of Levada.
//!
//! A [`Batch`] is a run of events in one buffer; everything else moves batches: a [`Source`] gives
//! them to an [`Ingest`], interceptors look at them, a [`Store`] keeps them in channels until a
//! [`Sink`] has them. Settings arrive with their place in the file, so that a wrong one can be
//! explained. Time, chance, tasks and the stop signal come through one door each.
//!
//! This crate does no I/O, knows no concrete part, and imports no other crate of ours.

pub mod avro;
pub mod batch;
pub mod origin;

pub mod context;
pub mod factory;
pub mod hop;
pub mod inspect;
pub mod interceptor;
pub mod ledger;
pub mod marks;
pub mod name;
pub mod peer;
pub mod selector;
pub mod settings;
pub mod sink;
pub mod source;
pub mod state;
pub mod stop;
pub mod store;
pub mod tasks;
pub mod units;

pub use batch::{Batch, BatchBuilder, Editor, EventRef, Fault, Limits, Malformed, Patch};
pub use context::{Chance, Clock, RunContext, SystemClock};
pub use factory::{InterceptorKind, SinkKind, SourceKind};
pub use hop::Hop;
pub use interceptor::{InterceptError, Interceptor};
pub use ledger::{Count, Counter, DeadLetter, Effects};
pub use marks::{MarkWrite, Marks};
pub use name::{ChannelName, Name, PartId, PartKind};
pub use origin::{Incarnation, OriginId, Origins, Positions};
pub use peer::{Contact, Peer};
pub use selector::{Route, Selector};
pub use settings::{Params, Problem, Problems, Secret, Table, Value};
pub use sink::{Delivery, OpenError, Reject, Sink, SinkError};
pub use source::{Ingest, Needs, Put, PutError, Source, SourceError};
pub use state::{StateChange, States};
pub use stop::{Stop, Stopper};
pub use store::{Commit, Lease, Outcome, Outcomes, Settlement, Store, TakeError, Want};
pub use tasks::TaskSet;
pub use units::ByteSize;

/// What the macros of this crate expand to. Not for use by hand.
#[doc(hidden)]
pub mod params_internals {
    pub use crate::settings::internals::{default_text, key_of, read_field};
}
