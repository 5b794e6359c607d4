//! Tables that handlers look things up in: read when the handler is loaded, and again when their
//! files change.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use thiserror::Error;

use crate::grants::LookupParams;

/// The largest file of a table: all of it is held in memory.
const LARGEST: u64 = 64 << 20;

/// The column of a value that has none.
const VALUE: &str = "value";

/// Columns and values of one row.
pub(crate) type Row = Vec<(Arc<str>, Box<str>)>;

type Rows = HashMap<String, Row>;

/// The tables of one handler.
#[derive(Debug, Default)]
pub(crate) struct Tables(BTreeMap<String, Table>);

#[derive(Debug)]
struct Table {
    params: LookupParams,
    read: Mutex<Contents>,
}

#[derive(Debug)]
struct Contents {
    stamp: Stamp,
    rows: Arc<Rows>,
}

/// What tells one state of a file from another; `None` where there is none.
type Stamp = Option<(i64, i64, u64, u64)>;

/// Why a file is no table.
#[derive(Debug, Error)]
pub(crate) enum LookupError {
    #[error("cannot be read")]
    Io(#[source] io::Error),
    #[error("has {bytes} bytes, more than the {LARGEST} allowed")]
    TooLarge { bytes: u64 },
    #[error("is no CSV")]
    Csv(#[source] csv::Error),
    #[error("is no JSON")]
    Json(#[source] serde_json::Error),
    #[error("{0}")]
    Shape(String),
}

impl Tables {
    /// Reads all tables.
    ///
    /// # Errors
    /// The name of the first that cannot be read, and why.
    pub(crate) fn open(
        params: &BTreeMap<String, LookupParams>,
    ) -> Result<Self, (String, LookupError)> {
        let mut tables = BTreeMap::new();
        for (name, params) in params {
            let stamp = stamp(&params.file);
            let rows = read(params).map_err(|error| (name.clone(), error))?;
            let read = Mutex::new(Contents {
                stamp,
                rows: Arc::new(rows),
            });
            let params = params.clone();
            tables.insert(name.clone(), Table { params, read });
        }
        Ok(Self(tables))
    }

    /// Reads again what has changed. A file that is no table any more leaves the old one in use.
    pub(crate) fn look(&self) {
        for (name, table) in &self.0 {
            table.look(name);
        }
    }

    /// The row under a key.
    pub(crate) fn find(&self, table: &str, key: &str) -> Option<Row> {
        let table = self.0.get(table)?;
        let rows = Arc::clone(&table.lock().rows);
        rows.get(key).cloned()
    }
}

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, name: &str) {
        let now = stamp(&self.params.file);
        let mut contents = self.lock();
        if contents.stamp == now {
            return;
        }
        contents.stamp = now;
        let file = self.params.file.display();
        match read(&self.params) {
            Ok(rows) => {
                tracing::info!(table = name, %file, rows = rows.len(), "table read again");
                contents.rows = Arc::new(rows);
            }
            Err(error) => {
                let error = reason(&error);
                tracing::warn!(table = name, %file, %error, "table not read again, the old one stays");
            }
        }
    }
}

/// An error with its cause, on one line.
pub(crate) fn reason(error: &LookupError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
}

fn read(params: &LookupParams) -> Result<Rows, LookupError> {
    let mut file = File::open(&params.file).map_err(LookupError::Io)?;
    let bytes = file.metadata().map_err(LookupError::Io)?.len();
    if bytes > LARGEST {
        return Err(LookupError::TooLarge { bytes });
    }
    let mut text = Vec::new();
    file.by_ref()
        .take(LARGEST)
        .read_to_end(&mut text)
        .map_err(LookupError::Io)?;
    let is_json = params
        .file
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("json"));
    if is_json {
        json(&text, params.key.as_deref())
    } else {
        csv(&text, params.key.as_deref())
    }
}

/// A header row, then rows of as many fields. Where a key stands twice, the last row counts.
fn csv(text: &[u8], key: Option<&str>) -> Result<Rows, LookupError> {
    let mut reader = csv::Reader::from_reader(text);
    let columns = reader.headers().map_err(LookupError::Csv)?;
    let columns: Vec<Arc<str>> = columns.iter().map(Arc::from).collect();
    let at = match key {
        None => 0,
        Some(key) => {
            let found = columns.iter().position(|column| **column == *key);
            found.ok_or_else(|| LookupError::Shape(format!("has no column `{key}`")))?
        }
    };
    let mut rows = Rows::new();
    for record in reader.records() {
        let record = record.map_err(LookupError::Csv)?;
        let key = record.get(at).unwrap_or_default().to_owned();
        let pairs = columns.iter().cloned().zip(record.iter().map(Box::from));
        let others = pairs.enumerate().filter(|(n, _)| *n != at);
        rows.insert(key, others.map(|(_, pair)| pair).collect());
    }
    Ok(rows)
}

/// An object of rows by key, or a list of rows that have the key among their members.
fn json(text: &[u8], key: Option<&str>) -> Result<Rows, LookupError> {
    let whole = serde_json::from_slice(text).map_err(LookupError::Json)?;
    let mut rows = Rows::new();
    let mut names = Columns::default();
    match whole {
        Value::Object(members) => {
            for (key, row) in members {
                rows.insert(key, names.row(row, None));
            }
        }
        Value::Array(list) => {
            let key = key.ok_or_else(|| {
                let what = "is a list: say with `key` which member its rows are found by";
                LookupError::Shape(what.into())
            })?;
            for (n, row) in list.into_iter().enumerate() {
                let found = row.get(key).map(text_of);
                let missing = || LookupError::Shape(format!("has no `{key}` in row {}", n + 1));
                rows.insert(found.ok_or_else(missing)?.into(), names.row(row, Some(key)));
            }
        }
        _ => return Err(LookupError::Shape("is no JSON object and no list".into())),
    }
    Ok(rows)
}

/// Names of columns, each held once.
#[derive(Default)]
struct Columns(HashMap<String, Arc<str>>);

impl Columns {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.0.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    fn row(&mut self, row: Value, without: Option<&str>) -> Row {
        match row {
            Value::Object(members) => {
                let others = members
                    .into_iter()
                    .filter(|(name, _)| Some(&**name) != without);
                others
                    .map(|(name, value)| (self.name(&name), text_of(&value)))
                    .collect()
            }
            value => vec![(self.name(VALUE), text_of(&value))],
        }
    }
}

/// A text as it is, anything else as JSON.
fn text_of(value: &Value) -> Box<str> {
    match value {
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests;
