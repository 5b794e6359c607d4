//! Numbers that the operator sees beside the host's own.
//!
//! A name has 1 to 64 letters, digits, `-`, `_` or `.`. A handler has a bounded number of names;
//! what it writes under further ones, and amounts that are no finite number, are dropped and
//! counted.

use crate::host;

/// Adds to a counter; an amount below 0 is dropped.
pub fn add(name: &str, amount: f64) {
    host::add_metric(name, amount);
}

/// Sets a gauge.
pub fn set(name: &str, value: f64) {
    host::set_metric(name, value);
}
