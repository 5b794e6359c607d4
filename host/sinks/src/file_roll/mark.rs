//! What the sink keeps about its files in the store: one mark a file, and the next number.

use std::collections::BTreeMap;

use levada_core::{MarkWrite, Marks};
use serde::{Deserialize, Serialize};

/// The mark of the next file's number.
const NEXT: &str = "next";

/// The marks of files: this, and the file's final path.
const FILE: &str = "file/";

/// The version of [`Stored`].
const VERSION: u32 = 1;

/// A file as the store knows it: everything up to `length` was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct FileMark {
    pub state: State,
    pub length: u64,
    pub events: u64,
    /// Which events go into the file while it is open.
    pub bucket: String,
    /// Wall time of its making, in milliseconds since 1970.
    pub opened_ms: u64,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// More may be appended.
    Open,
    /// Complete: it gets its final name.
    Done,
}

/// All marks of a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The number of the next file; `None` before the first settlement.
    pub next: Option<u64>,
    /// By final path.
    pub files: BTreeMap<String, FileMark>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    #[serde(flatten)]
    mark: FileMark,
}

impl Ledger {
    /// Reads what was written.
    ///
    /// # Errors
    /// The key of a mark that this version cannot read.
    pub(crate) fn read(marks: &Marks) -> Result<Self, String> {
        let mut ledger = Self::default();
        for (key, value) in marks.iter() {
            if key == NEXT {
                let text = std::str::from_utf8(value).ok();
                let next = text.and_then(|text| text.parse().ok()).ok_or(key)?;
                ledger.next = Some(next);
            } else if let Some(path) = key.strip_prefix(FILE) {
                let stored: Stored = serde_json::from_slice(value).map_err(|_| key)?;
                if stored.v != VERSION {
                    return Err(key.to_owned());
                }
                ledger.files.insert(path.to_owned(), stored.mark);
            }
        }
        Ok(ledger)
    }
}

/// The mark of a file.
pub(crate) fn file(path: &str, mark: &FileMark) -> MarkWrite {
    let stored = Stored {
        v: VERSION,
        mark: mark.clone(),
    };
    let value = serde_json::to_vec(&stored).expect("numbers and text into memory cannot fail");
    MarkWrite::set(format!("{FILE}{path}"), value)
}

/// The end of a file's mark.
pub(crate) fn gone(path: &str) -> MarkWrite {
    MarkWrite::remove(format!("{FILE}{path}"))
}

/// The mark of the next number.
pub(crate) fn next(number: u64) -> MarkWrite {
    MarkWrite::set(NEXT, number.to_string())
}
