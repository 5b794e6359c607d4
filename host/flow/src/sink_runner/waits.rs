//! What a running sink waits for.

use std::{future::Future, pin::Pin, time::Duration};

use levada_core::{Lease, TakeError};
use tokio::time::{self, Instant};

use crate::group::Seated;

/// A lease that is not there yet.
pub(super) type Leasing<'a> = Pin<Box<dyn Future<Output = Result<Lease, TakeError>> + Send + 'a>>;

/// The longest wait that a peer can ask for.
pub(super) const LONGEST_AFTER: Duration = Duration::from_secs(3600);

/// A wait that ends not before the time that was asked for, and not for all at that time.
pub(super) fn not_before(after: Option<Duration>, wait: Duration) -> Duration {
    after.map_or(wait, |after| {
        after.min(LONGEST_AFTER) + wait.min(after / 10)
    })
}

pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn leased(leasing: &mut Option<Leasing<'_>>) -> Result<Lease, TakeError> {
    match leasing {
        Some(leasing) => leasing.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn changed(seat: &mut Option<Seated>) {
    match seat {
        Some(seat) => seat.changed().await,
        None => std::future::pending().await,
    }
}
