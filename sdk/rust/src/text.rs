//! Text by the host: for symmetry with other languages.
//!
//! In Rust `std::str::from_utf8` does the same without leaving the handler, and is faster.

use crate::host;

/// The text of UTF-8 bytes, or nothing if they are not UTF-8.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<String> {
    host::decode(bytes)
}

/// The UTF-8 bytes of a text.
#[must_use]
pub fn encode(text: &str) -> Vec<u8> {
    host::encode(text)
}
