//! How long to wait before trying again.

use std::time::Duration;

use levada_core::Chance;

/// Exponential back-off with full jitter: each wait lies anywhere between the shortest and a
/// ceiling that doubles with every try, so that many who failed together do not return together.
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    attempts: u32,
    chance: Chance,
}

impl Backoff {
    /// Waits from `shortest` up to `longest`.
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration, chance: Chance) -> Self {
        Self {
            shortest,
            longest: longest.max(shortest),
            attempts: 0,
            chance,
        }
    }

    /// The next wait.
    #[must_use]
    pub fn next_wait(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let doubled = 2_u32.saturating_pow(self.attempts);
        let ceiling = self.shortest.saturating_mul(doubled).min(self.longest);
        self.shortest + self.chance.jitter(ceiling - self.shortest)
    }

    /// How often [`next_wait`](Self::next_wait) was asked since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_begin_anew() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut back_off = Backoff::new(shortest, longest, Chance::seeded(7));
        let waits: Vec<_> = (0..200).map(|_| back_off.next_wait()).collect();
        assert!(waits[0] <= shortest * 2 && waits[1] <= shortest * 4);
        assert!(waits.iter().all(|wait| (shortest..=longest).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > longest / 2));
        assert!(
            waits[100..].iter().any(|wait| *wait < longest / 2),
            "full jitter"
        );
        assert_eq!(back_off.attempts(), 200);
        back_off.reset();
        assert!(back_off.next_wait() <= shortest * 2);
    }

    #[test]
    fn a_longest_below_the_shortest_is_no_trap() {
        let wait = Duration::from_secs(3);
        let mut back_off = Backoff::new(wait, Duration::ZERO, Chance::seeded(7));
        assert_eq!(back_off.next_wait(), wait);
    }
}
