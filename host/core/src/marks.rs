//! A part's own progress, kept in the transaction of the data it speaks of.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

/// What a part wrote last time: key to value. Empty for a part that never wrote.
#[derive(Debug, Clone, Default)]
pub struct Marks(Arc<BTreeMap<String, Bytes>>);

impl Marks {
    /// Marks from pairs.
    #[must_use]
    pub fn new(pairs: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        Self(Arc::new(pairs.into_iter().collect()))
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.0.get(key)
    }

    /// All marks, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// One mark to write or remove with a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkWrite {
    pub key: String,
    /// `None` removes the mark.
    pub value: Option<Bytes>,
    /// What the mark must be at the time of the commit for the commit to go through.
    pub expect: Expect,
}

/// The condition of a [`MarkWrite`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever it is.
    #[default]
    Any,
    /// Exactly this value, or no mark for `None`; else the commit fails with `Conflict`.
    Exactly(Option<Bytes>),
}

impl MarkWrite {
    /// Sets a mark, whatever it was.
    #[must_use]
    pub fn set(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
            expect: Expect::Any,
        }
    }

    /// Removes a mark, whatever it was.
    #[must_use]
    pub fn remove(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
            expect: Expect::Any,
        }
    }
}
