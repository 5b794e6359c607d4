//! The end of a lane, and the borders of what has left it (delivery contract D4.6).

use crate::codec::{Reader, seal, unseal};

/// A position that left the lane as the last of its row, with the chain there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Border {
    pub position: u64,
    pub chain: u64,
}

/// Borders in one group.
pub(crate) const GROUP: usize = 32;
/// Full groups that are kept: with the open one at least 1,024 borders.
pub(crate) const GROUPS: u32 = 32;

/// Where a lane goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The next position; the first is 1.
    pub(crate) next: u64,
    /// The chain after the last position.
    pub(crate) chain: u64,
    /// How many groups of borders were filled so far.
    pub(crate) groups: u32,
    /// The group that is being filled.
    pub(crate) borders: Vec<Border>,
}

impl Default for Head {
    /// A lane without a past.
    fn default() -> Self {
        Self {
            next: 1,
            chain: 0,
            groups: 0,
            borders: Vec::new(),
        }
    }
}

impl Head {
    /// The head's value under its key.
    pub(crate) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(24);
        value.extend_from_slice(&self.next.to_le_bytes());
        value.extend_from_slice(&self.chain.to_le_bytes());
        value.extend_from_slice(&self.groups.to_le_bytes());
        seal(key, value)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut reader = Reader(unseal(key, value)?);
        let (next, chain) = (reader.u64()?, reader.u64()?);
        Some(Self {
            next,
            chain,
            groups: reader.u32()?,
            borders: Vec::new(),
        })
    }
}

/// A group of borders under its key.
pub(crate) fn write_borders(key: &[u8], borders: &[Border]) -> Vec<u8> {
    let mut value = Vec::with_capacity(borders.len() * 16 + 4);
    for border in borders {
        value.extend_from_slice(&border.position.to_le_bytes());
        value.extend_from_slice(&border.chain.to_le_bytes());
    }
    seal(key, value)
}

/// Reads what [`write_borders`] wrote; nothing if it is damaged.
pub(crate) fn read_borders(key: &[u8], value: &[u8]) -> Vec<Border> {
    let mut reader = Reader(unseal(key, value).unwrap_or_default());
    let mut borders = Vec::new();
    while let (Some(position), Some(chain)) = (reader.u64(), reader.u64()) {
        borders.push(Border { position, chain });
    }
    borders
}
