//! TOML files to one configuration, with every problem at once.
//!
//! [`load`] reads and merges the files, puts in what `${env:...}` and the like stand for, checks
//! what can be known without knowing a single component (tables, common keys, who names whom), and
//! hands each part's own keys on as a [`Table`](levada_core::Table) with places. [`render`] shows a
//! problem as rustc does.
//!
//! This crate never opens a socket, never starts anything, and knows no source, sink or handler by
//! name.

mod files;
mod load;
mod merge;
mod parse;
mod replace;

mod agent;
mod channel;
mod group;
mod part;
mod references;
mod selector;

mod render;

pub use agent::{
    AgentSettings, DeadLetterSettings, DeadLettersFull, Door, LogLook, LogSettings,
    MemoryReservation, OnCorruption, Profile,
};
pub use channel::{ChannelConfig, ChannelParams, ChannelType, LaneCount, LaneParams, OnFull};
pub use files::{Files, Place};
pub use group::{GroupConfig, GroupParams, GroupPolicy};
pub use load::{AgentConfig, Loaded, load, load_text, load_with};
pub use part::{
    BackOffParams, BatchEvents, BatchParams, HandlerConfig, InterceptorCommon, InterceptorConfig,
    SinkCommon, SinkConfig, SourceCommon, SourceConfig,
};
pub use render::{Look, Report, render, render_all, report};
pub use replace::Surroundings;
pub use selector::SelectorConfig;
