//! Random bytes. With the grant `random` they are the system's; without it they come from a seed,
//! and are no secret. A call is given 64 KiB at most.

use crate::host;

/// Fills a buffer.
pub fn fill(buffer: &mut [u8]) {
    host::fill_random(buffer);
}

/// A random number.
#[must_use]
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
