//! Waits between tries: exponential, capped, with full jitter.

use std::time::Duration;

use levada_core::Chance;

/// Doubles its ceiling at every failure and draws each wait from 0 up to it.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    least: Duration,
    most: Duration,
    failures: u32,
    chance: Chance,
}

impl BackOff {
    /// The first ceiling is `least`, the last `most`.
    pub(crate) fn new(least: Duration, most: Duration, chance: Chance) -> Self {
        Self {
            least,
            most,
            failures: 0,
            chance,
        }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.chance
            .jitter(self.least.saturating_mul(factor).min(self.most))
    }

    /// Begins anew after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}
