//! Settings with their place in the file: what was written, before anyone knows what it means.
//!
//! The `config` crate reads files into [`Table`]s; each part names its keys once with
//! [`params!`](crate::params), which gives the parser, the defaults, the documentation and the list
//! of known names. Every problem is collected, none is thrown.

mod json;
mod params;
mod problem;
mod value;

#[cfg(test)]
mod tests;

pub use params::{Field, Params, parse_params};
pub use problem::{Problem, Problems, Severity, nearest};
pub use value::{Key, Secret, Setting, Span, Table, Value, ValueKind, choice_problem};

#[doc(hidden)]
pub mod internals {
    pub use super::params::{default_text, key_of, read_field};
}
