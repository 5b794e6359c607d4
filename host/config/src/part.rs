//! What every source, sink and interceptor has in its table, whatever its type.

use std::time::Duration;

use levada_core::{
    ByteSize, Name, Params, PartId, Problem, Problems, Table, Value, choice, params, settings::Key,
};

use crate::{agent::defaults, selector::SelectorConfig};

params! {
    /// Keys of every source.
    pub struct SourceCommon {
        /// What kind of source it is.
        pub r#type: String,
        /// The channels its events go into.
        pub channels: Option<Vec<Name>>,
        /// Interceptors and handlers every event passes, in order.
        pub interceptors: Option<Vec<Name>>,
        /// How channels are chosen: all of them, or by a header.
        pub selector: Option<Table>,
        /// How long a put may wait for room; then the peer is told to try again.
        pub put_timeout: Option<Duration>,
    }
}

params! {
    /// Keys of every sink.
    pub struct SinkCommon {
        /// What kind of sink it is.
        pub r#type: String,
        /// The channel it takes from.
        pub channel: Name,
        /// How much it takes at once.
        pub batch: Option<BatchParams>,
        /// How long it waits before it tries again.
        pub back_off: Option<BackOffParams>,
        /// How often it may ask to retry one event before that goes to the dead letters; unlimited
        /// if not set. An outage does not count.
        pub max_attempts: Option<u32>,
    }
    later { "interceptors" }
}

params! {
    /// Keys of every native interceptor.
    pub struct InterceptorCommon {
        /// What kind of interceptor it is.
        pub r#type: String,
    }
}

params! {
    /// Limits of a batch; whichever comes first.
    pub struct BatchParams {
        /// Most events.
        pub events: BatchEvents = 1000,
        /// Most bytes.
        pub bytes: ByteSize = "1MiB",
        /// How long to wait for more after the first event.
        pub wait: Duration = "50ms",
    }
}

params! {
    /// How long a sink waits before it tries again: full jitter, doubled each time.
    pub struct BackOffParams {
        /// The first wait.
        pub first: Duration = "100ms",
        /// The longest, while the other side is not there.
        pub unreachable: Duration = "2s",
        /// The longest, while the other side is there and refuses.
        pub refused: Duration = "60s",
    }
}

/// Events of one batch: 1 to 100,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEvents(pub usize);

impl levada_core::settings::Setting for BatchEvents {
    fn allowed() -> String {
        "a whole number from 1 to 100000".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let number = match value.kind {
            levada_core::settings::ValueKind::Integer(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let read = number.filter(|n| (1..=100_000).contains(n)).map(Self);
        if read.is_none() {
            let problem = value.problem(key, "not a value for this key");
            problems.push(problem.allowed(Self::allowed()));
        }
        read
    }
}

choice! {
    /// Tables that hold parts by name.
    pub(crate) enum Section {
        Sources = "sources",
        Interceptors = "interceptors",
        Handlers = "handlers",
        Channels = "channels",
        Sinks = "sinks",
        Groups = "groups",
    }
}

impl Default for BatchParams {
    fn default() -> Self {
        defaults()
    }
}

impl Default for BackOffParams {
    fn default() -> Self {
        defaults()
    }
}

/// A source: what all have, and its own keys for the component that knows them.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    pub part: PartId,
    pub common: SourceCommon,
    pub selector: SelectorConfig,
    /// Interceptors and handlers, in order.
    pub chain: Vec<PartId>,
    pub table: Table,
}

/// A sink: what all have, and its own keys for the component that knows them.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    pub part: PartId,
    pub common: SinkCommon,
    pub table: Table,
}

/// A native interceptor.
#[derive(Debug, Clone)]
pub struct InterceptorConfig {
    pub part: PartId,
    pub common: InterceptorCommon,
    pub table: Table,
}

/// A handler: all its keys belong to the crate that runs it.
#[derive(Debug, Clone)]
pub struct HandlerConfig {
    pub part: PartId,
    pub table: Table,
}

impl SourceCommon {
    /// The keys that are read here and not by the component.
    pub const KEYS: &'static [&'static str] = &[
        "type",
        "channels",
        "interceptors",
        "selector",
        "put-timeout",
    ];
}

impl SinkCommon {
    /// The keys that are read here and not by the component.
    pub const KEYS: &'static [&'static str] = &[
        "type",
        "channel",
        "interceptors",
        "batch",
        "back-off",
        "max-attempts",
    ];
}

impl InterceptorCommon {
    /// The keys that are read here and not by the component.
    pub const KEYS: &'static [&'static str] = &["type"];
}

/// The keys of a part that all of its kind have; `None` if one of them is wrong.
pub(crate) fn common<P: Params>(table: &Table, problems: &mut Problems) -> Option<P> {
    for (key, _) in &table.entries {
        if P::later().contains(&key.name.as_str()) {
            let path = table.path_of(&key.name);
            problems.push(Problem::error(Some(key.span), path, "not in this version"));
        }
    }
    P::read_fields(table, problems)
}

/// The parts of one section: `[sources.plant]` and so on. What is no part is a problem.
pub(crate) fn parts<'a>(
    root: &'a Table,
    section: Section,
    problems: &mut Problems,
) -> Vec<(Name, &'a Key, &'a Table)> {
    let word = section.as_str();
    let Some((key, value)) = root.get(word) else {
        return Vec::new();
    };
    let Some(table) = value.table() else {
        let help = format!("write [{word}.NAME] above the keys of each");
        let problem = Problem::error(Some(key.span), word, "not a table of parts");
        problems.push(problem.found(value.describe()).help(help));
        return Vec::new();
    };
    let is_part = |(_, value): &(Key, Value)| value.table().is_some();
    if !table.entries.is_empty() && !table.entries.iter().any(is_part) {
        let message = "keys without the name of a part";
        let problem = Problem::error(Some(key.span), word, message);
        problems.push(problem.help(format!("write [{word}.NAME] above the keys of each")));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (key, value) in &table.entries {
        let path = table.path_of(&key.name);
        match (Name::new(&key.name), value.table()) {
            (Some(name), Some(part)) => found.push((name, key, part)),
            (None, _) => problems.push(
                Problem::error(Some(key.span), path, "not a name for a part")
                    .allowed("letters, digits, `-`, `_`, `.`, at most 64"),
            ),
            (Some(_), None) => problems.push(
                Problem::error(Some(key.span), path, "not a table")
                    .found(value.describe())
                    .help(format!("write [{word}.NAME] above the keys of each")),
            ),
        }
    }
    found
}
