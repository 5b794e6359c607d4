//! The one owner of redb: channels, marks, dead letters and counters in one file per agent.
//!
//! What belongs together is committed together: one writer takes everything that waits into one
//! transaction, and a put returns after it. Events lie in *rows*, as the bytes that came in; a
//! lease is in memory only and copies them out. Memory channels stand behind the same door.
//!
//! This crate knows no source and no sink, runs no event through code, and never loses what it
//! acknowledged. The promise is spelled out in the delivery contract, D0 to D3 and D8.

mod params;
mod stores;

mod change;
mod channels;
mod lanes;

mod chain;
mod lease;
mod put;
mod settle;
mod state;

mod audit;
mod inspect;
mod metrics;
mod offline;
mod salvage;

mod open;
mod scan;
mod shared;
mod writer;

mod codec;
mod keys;
mod letter;
mod queue;
mod room;
mod row;

mod ballast;
mod bell;
mod disk;
mod file;
mod folder;
mod lock;
mod meter;
mod overlay;
mod pages;
mod probe;
mod raw;
mod rescue;
mod trouble;

#[doc(hidden)]
pub mod testing;

pub use audit::Identity;
pub use change::ChannelError;
pub use offline::Offline;
pub use params::{
    Backend, ChannelKind, ChannelSpec, DeadLetterSpec, LaneSpec, OnCorruption, OnDeadLettersFull,
    OnFull, OpenError, StoreParams,
};
pub use salvage::{SalvageReport, Salvaged, salvage};
pub use stores::{Closed, Stores, open};
pub use writer::Border;
