//! What the imports do in a unit test.

use std::{cell::RefCell, collections::BTreeMap, fmt::Write};

use crate::log::Level;

#[derive(Default)]
struct Host {
    settings: BTreeMap<String, String>,
    log: Vec<(Level, String)>,
    metrics: BTreeMap<String, f64>,
    attempt: Option<u32>,
    received_ms: f64,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Gives this thread's handler a setting. What is not text is given as JSON, as a host does.
pub fn set_setting(key: &str, value: &str) {
    HOST.with_borrow_mut(|host| host.settings.insert(key.to_owned(), value.to_owned()));
}

/// What [`crate::call::attempt`] is to say; 1 if it is not set.
pub fn set_attempt(attempt: u32) {
    HOST.with_borrow_mut(|host| host.attempt = Some(attempt));
}

/// What [`crate::call::received_ms`] is to say; 0 if it is not set.
pub fn set_received_ms(time: f64) {
    HOST.with_borrow_mut(|host| host.received_ms = time);
}

/// The lines that this thread's handler wrote.
#[must_use]
pub fn log_lines() -> Vec<(Level, String)> {
    HOST.with_borrow(|host| host.log.clone())
}

/// The value of a metric that this thread's handler wrote.
#[must_use]
pub fn metric(name: &str) -> Option<f64> {
    HOST.with_borrow(|host| host.metrics.get(name).copied())
}

/// Forgets settings, log and metrics of this thread.
pub fn clear() {
    HOST.with_borrow_mut(|host| *host = Host::default());
}

pub(crate) fn component() -> String {
    "sources.test".to_owned()
}

pub(crate) fn handler() -> String {
    "test".to_owned()
}

pub(crate) fn attempt() -> u32 {
    HOST.with_borrow(|host| host.attempt.unwrap_or(1))
}

pub(crate) fn batch_key() -> String {
    "test".to_owned()
}

pub(crate) fn received_ms() -> f64 {
    HOST.with_borrow(|host| host.received_ms)
}

pub(crate) fn remaining_ms() -> u32 {
    1000
}

pub(crate) fn write_log(level: u8, message: &str) {
    let levels = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
    ];
    let level = levels
        .get(usize::from(level))
        .copied()
        .unwrap_or(Level::Error);
    HOST.with_borrow_mut(|host| host.log.push((level, message.to_owned())));
}

pub(crate) fn setting(key: &str) -> Option<String> {
    HOST.with_borrow(|host| host.settings.get(key).cloned())
}

/// Every value as a JSON string: a test that needs other types reads them with `setting`.
pub(crate) fn all_settings() -> String {
    HOST.with_borrow(|host| {
        let members: Vec<_> = host
            .settings
            .iter()
            .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

pub(crate) fn encode(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

pub(crate) fn add_metric(name: &str, amount: f64) {
    if amount.is_finite() && amount >= 0.0 {
        HOST.with_borrow_mut(|host| *host.metrics.entry(name.to_owned()).or_default() += amount);
    }
}

pub(crate) fn set_metric(name: &str, value: f64) {
    if value.is_finite() {
        HOST.with_borrow_mut(|host| host.metrics.insert(name.to_owned(), value));
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..=' ' => write!(out, "\\u{:04x}", u32::from(character))
                .expect("writing to a string does not fail"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
