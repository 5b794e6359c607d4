//! The story of a seed: what the simulation and the agents say, with the time it has there.

use std::fmt;

use tokio::time::Instant;
use tracing_subscriber::{
    filter::EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// Writes every line that is said meanwhile.
pub(crate) fn tell<T>(work: impl FnOnce() -> T) -> T {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Simulated)
        .finish();
    tracing::subscriber::with_default(subscriber, work)
}

/// Time since the seed began.
struct Simulated;

thread_local! {
    static BEGAN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

impl FormatTime for Simulated {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        // Outside of a runtime it is the machine's time, which nobody asked for.
        if tokio::runtime::Handle::try_current().is_err() {
            return Ok(());
        }
        let now = Instant::now();
        let began = BEGAN.get().filter(|began| *began <= now).unwrap_or(now);
        BEGAN.set(Some(began));
        write!(out, "{:>12.3}s", now.duration_since(began).as_secs_f64())
    }
}
