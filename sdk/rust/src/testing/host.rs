//! What the imports do in a unit test.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    http::{Problem, Request, Response},
    log::Level,
};

/// What stands in for the servers.
type Servers = Box<dyn FnMut(&Request) -> Result<Response, Problem>>;

#[derive(Default)]
struct Host {
    settings: BTreeMap<String, String>,
    /// Names of the settings that were asked for.
    asked: BTreeSet<String>,
    log: Vec<(Level, String)>,
    metrics: BTreeMap<String, f64>,
    attempt: Option<u32>,
    received_ms: f64,
    now_ms: u64,
    random: u64,
    state: State,
    tables: BTreeMap<(String, String), Vec<(String, String)>>,
    secrets: BTreeMap<String, String>,
    servers: Option<Servers>,
    requests: Vec<Request>,
}

/// Values with the time at which they are gone.
pub(super) type State = BTreeMap<String, (Vec<u8>, Option<u64>)>;

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Gives this thread's handler a setting. What is not text is given as JSON, as a host does.
pub fn set_setting(key: &str, value: &str) {
    HOST.with_borrow_mut(|host| host.settings.insert(key.to_owned(), value.to_owned()));
}

/// Names of the settings that this thread's handler has asked for, each once, sorted.
#[must_use]
pub fn settings_asked() -> Vec<String> {
    HOST.with_borrow(|host| host.asked.iter().cloned().collect())
}

/// Names of the settings that a handler's `levada.toml` describes, sorted: what
/// [`settings_asked`] should give once it has read them all.
#[must_use]
pub fn settings_described(manifest: &str) -> Vec<String> {
    let described = |line: &str| {
        Some(
            line.strip_prefix("[settings.")?
                .strip_suffix(']')?
                .to_owned(),
        )
    };
    let names: BTreeSet<String> = manifest.lines().filter_map(described).collect();
    names.into_iter().collect()
}

/// What [`crate::call::attempt`] is to say; 1 if it is not set.
pub fn set_attempt(attempt: u32) {
    HOST.with_borrow_mut(|host| host.attempt = Some(attempt));
}

/// What [`crate::call::received_ms`] is to say; 0 if it is not set.
pub fn set_received_ms(time: f64) {
    HOST.with_borrow_mut(|host| host.received_ms = time);
}

/// What [`crate::clock::now_ms`] is to say, and by what time to live is counted; 0 if it is not set.
pub fn set_now_ms(now: u64) {
    HOST.with_borrow_mut(|host| host.now_ms = now);
}

/// Gives this thread's handler a row of a table.
pub fn set_row<'a>(table: &str, key: &str, columns: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let row = columns.into_iter().map(own).collect();
    let key = (table.to_owned(), key.to_owned());
    HOST.with_borrow_mut(|host| host.tables.insert(key, row));
}

/// Gives this thread's handler a secret.
pub fn set_secret(name: &str, secret: &str) {
    let (name, secret) = (name.to_owned(), secret.to_owned());
    HOST.with_borrow_mut(|host| host.secrets.insert(name, secret));
}

/// The state as it is, to be put back if a call fails.
pub(super) fn state() -> State {
    HOST.with_borrow(|host| host.state.clone())
}

pub(super) fn put_back(state: State) {
    HOST.with_borrow_mut(|host| host.state = state);
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

/// What answers the requests of this thread's handler. Without it every request is denied.
pub fn answer_requests(servers: impl FnMut(&Request) -> Result<Response, Problem> + 'static) {
    HOST.with_borrow_mut(|host| host.servers = Some(Box::new(servers)));
}

/// The requests that this thread's handler sent, in order.
#[must_use]
pub fn requests() -> Vec<Request> {
    HOST.with_borrow(|host| host.requests.clone())
}

/// Forgets everything that was set and written on this thread.
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
    HOST.with_borrow_mut(|host| {
        host.asked.insert(key.to_owned());
        host.settings.get(key).cloned()
    })
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

pub(crate) fn send(request: &Request) -> Result<Response, Problem> {
    // Taken out while it runs: it may look at what was sent until now.
    let servers = HOST.with_borrow_mut(|host| {
        host.requests.push(request.clone());
        host.servers.take()
    });
    let Some(mut servers) = servers else {
        return Err(Problem::Denied("this test answers no requests".into()));
    };
    let answer = servers(request);
    HOST.with_borrow_mut(|host| {
        host.servers.get_or_insert(servers);
    });
    answer
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

impl Host {
    fn alive(&mut self) -> &mut State {
        let now = self.now_ms;
        self.state
            .retain(|_, (_, until)| until.is_none_or(|until| until > now));
        &mut self.state
    }

    fn after(&self, seconds: u32) -> u64 {
        self.now_ms + u64::from(seconds) * 1000
    }
}

pub(crate) fn state_get(key: &str) -> Option<Vec<u8>> {
    HOST.with_borrow_mut(|host| host.alive().get(key).map(|(value, _)| value.clone()))
}

pub(crate) fn state_set(key: &str, value: &[u8], ttl_s: Option<u32>) -> Result<(), String> {
    HOST.with_borrow_mut(|host| {
        let until = ttl_s.map(|seconds| host.after(seconds));
        host.alive().insert(key.to_owned(), (value.to_vec(), until));
    });
    Ok(())
}

pub(crate) fn state_remove(key: &str) {
    HOST.with_borrow_mut(|host| host.alive().remove(key));
}

pub(crate) fn state_increment(key: &str, by: f64, ttl_s: Option<u32>) -> Result<f64, String> {
    HOST.with_borrow_mut(|host| {
        let until = ttl_s.map(|seconds| host.after(seconds));
        let before = host.alive().get(key).cloned();
        let (text, old) = before.unwrap_or_else(|| (b"0".to_vec(), None));
        let number = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse::<f64>().ok());
        let sum = number.ok_or_else(|| format!("what is kept under `{key}` is no number"))? + by;
        let value = (sum.to_string().into_bytes(), until.or(old));
        host.state.insert(key.to_owned(), value);
        Ok(sum)
    })
}

pub(crate) fn state_keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    HOST.with_borrow_mut(|host| {
        let keys = host.alive().keys();
        let wanted = keys.filter(|key| key.starts_with(prefix));
        let rest = wanted.filter(|key| after.is_none_or(|after| key.as_str() > after));
        rest.take(limit.min(1000) as usize).cloned().collect()
    })
}

pub(crate) fn find(table: &str, key: &str) -> Option<Vec<(String, String)>> {
    let key = (table.to_owned(), key.to_owned());
    HOST.with_borrow(|host| host.tables.get(&key).cloned())
}

pub(crate) fn secret(name: &str) -> Option<String> {
    HOST.with_borrow(|host| host.secrets.get(name).cloned())
}

pub(crate) fn now_ms() -> u64 {
    HOST.with_borrow(|host| host.now_ms)
}

/// The same bytes in every run.
pub(crate) fn fill_random(buffer: &mut [u8]) {
    HOST.with_borrow_mut(|host| {
        for byte in buffer {
            host.random = host.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (host.random ^ (host.random >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = mixed.to_le_bytes()[7];
        }
    });
}
