//! What a running part is given: time, chance, the stop signal. The only door to clock and
//! randomness, so that a simulation can own both.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{PartId, Peer, Stop};

/// Wall time. Timers use `tokio::time` (monotonic, pausable); wall time is data only.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970; 0 for a clock set before that.
    fn wall_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// When this version was built, in milliseconds since 1970.
pub const BUILT_MS: u64 = number(env!("LEVADA_BUILT")) * 1000;

/// Whether the clock is before the build of this version, and so cannot be right. Data goes on;
/// certificates are judged wrongly.
#[must_use]
pub fn is_unsynced(clock: &dyn Clock) -> bool {
    // A day for builders and time zones that differ.
    clock.wall_ms() < BUILT_MS.saturating_sub(24 * 3600 * 1000)
}

/// Decimal digits as a number; for what the build script wrote.
const fn number(digits: &str) -> u64 {
    let digits = digits.as_bytes();
    let (mut number, mut at) = (0, 0);
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as u64;
        at += 1;
    }
    number
}

/// Random numbers: for jitter and the like, and for ids. Never for secrets. Clones share one
/// sequence.
#[derive(Debug, Clone)]
pub struct Chance {
    state: Arc<Mutex<u64>>,
    ids: Ids,
}

/// Where ids come from.
#[derive(Debug, Clone, Copy)]
enum Ids {
    System,
    Seeded,
}

impl Chance {
    /// The same seed gives the same numbers and ids: for tests and simulations.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(seed)),
            ids: Ids::Seeded,
        }
    }

    /// Numbers that differ from process to process; ids are the system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self {
            state: Arc::new(Mutex::new(RandomState::new().hash_one(std::process::id()))),
            ids: Ids::System,
        }
    }

    /// 128 random bits that nobody else has.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn id(&self) -> io::Result<[u8; 16]> {
        let mut id = [0; 16];
        match self.ids {
            Ids::System => getrandom::fill(&mut id)?,
            Ids::Seeded => {
                let (low, high) = id.split_at_mut(8);
                low.copy_from_slice(&self.bits().to_le_bytes());
                high.copy_from_slice(&self.bits().to_le_bytes());
            }
        }
        Ok(id)
    }

    /// 64 random bits (`SplitMix64`: Steele, Lea and Flood, 2014).
    #[must_use]
    pub fn bits(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..below`, or 0 if `below` is 0.
    #[must_use]
    pub fn below(&self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.bits() % below }
    }

    /// A time between 0 and `most`: full jitter.
    #[must_use]
    pub fn jitter(&self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

/// Everything a running part may use of its surroundings.
#[derive(Debug, Clone)]
pub struct RunContext {
    pub part: PartId,
    pub stop: Stop,
    pub clock: Arc<dyn Clock>,
    pub chance: Chance,
    /// Where the part says whether it has its other side.
    pub peer: Peer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_owns_every_number_and_every_id() {
        let (one, other) = (Chance::seeded(7), Chance::seeded(7));
        assert_eq!(one.bits(), other.bits());
        assert_eq!(one.id().unwrap(), other.id().unwrap());
        // A clone goes on with the same sequence.
        assert_ne!(one.id().unwrap(), one.clone().id().unwrap());
    }

    #[test]
    fn nobody_else_draws_the_same_id() {
        assert_ne!(
            Chance::system().id().unwrap(),
            Chance::system().id().unwrap()
        );
    }
}
