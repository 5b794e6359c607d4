//! The files that a `file-roll` sink wrote, as JSON lines.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::ledger::Ledger;

/// How an open file is named until it is complete.
const OPEN: &str = "tmp";

/// One line of a file.
#[derive(Debug, Deserialize)]
pub struct Line {
    /// The origin id, where the sink writes it.
    pub id: Option<String>,
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// Every file below a folder, in the order of the names; what begins with a dot is the sink's own.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot read the folder `{}`", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The files that are not complete.
///
/// # Errors
/// The folder cannot be read.
pub fn open_files(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(files(folder)?
        .into_iter()
        .filter(|path| is_open(path))
        .collect())
}

/// Reads every line of the complete files into the ledger, and gives the number of complete files.
///
/// # Errors
/// A file cannot be read.
pub fn read_into(folder: &Path, ledger: &mut Ledger) -> Result<usize> {
    let mut complete = 0;
    for path in files(folder)? {
        if !is_open(&path) {
            complete += 1;
            read_file(&path, ledger)?;
        }
    }
    Ok(complete)
}

/// How many different events lie in the files now, those being written included.
///
/// # Errors
/// The folder cannot be read.
pub fn distinct(folder: &Path) -> Result<u64> {
    let mut ledger = Ledger::default();
    for path in files(folder)? {
        // A file may get its final name between listing and reading; it is read next time.
        read_file(&path, &mut ledger).ok();
    }
    Ok(ledger.distinct())
}

fn is_open(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == OPEN)
}

fn read_file(path: &Path, ledger: &mut Ledger) -> Result<()> {
    for line in read_lines(path)? {
        match serde_json::from_str::<Line>(&line) {
            Ok(line) => ledger.saw(&line.body, line.id),
            Err(_) => ledger.saw(&line, None),
        }
    }
    Ok(())
}

fn read_lines(path: &Path) -> Result<Vec<String>> {
    let cannot = || format!("cannot read `{}`", path.display());
    let bytes = fs::read(path).with_context(cannot)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::to_owned).collect())
}

/// Counts the lines while the files grow, are cut back and get their final names.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    files: HashMap<PathBuf, Counted>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    bytes: u64,
    lines: u64,
}

impl Watch {
    /// Watches a folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: HashMap::new(),
        }
    }

    /// The number of lines now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn lines(&mut self) -> Result<u64> {
        if !self.folder.is_dir() {
            return Ok(0);
        }
        for path in files(&self.folder)? {
            // A file may get its final name between listing and opening; it is counted next time.
            let Ok(file) = File::open(&path) else {
                continue;
            };
            // An open file is called after its sink, too: `NAME.SINK.tmp`.
            let name = if is_open(&path) {
                path.with_extension("").with_extension("")
            } else {
                path
            };
            let before = self.files.get(&name).copied().unwrap_or_default();
            self.files.insert(name, recount(file, before)?);
        }
        Ok(self.files.values().map(|file| file.lines).sum())
    }
}

/// Counts what was appended; from the start if the file became shorter.
fn recount(mut file: File, before: Counted) -> Result<Counted> {
    let bytes = file.metadata()?.len();
    let mut counted = if bytes < before.bytes {
        Counted::default()
    } else {
        before
    };
    file.seek(SeekFrom::Start(counted.bytes))?;
    let mut reader = BufReader::new(file.take(bytes - counted.bytes));
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(counted);
        }
        counted.lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
        let read = buffer.len();
        counted.bytes += read as u64;
        reader.consume(read);
    }
}

/// The files below a folder whose bytes hold one of the words.
///
/// # Errors
/// A file cannot be read.
pub fn files_with(folder: &Path, words: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(folder)? {
        let Ok(bytes) = fs::read(&path) else {
            // Sockets and files that went away meanwhile hold no events.
            continue;
        };
        if words
            .iter()
            .any(|word| crate::wiretap::holds(&bytes, word.as_bytes()))
        {
            found.push(path);
        }
    }
    Ok(found)
}
