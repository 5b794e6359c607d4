//! Avro RPC out.

use levada_core::SinkKind;

use crate::Deps;

/// The types of sink in this file.
pub(crate) fn kinds(_deps: &Deps) -> Vec<SinkKind> {
    Vec::new()
}
