//! Quantities as they are written in a configuration: `64KiB`, `250ms`.

use std::{fmt, time::Duration};

/// A number of bytes, written with a unit: `512B`, `64KiB`, `1MB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const TIMES: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl ByteSize {
    /// Kibibytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// Mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Reads `64KiB`; `None` if it has no unit, an unknown one, or is too large.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        quantity(text, &SIZES).map(Self)
    }

    /// As a size in memory; saturates where the machine's words are smaller.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole =
            |unit: &(&str, u64)| unit.1 > 1 && self.0 >= unit.1 && self.0.is_multiple_of(unit.1);
        match SIZES[1..5].iter().rev().find(|unit| whole(unit)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Reads `250ms`; `None` if it has no unit, an unknown one, or is too large.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    quantity(text, &TIMES).map(Duration::from_nanos)
}

/// Writes a duration as it would be written in a configuration.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let whole = |unit: &&(&str, u64)| nanos >= unit.1 && nanos.is_multiple_of(unit.1);
    let (name, factor) = TIMES
        .iter()
        .rev()
        .find(whole)
        .unwrap_or(&("s", 1_000_000_000));
    format!("{}{name}", nanos / factor)
}

/// `<number><unit>`; the number may have a fraction, spaces between are allowed.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))?;
    let (number, unit) = text.split_at(split);
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    let number = number.replace('_', "");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let exact = number.parse::<f64>().ok()? * factor as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "range checked"
    )]
    (0.0..9e18).contains(&exact).then_some(exact.round() as u64)
}
