//! The same for the guest and for the native yardstick.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The text that is looked for in bodies.
pub const NEEDLE: &str = "temperature_alarm";

/// The header that is added where the text is found.
pub const HEADER: (&str, &str) = ("alarm", "temperature");

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NEEDLE));

/// Whether the text is in this body.
pub fn found(body: &[u8]) -> bool {
    FINDER.find(body).is_some()
}
