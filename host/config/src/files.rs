//! The files of a configuration and the places in them.

use std::{
    fs::{self, File},
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use levada_core::{Problem, Problems, settings::Span};

/// A configuration is written by people: a larger file is some other file.
const LARGEST_FILE: u64 = 1 << 20;
/// Most files in one configuration; [`Span::file`] has 16 bits.
const MOST_FILES: usize = 1000;

/// The files of a configuration, in the order they were given.
#[derive(Debug, Clone, Default)]
pub struct Files(Vec<SourceFile>);

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// The path as the user gave it.
    pub(crate) shown: String,
    pub(crate) text: String,
    /// Where each line starts.
    lines: Vec<usize>,
    /// Literal secrets: never shown with their line.
    masked: Vec<Range<usize>>,
}

/// A place for people: lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path as the user gave it.
    pub path: String,
    pub line: usize,
    pub column: usize,
}

impl Files {
    /// Reads files, and of folders every `*.toml` directly in them by name.
    pub(crate) fn read(paths: &[PathBuf], problems: &mut Problems) -> Self {
        let mut files = Self::default();
        for path in paths {
            for path in expand(path, problems) {
                if files.0.len() == MOST_FILES {
                    let message = format!("more than {MOST_FILES} configuration files");
                    problems.push(Problem::error(None, "", message));
                    return files;
                }
                match read_text(&path) {
                    Ok(text) => files
                        .0
                        .push(SourceFile::new(path.display().to_string(), text)),
                    Err(what) => problems.push(unreadable(&path, &what)),
                }
            }
        }
        files
    }

    /// A text that is in no file.
    pub(crate) fn text(name: &str, text: String) -> Self {
        Self(vec![SourceFile::new(name.to_owned(), text)])
    }

    /// The place of a span; `None` for a span of no file.
    #[must_use]
    pub fn place(&self, span: Span) -> Option<Place> {
        let file = self.0.get(usize::from(span.file))?;
        let line = file.line_of(span.start);
        let before = file.text.get(file.lines[line]..span.start).unwrap_or("");
        Some(Place {
            path: file.shown.clone(),
            line: line + 1,
            column: before.chars().count() + 1,
        })
    }

    /// The text that was written at a place, before anything in it was replaced.
    #[must_use]
    pub fn written(&self, span: Span) -> Option<&str> {
        self.0
            .get(usize::from(span.file))?
            .text
            .get(span.start..span.end)
    }

    /// The paths, as the user gave them.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|file| file.shown.as_str())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &SourceFile)> {
        (0..).zip(&self.0)
    }

    pub(crate) fn mask(&mut self, spans: Vec<Span>) {
        for span in spans {
            if let Some(file) = self.0.get_mut(usize::from(span.file)) {
                file.masked.push(span.start..span.end);
            }
        }
    }

    /// The line a span starts on, with literal secrets blotted out, and the span's part of it, in
    /// characters.
    pub(crate) fn excerpt(&self, span: Span) -> Option<(String, Range<usize>)> {
        let file = self.0.get(usize::from(span.file))?;
        let start = *file.lines.get(file.line_of(span.start))?;
        let rest = file.text.get(start..)?;
        let line = rest.split('\n').next()?.trim_end_matches('\r');
        let hidden = |at: usize| file.masked.iter().any(|range| range.contains(&at));
        let mut shown = String::new();
        let mut marked = None;
        for (n, (at, c)) in line.char_indices().enumerate() {
            let at = start + at;
            shown.push(if hidden(at) { '*' } else { printable(c) });
            if (span.start..span.end).contains(&at) {
                marked.get_or_insert(n..n).end = n + 1;
            }
        }
        // A place between characters, or behind the last.
        let before = line.get(..span.start.saturating_sub(start)).unwrap_or(line);
        let at = before.chars().count();
        Some((shown, marked.unwrap_or(at..at)))
    }
}

impl SourceFile {
    fn new(shown: String, text: String) -> Self {
        let lines = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(lines).collect();
        Self {
            shown,
            text,
            lines,
            masked: Vec::new(),
        }
    }

    /// The line, from 0, that holds a byte.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).max(1) - 1
    }
}

/// A configuration is shown on terminals: what could move the cursor is not printed.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// The files that a path stands for.
fn expand(path: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<Vec<_>>>()
    });
    let mut found = match entries {
        Ok(found) => found,
        Err(error) => {
            problems.push(unreadable(path, &error.to_string()));
            return Vec::new();
        }
    };
    found.retain(|path| path.extension().is_some_and(|end| end == "toml") && !path.is_dir());
    found.sort();
    if found.is_empty() {
        problems.push(unreadable(
            path,
            "the folder holds no file that ends in .toml",
        ));
    }
    found
}

fn unreadable(path: &Path, what: &str) -> Problem {
    let message = format!("cannot read the configuration `{}`: {what}", path.display());
    Problem::error(None, "", message)
}

fn read_text(path: &Path) -> Result<String, String> {
    if path
        .extension()
        .is_some_and(|end| end == "conf" || end == "properties")
    {
        return Err("Flume's properties are not in this version; write TOML".into());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("it is larger than 1 MiB".into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        format!("line {line} is not UTF-8 text")
    })?;
    // A byte order mark is what some editors leave behind; it means nothing in UTF-8.
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}
