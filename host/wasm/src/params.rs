//! The settings of a handler: what stands under `[handlers.<name>]`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use levada_core::{
    ByteSize, PartId, Problem, Problems, Secret, Table, Value, choice, params,
    settings::{ValueKind, parse_params},
};

use crate::{
    Limits,
    grants::{self, CredentialParams, Destination, GrantParams, Grants},
    record::Masks,
    when::When,
};

choice! {
    /// What happens to an event that the handler rejects.
    pub enum OnReject {
        /// It is kept with its reason.
        DeadLetter = "dead-letter",
        /// It is gone, and counted.
        Discard = "discard",
        /// It goes on unchanged.
        Pass = "pass",
    }
}

choice! {
    /// What happens to an event on which the handler traps, hits a limit or breaks its contract.
    pub enum OnTrap {
        /// It is kept with the reason and a backtrace.
        DeadLetter = "dead-letter",
        /// It is gone, and counted.
        Discard = "discard",
        /// It goes on unchanged.
        Pass = "pass",
        /// The flow stops until a human has looked.
        Stop = "stop",
    }
}

choice! {
    /// How long an instance lives.
    pub enum Reuse {
        /// It serves many batches of this handler.
        Reuse = "reuse",
        /// It serves one batch.
        Fresh = "fresh",
    }
}

params! {
    /// What one call may use.
    pub struct LimitParams {
        /// All linear memories of an instance together.
        pub memory: ByteSize = "64MiB",
        /// CPU time of a call; 1 ms for each event, if that is more.
        pub cpu: Duration = "250ms",
        /// Wall time of a call: 1 s, of a sink's or a source's 30 s, if not set; twice its CPU
        /// time, if that is more.
        pub deadline: Option<Duration>,
    }
    later { "profile" }
}

params! {
    /// The largest batch a call is given; what is larger is cut.
    pub struct BatchParams {
        /// Most events.
        pub events: usize = 1000,
        /// Most bytes.
        pub bytes: ByteSize = "1MiB",
    }
    later { "wait" }
}

params! {
    /// A sandboxed handler.
    pub struct HandlerParams {
        /// The component's file.
        pub component: PathBuf,
        /// What the handler reads as its settings.
        pub config: Option<Table>,
        /// What one call may use.
        pub limits: Option<LimitParams>,
        /// What happens to events it rejects.
        pub on_reject: OnReject = "dead-letter",
        /// What happens to events on which it fails.
        pub on_trap: OnTrap = "dead-letter",
        /// Most instances at work at once; the number of cores if not set.
        pub instances: Option<usize>,
        /// Whether an instance serves many batches.
        pub instance: Reuse = "reuse",
        /// The largest batch of one call.
        pub batch: Option<BatchParams>,
        /// Most calls on their way at once where it delivers events; 1 keeps their order.
        pub in_flight: usize = 1,
        /// Which events it is called for, such as `header("type") == "log"`; the others pass.
        pub when: Option<When>,
        /// How often its timer is called.
        pub every: Option<Duration>,
        /// What it may use beside its batch and its settings.
        pub grants: Option<GrantParams>,
        /// How many calls that failed are kept as recordings, the latest ones; see `levada handler
        /// run --replay`.
        pub record_failures: usize = 0,
        /// Headers that the host adds to its requests, by destination.
        pub credentials: Option<BTreeMap<String, CredentialParams>>,
    }
    later { "on-retry", "on-fatal", "on-breaker", "require-signature" }
}

/// A handler as the configuration wants it, checked.
#[derive(Debug, Clone)]
pub struct HandlerSpec {
    /// The component's file.
    pub component: PathBuf,
    /// The handler's settings as one JSON object. May hold secrets.
    pub config: Config,
    pub limits: Limits,
    pub on_reject: OnReject,
    pub on_trap: OnTrap,
    /// Most instances at work at once.
    pub instances: usize,
    pub reuse: Reuse,
    /// Most calls on their way at once where it delivers events.
    pub in_flight: usize,
    /// Which events it is called for; all if not set.
    pub when: Option<When>,
    /// How often its timer is called.
    pub every: Option<Duration>,
    pub grants: Grants,
    /// How many calls that failed are kept as recordings.
    pub record_failures: usize,
    /// Headers that the host adds to its requests.
    pub credentials: Vec<(Destination, CredentialParams)>,
    /// Settings that are secret, by their keys.
    pub secret_settings: Vec<(String, Secret)>,
}

