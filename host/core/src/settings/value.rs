//! Values as they were written, and what reads them into types.

use std::{
    collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration,
};

use crate::{
    ByteSize, Name,
    settings::{Problem, Problems, json},
    units,
};

/// A place in one of the configuration's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The file's place in the list of files.
    pub file: u16,
    /// Byte offsets of the first byte and of one past the last.
    pub start: usize,
    pub end: usize,
}

/// A key and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    pub span: Span,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub kind: ValueKind,
    pub span: Span,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// Text after `${...}` was replaced; `secret` if part of it came from `file` or `cred`.
    Text {
        text: String,
        secret: bool,
    },
    Array(Vec<Value>),
    Table(Table),
    /// A date or time; nothing takes one.
    Date(String),
}

/// A table: its keys in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// The table's full path, such as `sources.plant`.
    pub path: String,
    /// Its header, or the whole inline table.
    pub span: Span,
    pub entries: Vec<(Key, Value)>,
}

impl Table {
    /// The entry of a key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&(Key, Value)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }

    /// The full path of one of its keys.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The table as JSON, for handlers' settings. Secrets are included.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::table(self)
    }
}

impl Value {
    /// A value that stands in no file: a default. Use the `From` impls.
    fn nowhere(kind: ValueKind) -> Self {
        Self {
            kind,
            span: Span::default(),
        }
    }

