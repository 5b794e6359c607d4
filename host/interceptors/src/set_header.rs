//! Setting one header to one value on every event of a batch.

use levada_core::{Batch, Limits, Patch, Problem, Problems, Table};

/// A header and what to do where it is there already.
#[derive(Debug, Clone)]
pub(crate) struct SetHeader {
    pub(crate) name: String,
    pub(crate) existing: Existing,
}

/// What becomes of a value that an event already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Preserve,
    Overwrite,
}

impl Existing {
    /// Reads the key `preserve-existing`.
    pub(crate) fn preserve(preserve: bool) -> Self {
        if preserve {
            Self::Preserve
        } else {
            Self::Overwrite
        }
    }
}

impl SetHeader {
    /// Sets the header on every event that is to have it. The patch is made once.
    pub(crate) fn set(&self, batch: &Batch, value: &str) -> Batch {
        let mut patch = Patch::new();
        patch
            .set(&self.name, value)
            .expect("an empty patch names no header yet");
        let mut edit = batch.edit();
        while let Some(event) = edit.peek() {
            if self.existing == Existing::Preserve && event.header(&self.name).is_some() {
                edit.keep(1);
            } else {
                edit.patch(&patch, None);
            }
        }
        edit.finish()
    }
}

/// Refuses a header's name that no event may have.
pub(crate) fn check_name(name: &str, key: &str, table: &Table, problems: &mut Problems) {
    check_length(name, key, 1..=Limits::default().name, table, problems);
}

/// Refuses a header's value that no event may have.
pub(crate) fn check_value(value: &str, key: &str, table: &Table, problems: &mut Problems) {
    check_length(value, key, 0..=Limits::default().value, table, problems);
}

fn check_length(
    text: &str,
    key: &str,
    allowed: std::ops::RangeInclusive<usize>,
    table: &Table,
    problems: &mut Problems,
) {
    if allowed.contains(&text.len()) {
        return;
    }
    let span = table.get(key).map_or(table.span, |(_, value)| value.span);
    let range = format!("a text of {} to {} bytes", allowed.start(), allowed.end());
    let message = format!("a text of {} bytes", text.len());
    problems.push(Problem::error(Some(span), table.path_of(key), message).allowed(range));
}
