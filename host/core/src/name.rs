//! Names from the configuration, as types.

use std::{fmt, sync::Arc};

use serde::Serialize;

/// A name from the configuration: letters, digits, `-`, `_` and `.`, 1 to 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and takes a name; `None` if it is not one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len());
        let clean = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        (fits && clean).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ChannelName(pub Name);

impl ChannelName {
    /// Checks and takes a channel's name; `None` if it is not a [`Name`].
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        Name::new(text).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of part a name belongs to; its text is the table's name in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    Agent,
    Sources,
    Interceptors,
    Handlers,
    Channels,
    Sinks,
    Groups,
}

impl PartKind {
    /// Every kind, in the order of the configuration.
    pub const ALL: [Self; 7] = [
        Self::Agent,
        Self::Sources,
        Self::Interceptors,
        Self::Handlers,
        Self::Channels,
        Self::Sinks,
        Self::Groups,
    ];

    /// The table's name: `sources`, `channels`, ...
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Sources => "sources",
            Self::Interceptors => "interceptors",
            Self::Handlers => "handlers",
            Self::Channels => "channels",
            Self::Sinks => "sinks",
            Self::Groups => "groups",
        }
    }
}

/// One part of an agent, written `sources.plant`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    pub kind: PartKind,
    pub name: Name,
}

impl PartId {
    /// The part of that kind and name.
    #[must_use]
    pub fn new(kind: PartKind, name: Name) -> Self {
        Self { kind, name }
    }

    /// Reads `sources.plant`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('.')?;
        let kind = PartKind::ALL.into_iter().find(|k| k.as_str() == kind)?;
        Some(Self {
            kind,
            name: Name::new(name)?,
        })
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind.as_str(), self.name)
    }
}

impl Serialize for PartId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
