//! What can go wrong with the store's file, and calls of redb that cannot take the process along.

use std::{
    fmt,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Why a call of redb failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    pub(crate) text: String,
}

/// What has to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// No space is left on the disk.
    Full,
    /// The disk gave an error, now or before.
    Io,
    /// The pages are not what redb wrote, or redb panicked over them.
    Damage,
}

impl Trouble {
    pub(crate) fn io(text: impl Into<String>) -> Self {
        Self {
            kind: TroubleKind::Io,
            text: text.into(),
        }
    }

    pub(crate) fn damage(text: impl Into<String>) -> Self {
        Self {
            kind: TroubleKind::Damage,
            text: text.into(),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        let kind = match &error {
            redb::Error::Io(io) => kind_of(io.kind()),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => TroubleKind::Io,
            _ => TroubleKind::Damage,
        };
        Self {
            kind,
            text: text(&error),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self {
            kind: kind_of(error.kind()),
            text: text(&error),
        }
    }
}

fn kind_of(kind: ErrorKind) -> TroubleKind {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => TroubleKind::Full,
        // A page beyond the end, or a header that is none: no disk says so.
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => TroubleKind::Damage,
        _ => TroubleKind::Io,
    }
}

/// Calls redb; a panic becomes trouble.
pub(crate) fn guarded<T, E: Into<redb::Error>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| Trouble::from(error.into())),
        Err(panic) => Err(Trouble::damage(panic_text(panic.as_ref()))),
    }
}

/// An error with all its causes, in one line.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes {
        let cause = cause.to_string();
        // redb's errors print their cause themselves.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let known = panic.downcast_ref::<&str>().copied();
    let known = known.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the storage engine panicked: {}",
        known.unwrap_or("without a word")
    )
}