/// A handler's settings as JSON; shows nothing of itself, since it may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Config(pub String);

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl HandlerSpec {
    /// A handler with nothing but a component: every setting has its default.
    #[must_use]
    pub fn new(component: impl Into<PathBuf>) -> Self {
        Self {
            component: component.into(),
            config: Config("{}".into()),
            limits: Limits::default(),
            on_reject: OnReject::DeadLetter,
            on_trap: OnTrap::DeadLetter,
            instances: cores(),
            reuse: Reuse::Reuse,
            in_flight: 1,
            when: None,
            every: None,
            grants: Grants::default(),
            record_failures: 0,
            credentials: Vec::new(),
            secret_settings: Vec::new(),
        }
    }

    /// The same handler with other settings, as JSON text of one object.
    #[must_use]
    pub fn with_config(mut self, json: impl Into<String>) -> Self {
        self.config = Config(json.into());
        self
    }
}

impl HandlerSpec {
    /// Its secrets, for what is written down to be without.
    pub(crate) fn masks(&self) -> Masks {
        let granted = self.grants.secrets.iter();
        let granted = granted.map(|(name, secret)| (format!("grants.secrets.{name}"), secret));
        let settings = self.secret_settings.iter();
        let settings = settings.map(|(name, secret)| (name.clone(), secret));
        let bound = self.credentials.iter();
        let bound = bound.map(|(to, params)| (format!("credentials.\"{to}\""), &params.value));
        let all = granted.chain(settings).chain(bound);
        Masks::new(all.map(|(name, secret)| (name, secret.clone())))
    }
}

/// The most recordings of one handler that are kept.
const MOST_RECORDINGS: usize = 100;

/// The most instances one handler may have.
const MOST_INSTANCES: usize = 1024;

/// The most deliveries that one handler may have on their way.
const MOST_IN_FLIGHT: usize = 64;

/// The shortest time between two calls of a timer.
const LEAST_EVERY: Duration = Duration::from_millis(100);

/// What a handler may have as its state: all of it is held in memory, too.
const LEAST_STATE: ByteSize = ByteSize::kib(1);
const MOST_STATE: ByteSize = ByteSize::mib(1024);

/// The least memory with which any known guest starts (C and Rust without a standard library).
const LEAST_MEMORY: ByteSize = ByteSize::kib(64);

/// Reads a handler's table; `None` if anything in it is wrong. Touches no file.
pub fn check(part: &PartId, table: &Table, problems: &mut Problems) -> Option<HandlerSpec> {
    let params = parse_params::<HandlerParams>(table, &[], problems)?;
    let wrong = out_of_range(&params);
    for (key, message, allowed) in &wrong {
        let (first, last) = key.split_once('.').unwrap_or((key, key));
        let inner = table.get(first).and_then(|(_, value)| value.table());
        let entry = inner.and_then(|t| t.get(last)).or_else(|| table.get(first));
        let span = entry.map_or(table.span, |(_, value)| value.span);
        let path = format!("{part}.{key}");
        problems.push(Problem::error(Some(span), path, message).allowed(*allowed));
    }
    let grants = params.grants.map(Grants::from).unwrap_or_default();
    let credentials = params.credentials.unwrap_or_default();
    let credentials = grants::destinations(credentials, &grants.http, table, problems)?;
    if !wrong.is_empty() {
        return None;
    }
    let limits = params.limits.as_ref();
    let deadline = limits.and_then(|limits| limits.deadline);
    let batch = params.batch.as_ref();
    let defaults = Limits::default();
    let mut secret_settings = Vec::new();
    if let Some(settings) = &params.config {
        secrets_of(settings, "config", &mut secret_settings);
    }
    let config = params
        .config
        .map_or_else(|| "{}".into(), |table| table.to_json());
    Some(HandlerSpec {
        config: Config(config),
        limits: Limits {
            memory: limits.map_or(defaults.memory, |l| l.memory.as_usize()),
            cpu: limits.map_or(defaults.cpu, |l| l.cpu),
            deadline: deadline.unwrap_or(defaults.deadline),
            delivery_deadline: deadline.unwrap_or(defaults.delivery_deadline),
            batch_events: batch.map_or(defaults.batch_events, |b| b.events),
            batch_bytes: batch.map_or(defaults.batch_bytes, |b| b.bytes.as_usize()),
            ..defaults
        },
        on_reject: params.on_reject,
        on_trap: params.on_trap,
        instances: params.instances.unwrap_or_else(cores),
        reuse: params.instance,
        in_flight: params.in_flight,
        when: params.when,
        every: params.every,
        grants,
        record_failures: params.record_failures,
        credentials,
        secret_settings,
        component: params.component,
    })
}

