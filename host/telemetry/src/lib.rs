//! Counters and logs.
//!
//! Every part takes its counters from the one [`Registry`] of its agent and adds to them once per
//! batch; the registry writes them as Prometheus text. Nothing here is durable: the accounting
//! counters that must survive a crash live in the store, in the transactions of the data.

mod logs;
mod registry;

pub use logs::{LogFormat, LogSetup, init_logs};
pub use registry::{Counter, Gauge, Histogram, Registry, WeakRegistry};
