//! The handler's own settings: the table `config` beside it in the operator's file.
//!
//! They never change while an instance lives, so what was made from them may be kept in a
//! `static`.

use std::str::FromStr;

use crate::{Failure, host, json};

/// The value of a key, or nothing if it is not set. A value that is not text is given as JSON.
#[must_use]
pub fn get(key: &str) -> Option<String> {
    host::setting(key)
}

/// All settings as one JSON object.
#[must_use]
pub fn all() -> String {
    host::all_settings()
}

/// The value of a key as a number or a truth value, or `default` if it is not set.
///
/// # Errors
/// [`Failure::Fatal`] that names the key if the value is something else.
pub fn parsed<T: FromStr>(key: &str, default: T) -> Result<T, Failure> {
    let Some(value) = get(key) else {
        return Ok(default);
    };
    let wanted = std::any::type_name::<T>();
    value
        .parse()
        .map_err(|_| Failure::fatal(format!("setting `{key}`: `{value}` is no {wanted}")))
}

/// The value of a key as a list of texts; nothing if it is not set.
///
/// # Errors
/// [`Failure::Fatal`] that names the key if the value is something else.
pub fn texts(key: &str) -> Result<Option<Vec<String>>, Failure> {
    let Some(value) = get(key) else {
        return Ok(None);
    };
    match json::texts(&value) {
        Some(texts) => Ok(Some(texts)),
        None => Err(Failure::fatal(format!(
            "setting `{key}`: `{value}` is no list of texts"
        ))),
    }
}
