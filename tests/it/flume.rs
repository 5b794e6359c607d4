//! Levada beside the real Flume, 1.9 and 1.11: as its peer on either side, between two of them, and
//! as the receiver of its clients. These run where `cargo x peers fetch` put the jars.

mod clients;
mod frames;
mod full;
mod kills;
mod matrix;

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use levada_tests::{
    flume::{Flume, Version},
    outputs, peers,
    record::Record,
    wait,
};

/// The jars of a version, or nothing where they are not and need not be.
fn flume(version: Version) -> Result<Option<Flume>> {
    peers::here(Flume::find(version), "LEVADA_REQUIRE_FLUME")
}

/// A Levada's flow from an Avro source to a file, all parts called `name`.
fn to_file(name: &str, listen: SocketAddr, folder: &Path) -> String {
    [
        source(name, listen, ""),
        channel(name, ""),
        files(name, folder),
    ]
    .concat()
}

/// A Levada's flow from an Avro source to another, all parts called `name`.
fn to_avro(name: &str, listen: SocketAddr, to: SocketAddr, batch: usize) -> String {
    [
        source(name, listen, ""),
        channel(name, ""),
        sink(name, to, batch, ""),
    ]
    .concat()
}

/// An Avro source; `more` are lines of its table.
fn source(name: &str, listen: SocketAddr, more: &str) -> String {
    format!(
        "[sources.{name}]\ntype = \"avro\"\nlisten = \"{listen}\"\nchannels = [\"{name}\"]\n\
         {more}\n"
    )
}

/// A durable channel; `more` are lines of its table.
fn channel(name: &str, more: &str) -> String {
    format!("[channels.{name}]\ntype = \"durable\"\ncapacity = \"32MiB\"\n{more}\n")
}

/// An Avro sink; `more` are lines of its table.
fn sink(name: &str, to: SocketAddr, batch: usize, more: &str) -> String {
    format!(
        "[sinks.{name}]\ntype = \"avro\"\nchannel = \"{name}\"\nto = \"{to}\"\n\
         batch = {{ events = {batch}, bytes = \"4MiB\", wait = \"20ms\" }}\n{more}\n"
    )
}

/// A sink that writes JSON.
fn files(name: &str, folder: &Path) -> String {
    format!(
        "[sinks.{name}]\ntype = \"file-roll\"\nchannel = \"{name}\"\ndirectory = {:?}\n\
         format = \"json\"\n\n",
        folder.display().to_string()
    )
}

/// The events in the JSON files of a folder.
fn read_json(folder: &Path) -> Result<Vec<Record>> {
    let mut events = Vec::new();
    if folder.is_dir() {
        for file in outputs::files(folder)? {
            // A file may get its final name between listing and reading.
            let Ok(text) = fs::read_to_string(file) else {
                continue;
            };
            for line in text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
            {
                events.push(Record::from_json(line)?);
            }
        }
    }
    Ok(events)
}

/// Waits for so many events in the JSON files of a folder, and gives them.
async fn arrived(folder: &Path, count: usize, within: Duration) -> Result<Vec<Record>> {
    let what = format!("{count} events in `{}`", folder.display());
    wait::until(&what, within, || {
        let arrived = read_json(folder);
        async move { Ok(Some(arrived?).filter(|arrived| arrived.len() >= count)) }
    })
    .await
}
