//! What a running part is given: time, chance, the stop signal. The only door to clock and
//! randomness, so that a simulation can own both.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{PartId, Stop};

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

/// Random numbers for jitter and the like; never for secrets or ids.
#[derive(Debug, Clone)]
pub struct Chance(Arc<Mutex<u64>>);

impl Chance {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// 64 random bits (`SplitMix64`: Steele, Lea and Flood, 2014).
    #[must_use]
    pub fn bits(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
}
