//! HTTP for operators, through two doors.
//!
//! The TCP door answers `/healthz` and `/metrics` and nothing else. Everything that shows events
//! goes through the unix socket `admin.sock` in the data folder, where file permissions say who may
//! ask. [`Doors::open`] binds both, [`Doors::serve`] answers from a [`View`] until the agent stops,
//! and [`ask`] is the other side for the command line.
//!
//! What changes something is a POST on the socket, done by the agent behind [`Operate`]. This crate
//! itself changes nothing in an agent, and never sends a header that a browser would act on.

mod audit;
mod client;
mod doors;
mod health;
mod lines;
mod operate;
mod routes;
mod view;

pub use audit::{Audit, AuditRow, audit};
pub use client::{AskError, ask, order, watch};
pub use doors::{Doors, OpenError, SOCKET};
pub use health::{Health, HealthState};
pub use lines::Lines;
pub use operate::{Done, Operate, Order, Reload, TapOrder};
pub use view::{Facts, Listening, View, letter, letters, settled_audit};
