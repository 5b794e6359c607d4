//! Secrets of the operator's. Needs the grant `secrets`, which names them. What only has to reach a
//! service is better bound to its address in the configuration: then no handler sees it.

use crate::host;

/// The secret of this name, or nothing if none was granted.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    host::secret(name)
}
