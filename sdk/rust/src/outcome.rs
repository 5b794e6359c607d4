//! What a sink says about an event.

use std::{borrow::Cow, time::Duration};

use crate::Failure;

/// What became of one event that a sink was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The other side has it for good.
    Done,
    /// It was not taken now, and comes again, not before `after` if that is given.
    Retry {
        reason: Cow<'static, str>,
        after: Option<Duration>,
    },
    /// It never can be taken, and is kept with this reason where a human can find it.
    Reject(Cow<'static, str>),
}

impl Outcome {
    /// The other side has it for good.
    #[must_use]
    pub fn done() -> Self {
        Self::Done
    }

    /// It comes again when the host thinks it right.
    pub fn retry(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Retry {
            reason: reason.into(),
            after: None,
        }
    }

    /// It never can be taken.
    pub fn reject(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Reject(reason.into())
    }

    /// Asks for at least this wait before the next attempt, counted in whole milliseconds. An
    /// event that does not come again stays as it is.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        match self {
            Self::Retry { reason, .. } => Self::Retry {
                reason,
                after: Some(wait),
            },
            other => other,
        }
    }
}

impl From<()> for Outcome {
    /// Nothing to say: it is done.
    fn from((): ()) -> Self {
        Self::Done
    }
}

impl From<Failure> for Outcome {
    /// What a failure of the batch says of one of its events, where others are done: it comes again,
    /// and what is fatal is met at once then.
    fn from(failure: Failure) -> Self {
        let (reason, after) = match failure {
            Failure::Retry { reason, after } => (reason, after),
            Failure::Fatal(reason) => (reason, None),
        };
        let reason = reason.into();
        Self::Retry { reason, after }
    }
}

/// What a function for one event of a sink may return.
pub trait IntoOutcome {
    /// The outcome, or why the whole batch failed.
    ///
    /// # Errors
    /// [`Failure`] if the function said so.
    fn into_outcome(self) -> Result<Outcome, Failure>;
}

impl<T: Into<Outcome>> IntoOutcome for T {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        Ok(self.into())
    }
}

impl<T: Into<Outcome>> IntoOutcome for Result<T, Failure> {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        self.map(Into::into)
    }
}
