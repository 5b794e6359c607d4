//! Ends this process at a named point, for tests of what a killed agent leaves behind.
//!
//! `LEVADA_CRASH=store-before-commit:25` aborts when the point is passed for the 25th time: no
//! destructor runs and nothing is flushed, as with SIGKILL, but at a place of the test's choice.

use std::{
    env, process,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, anyhow};

/// Arms the point that the environment names, if it names one.
pub(crate) fn arm() -> Result<()> {
    let Ok(text) = env::var("LEVADA_CRASH") else {
        return Ok(());
    };
    let (point, times) = text
        .split_once(':')
        .context("LEVADA_CRASH is not `point:times`")?;
    let times: u64 = times
        .parse()
        .context("LEVADA_CRASH does not end in a number")?;
    let passed = AtomicU64::new(0);
    let pass = move || {
        if passed.fetch_add(1, Ordering::Relaxed) + 1 >= times {
            process::abort();
        }
    };
    fail::cfg_callback(point, pass).map_err(|error| anyhow!("cannot arm `{point}`: {error}"))
}
