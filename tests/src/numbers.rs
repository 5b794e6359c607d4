//! The numbered events of a `seq` source, in the files that a `file-roll` sink wrote.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;

use crate::outputs::{self, Line};

/// How many different numbers lie in the files below a folder, which need not be there yet.
///
/// # Errors
/// The folder cannot be read.
pub fn distinct(folder: &Path) -> Result<u64> {
    let mut found = BTreeSet::new();
    each(folder, |body| {
        found.insert(body);
    })?;
    Ok(found.len() as u64)
}

/// How many lines lie in the files below a folder.
///
/// # Errors
/// The folder cannot be read.
pub fn lines(folder: &Path) -> Result<u64> {
    let mut count = 0;
    each(folder, |_| count += 1)?;
    Ok(count)
}

fn each(folder: &Path, mut see: impl FnMut(String)) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for path in outputs::files(folder)? {
        // A file may get its final name between listing and reading; it is read next time.
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines();
        let lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
        lines.for_each(|line| see(line.body));
    }
    Ok(())
}