    /// What kind of value it is, as in `found`: `the number 5`, `the text "x"`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            ValueKind::Bool(value) => format!("`{value}`"),
            ValueKind::Integer(value) => format!("the number {value}"),
            ValueKind::Float(value) => format!("the number {value}"),
            ValueKind::Text { secret: true, .. } => "a text that is secret (`***`)".into(),
            ValueKind::Text { text, .. } => format!("the text {text:?}"),
            ValueKind::Array(_) => "a list".into(),
            ValueKind::Table(_) => "a table".into(),
            ValueKind::Date(_) => "a date".into(),
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            ValueKind::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The table, if it is one.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        match &self.kind {
            ValueKind::Table(table) => Some(table),
            _ => None,
        }
    }

    /// A problem with this value under `key`.
    #[must_use]
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem::error(Some(self.span), key, message).found(self.describe())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::nowhere(ValueKind::Bool(value))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::nowhere(ValueKind::Integer(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::nowhere(ValueKind::Float(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::nowhere(ValueKind::Text {
            text: value.into(),
            secret: false,
        })
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(value: [&str; N]) -> Self {
        Self::nowhere(ValueKind::Array(
            value.into_iter().map(Into::into).collect(),
        ))
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What is allowed, for people: `a duration such as "250ms"`.
    fn allowed() -> String;

    /// Reads a value found under `key` (its full path); a problem is added for each thing wrong.
    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self>;

    /// What stands for a key that is not there and has no default; only options have one.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether values are never shown.
    const SECRET: bool = false;
}

/// Adds the usual problem: found this, allowed is that.
fn refuse<T: Setting>(value: &Value, key: &str, problems: &mut Problems) -> Option<T> {
    problems.push(
        value
            .problem(key, "not a value for this key")
            .allowed(T::allowed()),
    );
    None
}

impl Setting for bool {
    fn allowed() -> String {
        "`true` or `false`".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        match value.kind {
            ValueKind::Bool(value) => Some(value),
            _ => refuse(value, key, problems),
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty: $allowed:literal,)*) => {$(
        impl Setting for $type {
            fn allowed() -> String {
                $allowed.into()
            }

            fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
                match value.kind {
                    ValueKind::Integer(number) if <$type>::try_from(number).is_ok() => {
                        <$type>::try_from(number).ok()
                    }
                    _ => refuse(value, key, problems),
                }
            }
        }
    )*};
}

whole_numbers! {
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number from 0 on",
    usize: "a whole number from 0 on",
    i64: "a whole number",
}

impl Setting for NonZeroU64 {
    fn allowed() -> String {
        "a whole number from 1 on".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let number = match value.kind {
            ValueKind::Integer(number) => u64::try_from(number).ok().and_then(Self::new),
            _ => None,
        };
        number.or_else(|| refuse(value, key, problems))
    }
}

impl Setting for f64 {
    fn allowed() -> String {
        "a number".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        match value.kind {
            ValueKind::Float(number) => Some(number),
            #[expect(clippy::cast_precision_loss, reason = "settings are small numbers")]
            ValueKind::Integer(number) => Some(number as Self),
            _ => refuse(value, key, problems),
        }
    }
}

impl Setting for String {
    fn allowed() -> String {
        "a text".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        value
            .text()
            .map(str::to_owned)
            .or_else(|| refuse(value, key, problems))
    }
}

impl Setting for PathBuf {
    fn allowed() -> String {
        "a path, as text".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let path = value.text().filter(|text| !text.is_empty()).map(Self::from);
        path.or_else(|| refuse(value, key, problems))
    }
}

impl Setting for Name {
    fn allowed() -> String {
        "a name: letters, digits, `-`, `_`, `.`, at most 64".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        value
            .text()
            .and_then(Self::new)
            .or_else(|| refuse(value, key, problems))
    }
}

impl Setting for Duration {
    fn allowed() -> String {
        "a duration with a unit (ns, us, ms, s, m, h, d), such as \"250ms\"".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        if let Some(read) = value.text().and_then(units::parse_duration) {
            return Some(read);
        }
        let mut problem = value
            .problem(key, "not a duration")
            .allowed(Self::allowed());
        if let ValueKind::Integer(number) = value.kind {
            problem = problem.help(format!("write \"{number}s\" for seconds or \"{number}ms\""));
        }
        problems.push(problem);
        None
    }
}

impl Setting for ByteSize {
    fn allowed() -> String {
        "a size with a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as \"64KiB\"".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        if let Some(read) = value.text().and_then(Self::parse) {
            return Some(read);
        }
        let mut problem = value.problem(key, "not a size").allowed(Self::allowed());
        if let ValueKind::Integer(number) = value.kind {
            problem = problem.help(format!("write \"{number}B\" for bytes or \"{number}MiB\""));
        }
        problems.push(problem);
        None
    }
}

impl Setting for SocketAddr {
    fn allowed() -> String {
        "an address and a port, such as \"127.0.0.1:4141\" or \"[::1]:4141\"".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let read = value.text().and_then(|text| text.parse().ok());
        read.or_else(|| refuse(value, key, problems))
    }
}

impl Setting for Table {
    fn allowed() -> String {
        "a table".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        value
            .table()
            .cloned()
            .or_else(|| refuse(value, key, problems))
    }
}

impl<T: Setting> Setting for Option<T> {
    fn allowed() -> String {
        T::allowed()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        T::read(value, key, problems).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    const SECRET: bool = T::SECRET;
}

impl<T: Setting> Setting for Vec<T> {
    fn allowed() -> String {
        format!("a list; each entry {}", T::allowed())
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let ValueKind::Array(values) = &value.kind else {
            let mut problem = value.problem(key, "not a list").allowed(Self::allowed());
            if let Some(text) = value.text() {
                problem = problem.help(format!("write [{text:?}]"));
            }
            problems.push(problem);
            return None;
        };
        let entry = |(n, value)| T::read(value, &format!("{key}[{n}]"), problems);
        let read: Vec<_> = values.iter().enumerate().map(entry).collect();
        read.into_iter().collect()
    }

    const SECRET: bool = T::SECRET;
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    fn allowed() -> String {
        format!("a table; each value {}", T::allowed())
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let Some(table) = value.table() else {
            return refuse(value, key, problems);
        };
        let mut read = Self::new();
        let mut whole = true;
        for (name, value) in &table.entries {
            match T::read(value, &format!("{key}.{}", name.name), problems) {
                Some(value) => drop(read.insert(name.name.clone(), value)),
                None => whole = false,
            }
        }
        whole.then_some(read)
    }

    const SECRET: bool = T::SECRET;
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Secret {
    fn allowed() -> String {
        "a text, best from \"${file:/path}\", \"${cred:name}\" or \"${env:NAME}\"".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        match &value.kind {
            ValueKind::Text { text, .. } => Some(Self(text.clone())),
            _ => {
                let problem = Problem::error(Some(value.span), key, "not a text");
                problems.push(problem.allowed(Self::allowed()));
                None
            }
        }
    }

    const SECRET: bool = true;
}

/// The problem of a word that is not among those allowed.
#[must_use]
pub fn choice_problem(value: &Value, key: &str, words: &[&str]) -> Problem {
    let allowed: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    let problem = value
        .problem(key, "not one of the allowed words")
        .allowed(allowed.join(", "));
    problem.nearest(value.text().unwrap_or_default(), words.iter().copied())
}
