//! Other programs beside Levada: whether they are here, and what came of runs against them, one row
//! each, for the file that `cargo x peers` keeps.

use std::{env, fs::OpenOptions, io::Write, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::record::Compared;

/// What a test runs against, or nothing where it is not and need not be: it must be where the
/// variable `required` is `1`.
///
/// # Errors
/// It is not there, and must be.
#[expect(clippy::print_stdout, reason = "what is left out is worth reading")]
pub fn here<T>(found: Result<T>, required: &str) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if env::var_os(required).is_some_and(|value| value == "1") => Err(error),
        Err(error) => {
            println!("not run: {error:#}");
            Ok(None)
        }
    }
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What was done, such as `kill`.
    pub case: String,
    /// Who sent to whom, such as `Flume 1.9.0 -> Levada -> Flume 1.11.0`.
    pub path: String,
    /// How bytes travelled.
    pub wire: String,
    /// Most events in one call.
    pub batch: usize,
    pub sent: usize,
    pub missing: usize,
    pub duplicates: usize,
    pub damaged: usize,
    pub out_of_order: usize,
    /// What the figures do not say.
    pub remark: String,
}

impl Row {
    /// A row of these figures.
    #[must_use]
    pub fn new(case: &str, path: &str, (wire, batch): (&str, usize), compared: &Compared) -> Self {
        Self {
            case: case.into(),
            path: path.into(),
            wire: wire.into(),
            batch,
            sent: compared.sent,
            missing: compared.missing,
            duplicates: compared.duplicates,
            damaged: compared.damaged,
            out_of_order: compared.out_of_order,
            remark: String::new(),
        }
    }

    /// With a remark.
    #[must_use]
    pub fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = remark.into();
        self
    }

    /// Appends the row to the results, as a line of JSON, if somebody collects them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<()> {
        let Some(path) = results() else {
            return Ok(());
        };
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        file.write_all(line.as_bytes())?;
        Ok(())
    }
}

/// Whether every combination is wanted: results are collected. Otherwise each value of each
/// dimension is met at least once.
#[must_use]
pub fn whole_matrix() -> bool {
    results().is_some()
}

fn results() -> Option<PathBuf> {
    env::var_os("LEVADA_PEERS_RESULTS").map(PathBuf::from)
}
