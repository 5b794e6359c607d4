//! Moves batches: from sources through interceptors and a selector into channels, and from channels
//! to sinks.
//!
//! A [`Plan`] says what is connected to what; [`Flow::open`] opens every part and starts nothing;
//! [`Flow::run`] runs them under supervision until it is asked to stop, and drains. [`Status`] says
//! at any time what each part does and what it waits for; [`Control`] makes the running flow another
//! one, part by part, and puts dead letters back into it.
//!
//! This crate knows no concrete source, sink, interceptor or store; only it opens and settles
//! transactions between them. It never decodes an event, except where a selector reads a header.

mod plan;
mod selectors;

mod flow;
mod parts;

mod change;
mod control;
mod difference;
mod replay;

mod hop;
mod in_flight;
mod ingest;
mod route;

mod source_runner;

mod appetite;
mod attempts;
mod flights;
mod group;
mod sink_runner;
mod verdict;

mod back_off;
mod drain;
mod metrics;
mod status;
mod supervise;

pub use control::{ChangeError, Control};
pub use difference::{Change, Changed, Difference};
pub use drain::Drained;
pub use flow::{Flow, OpenErrors, PartError, Surroundings};
pub use plan::{GroupPlan, Link, Plan, Policy, Retry, SinkPlan, SourcePlan, Succession};
pub use replay::ReplayError;
pub use selectors::{Multiplexing, MultiplexingRoutes, Replicating};
pub use status::{LastError, PartStatus, State, Status, WaitsFor};

#[cfg(test)]
mod tests;