/// Adds what is secret in a table of settings, with its key.
fn secrets_of(table: &Table, path: &str, found: &mut Vec<(String, Secret)>) {
    for (key, value) in &table.entries {
        secrets_in(value, &format!("{path}.{}", key.name), found);
    }
}

fn secrets_in(value: &Value, path: &str, found: &mut Vec<(String, Secret)>) {
    match &value.kind {
        ValueKind::Text { text, secret: true } => {
            found.push((path.to_owned(), Secret::new(text)));
        }
        ValueKind::Array(values) => values.iter().for_each(|it| secrets_in(it, path, found)),
        ValueKind::Table(table) => secrets_of(table, path, found),
        ValueKind::Bool(_)
        | ValueKind::Integer(_)
        | ValueKind::Float(_)
        | ValueKind::Text { .. }
        | ValueKind::Date(_) => {}
    }
}

/// A key, what is wrong with its value, and what is allowed.
type Wrong = (&'static str, String, &'static str);

/// Values that have the right type and cannot work.
fn out_of_range(params: &HandlerParams) -> Vec<Wrong> {
    let mut found: Vec<Wrong> = Vec::new();
    let mut wrong = |is: bool, key, message: &str, allowed| {
        if is {
            found.push((key, message.to_owned(), allowed));
        }
    };
    let file = params.component.to_string_lossy();
    let remote = "components from elsewhere are not in this version";
    wrong(
        file.contains("://"),
        "component",
        remote,
        "the path of a file",
    );
    let instances = params.instances.unwrap_or(1);
    let many = !(1..=MOST_INSTANCES).contains(&instances);
    wrong(many, "instances", "not a number of instances", "1 to 1024");
    let useless = "no guest can run with this";
    if let Some(limits) = &params.limits {
        let memory = limits.memory < LEAST_MEMORY || limits.memory.0 > 4 << 30;
        wrong(memory, "limits.memory", useless, "64KiB to 4GiB");
        wrong(limits.cpu.is_zero(), "limits.cpu", useless, "more than 0");
        wrong(
            limits.deadline.is_some_and(|deadline| deadline.is_zero()),
            "limits.deadline",
            useless,
            "more than 0",
        );
    }
    let many = !(1..=MOST_IN_FLIGHT).contains(&params.in_flight);
    wrong(many, "in-flight", "not a number of calls", "1 to 64");
    let many = params.record_failures > MOST_RECORDINGS;
    wrong(
        many,
        "record-failures",
        "not a number of recordings",
        "0 to 100",
    );
    let often = params.every.is_some_and(|every| every < LEAST_EVERY);
    wrong(often, "every", "too often", "100ms or more");
    let state = params.grants.as_ref().and_then(|grants| grants.state);
    let state = state.is_some_and(|most| most < LEAST_STATE || most > MOST_STATE);
    let message = "not a size for state that is kept in memory";
    wrong(state, "grants.state", message, "1KiB to 1GiB");
    if let Some(batch) = &params.batch {
        let events = !(1..=1000).contains(&batch.events);
        wrong(
            events,
            "batch.events",
            "not a batch of one call",
            "1 to 1000",
        );
        let bytes = batch.bytes.0 == 0 || batch.bytes > ByteSize::mib(1);
        wrong(
            bytes,
            "batch.bytes",
            "not a batch of one call",
            "1B to 1MiB",
        );
    }
    found
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
