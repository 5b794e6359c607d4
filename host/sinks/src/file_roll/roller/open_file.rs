//! One file while it is written.

use std::time::Duration;

use tokio::time::Instant;

use super::{Settings, StepError, step};
use crate::file_roll::{
    disk::DiskFile,
    mark::{FileMark, State},
};

/// A file, its length with what is not written yet, and when it ends.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// The final path.
    pub path: String,
    pub file: Box<dyn DiskFile>,
    pub length: u64,
    pub events: u64,
    pub opened_ms: u64,
    pub roll_at: Option<Instant>,
    pub idle_at: Option<Instant>,
    /// Lines that are counted in `length` and not written yet.
    pub pending: Vec<u8>,
    pub used: u64,
}

impl OpenFile {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        [self.roll_at, self.idle_at]
            .into_iter()
            .flatten()
            .any(|at| at <= now)
    }

    /// Whether a line of so many bytes belongs into the next file.
    pub(super) fn is_full(&self, line: u64, settings: &Settings) -> bool {
        let too_long = |most: u64| self.length > 0 && self.length + line > most;
        settings.bytes.is_some_and(too_long)
            || settings.events.is_some_and(|most| self.events >= most)
    }

    pub(super) fn append(&mut self, line: &[u8], used: u64, idle: Option<Duration>, now: Instant) {
        self.pending.extend_from_slice(line);
        self.length += line.len() as u64;
        self.events += 1;
        self.used = used;
        self.idle_at = idle.map(|idle| now + idle);
    }

    /// Writes and syncs what is pending; whether there was anything.
    pub(super) fn flush(&mut self) -> Result<bool, StepError> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        let at = self.length - self.pending.len() as u64;
        self.file
            .write_at(&self.pending, at)
            .map_err(step("write", &self.path))?;
        self.file.sync().map_err(step("sync", &self.path))?;
        self.pending = Vec::new();
        Ok(true)
    }

    pub(super) fn mark(&self, bucket: &str, state: State) -> FileMark {
        FileMark {
            state,
            length: self.length,
            events: self.events,
            bucket: bucket.to_owned(),
            opened_ms: self.opened_ms,
        }
    }
}
