//! Saying something often enough, and not more often.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lets one of many through in a while and counts the others: for log lines that a peer can cause.
#[derive(Debug)]
pub struct Throttle {
    every: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    /// Lets one through in each `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self {
            every,
            state: Mutex::new((None, 0)),
        }
    }

    /// Whether to speak now; then how many were held back since the last time.
    #[must_use]
    pub fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (last, unsaid) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < self.every) {
            *unsaid += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_in_a_while_passes_and_the_rest_is_counted() {
        let throttle = Throttle::new(Duration::from_secs(10));
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!((throttle.pass(), throttle.pass()), (None, None));
        time::advance(Duration::from_secs(10)).await;
        assert_eq!(throttle.pass(), Some(2));
    }
}
