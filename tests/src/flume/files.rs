//! The Avro container files that a `file_roll` sink with the serializer `avro_event` writes.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use apache_avro::{Reader, types::Value};

use crate::record::Record;

/// Every event in the files of a folder, in the order of the files. What follows the last whole
/// block of a file, because its writer works on it or was killed, is left out.
///
/// # Errors
/// The folder cannot be read, or a file holds other records.
pub fn read_containers(folder: &Path) -> Result<Vec<Record>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Named by the time of the start, a dash and a number.
        files.push((fs::metadata(&path)?.modified()?, path));
    }
    files.sort();
    let mut events = Vec::new();
    for (_, path) in files {
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        // Not even the header is there yet.
        let Ok(reader) = Reader::new(&bytes[..]) else {
            continue;
        };
        for value in reader.map_while(Result::ok) {
            events.push(record(value)?);
        }
    }
    Ok(events)
}

fn record(value: Value) -> Result<Record> {
    let Value::Record(fields) = value else {
        bail!("not a record: {value:?}")
    };
    let mut record = Record::default();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("headers", Value::Map(headers)) => {
                for (name, value) in headers {
                    let Value::String(value) = value else {
                        bail!("a header that is no text: {value:?}")
                    };
                    record.headers.insert(name, value);
                }
            }
            ("body", Value::Bytes(body)) => record.body = body,
            (name, value) => bail!("a field that no event has: {name} {value:?}"),
        }
    }
    Ok(record)
}
