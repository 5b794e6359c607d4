//! Why a whole batch was not handled.

use std::time::Duration;

/// Why a whole batch was not handled. Nothing that the call did to its events counts then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The same batch comes again later, not before `after` if that is given.
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// No batch can be handled until a human has looked: wrong settings, for example.
    Fatal(String),
}

impl Failure {
    /// The same batch comes again when the host thinks it right.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
            after: None,
        }
    }

    /// No batch can be handled until a human has looked.
    pub fn fatal(reason: impl Into<String>) -> Self {
        Self::Fatal(reason.into())
    }

    /// Asks for at least this wait before the next attempt, counted in whole milliseconds. A
    /// failure that is fatal stays as it is.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        match self {
            Self::Retry { reason, .. } => Self::Retry {
                reason,
                after: Some(wait),
            },
            Self::Fatal(reason) => Self::Fatal(reason),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Retry { reason, .. } => write!(f, "to be tried again: {reason}"),
            Self::Fatal(reason) => write!(f, "fatal: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}
