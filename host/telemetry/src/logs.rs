//! Log set-up: text for people, JSON for programs, both on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

levada_core::choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

/// What to log and how.
#[derive(Debug, Clone)]
pub struct LogSetup {
    pub format: LogFormat,
    /// As in `RUST_LOG`: `info`, `levada_store=debug,info`.
    pub filter: String,
}

/// Installs the process's logger. A second call changes nothing.
///
/// # Errors
/// The text of what is wrong with the filter.
pub fn init_logs(setup: &LogSetup) -> Result<(), String> {
    let filter = EnvFilter::try_new(&setup.filter)
        .map_err(|error| format!("`{}` is no log filter: {error}", setup.filter))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // The only error is that a logger is there already.
    let _installed = match setup.format {
        LogFormat::Human => registry.with(layer.with_target(false)).try_init().is_ok(),
        LogFormat::Json => registry.with(layer.json()).try_init().is_ok(),
    };
    Ok(())
}
