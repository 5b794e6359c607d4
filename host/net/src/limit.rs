//! A time limit as an I/O error.

use std::{future::Future, io, time::Duration};

use tokio::time;

/// Waits for `work` at most so long; safe to cancel if `work` is.
///
/// # Errors
/// Those of `work`, and `TimedOut` naming `what` took too long.
pub async fn within<T>(
    most: Duration,
    what: &'static str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match time::timeout(most, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, what)),
    }
}
