//! Programs that the tests run Levada against, fetched from Maven's registry: Apache Flume and
//! OpenSearch.

use std::{env, fs, path::Path, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    build,
    step::{self, Workspace},
};

/// One of them.
struct Peer {
    /// What messages call it, and the variable that says that its tests must run.
    name: &'static str,
    required: &'static str,
    /// Its folder below `tests/peers`, and what of it makes a difference.
    source: &'static str,
    files: &'static [&'static str],
    /// Its versions, as profiles of the pom.
    versions: &'static [&'static str],
    /// Maven's task that brings it; the short name does not resolve everywhere.
    task: &'static str,
}

const FLUME: Peer = Peer {
    name: "Apache Flume",
    required: "LEVADA_REQUIRE_FLUME",
    source: "flume",
    files: &["pom.xml", CLIENT],
    versions: &["1.9.0", "1.11.0"],
    task: "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
};

const OPENSEARCH: Peer = Peer {
    name: "OpenSearch",
    required: "LEVADA_REQUIRE_OPENSEARCH",
    source: "opensearch",
    files: &["pom.xml"],
    versions: &["2.19.3"],
    task: "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack-dependencies",
};

/// What of a peer has to be compiled, where it is there.
const CLIENT: &str = "Client.java";

const INSTALL: &str = "install a JDK (17 or later) and Maven (Debian: openjdk-17-jdk-headless, \
                       maven), with a connection to Maven's registry for the first run";

/// Fetches every version of every peer that is not there yet.
///
/// # Errors
/// Java or Maven is missing, or the registry cannot be reached.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    FLUME.fetch(workspace)?;
    OPENSEARCH.fetch(workspace)
}

/// As [`fetch`]; where that is not possible, it says so, and the tests against a peer are left out.
///
/// # Errors
/// It is not possible, and the peer is required, such as by `LEVADA_REQUIRE_FLUME=1`.
pub(crate) fn fetch_or_skip(workspace: &Workspace) -> Result<()> {
    for peer in [FLUME, OPENSEARCH] {
        let Peer { name, required, .. } = peer;
        let is_required = env::var_os(required).is_some_and(|value| value == "1");
        match peer.fetch(workspace) {
            Err(error) if is_required => return Err(error.context(format!("{required}=1"))),
            Err(error) => {
                step::note(&format!("{error:#}"));
                step::note(&format!(
                    "not run on this machine: the tests against {name}"
                ));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Runs the whole matrix and keeps its results.
///
/// # Errors
/// Flume cannot be fetched, or a test failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let start = Instant::now();
    FLUME.fetch(workspace)?;
    build::build(workspace)?;
    let rows = workspace.target().join("peers/results.jsonl");
    if rows.exists() {
        fs::remove_file(&rows).with_context(|| format!("cannot remove `{}`", rows.display()))?;
    }
    let mut cargo = workspace.cargo(["test", "--package", "levada-agent", "--package"]);
    cargo
        .args(["levada-tests", "--test", "it"])
        .args(build::HOST);
    cargo
        .args(["--", "flume::", "--nocapture", "--test-threads=1"])
        .env("LEVADA_REQUIRE_FLUME", "1")
        .env("LEVADA_PEERS_RESULTS", &rows);
    let next = "run the failed test alone: `cargo x test -- <its name> --nocapture`";
    step::run("peers", &mut cargo, next)?;
    keep(workspace, &rows)?;
    step::done("every combination passed", start);
    Ok(())
}

/// Prints the rows as a table and writes them where results are kept.
fn keep(workspace: &Workspace, rows: &Path) -> Result<()> {
    let text =
        fs::read_to_string(rows).with_context(|| format!("cannot read `{}`", rows.display()))?;
    let rows: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("a row of the results is not JSON")?;
    for line in table(&rows) {
        step::note(&line);
    }
    let path = workspace.root.join("tests/bench/results/peers.json");
    let text = serde_json::to_string_pretty(&rows)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    step::note(&format!("saved as {}", path.display()));
    Ok(())
}

/// What the columns of the table are, and how wide.
const COLUMNS: [(&str, usize); 9] = [
    ("case", 22),
    ("path", 42),
    ("wire", 12),
    ("batch", 6),
    ("sent", 7),
    ("missing", 8),
    ("duplicates", 11),
    ("damaged", 8),
    ("out_of_order", 13),
];

fn table(rows: &[Value]) -> Vec<String> {
    let head = COLUMNS
        .map(|(name, width)| format!("{name:width$}"))
        .concat();
    let line = |row: &Value| {
        let cell = |(name, width): (&str, usize)| {
            let text = match &row[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            format!("{text:width$}")
        };
        let remark = row["remark"].as_str().unwrap_or_default();
        COLUMNS.map(cell).concat() + remark
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

impl Peer {
    /// Fetches every version that is not there yet.
    fn fetch(&self, workspace: &Workspace) -> Result<()> {
        let mut versions = self.versions.iter();
        versions.try_for_each(|version| self.fetch_version(workspace, version))
    }

    fn fetch_version(&self, workspace: &Workspace, version: &str) -> Result<()> {
        let source = workspace.root.join("tests/peers").join(self.source);
        let name = format!("{}-{version}", self.source);
        let folder = workspace.target().join("peers").join(name);
        let made_of = self.made_of(&source)?;
        let complete = folder.join("complete");
        if fs::read_to_string(&complete).is_ok_and(|before| before == made_of) {
            return Ok(());
        }
        for (program, question) in [("java", "-version"), ("javac", "-version"), ("mvn", "-v")] {
            step::read(workspace.command(program).arg(question), INSTALL)?;
        }
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty `{}`", folder.display()))?;
        }
        let lib = folder.join("lib");
        let mut maven = workspace.command("mvn");
        maven.args(["-B", "-q", "-P", version, "-f"]);
        maven.arg(source.join("pom.xml")).arg(self.task);
        maven.arg(format!("-DoutputDirectory={}", lib.display()));
        maven.arg("-DincludeScope=runtime");
        // What was unpacked before and elsewhere is no reason to leave it.
        let markers = folder.join("markers");
        maven.arg(format!("-DmarkersDirectory={}", markers.display()));
        step::run(&format!("{} {version}", self.name), &mut maven, INSTALL)?;
        if self.files.contains(&CLIENT) {
            compile(workspace, &source.join(CLIENT), &folder)?;
        }
        fs::write(&complete, made_of)
            .with_context(|| format!("cannot write `{}`", complete.display()))
    }

    /// What a fetched folder depends on, whole: if it changes, the folder is made anew.
    fn made_of(&self, source: &Path) -> Result<String> {
        let mut text = String::new();
        for name in self.files {
            let path = source.join(name);
            let read = fs::read_to_string(&path);
            text += &read.with_context(|| format!("cannot read `{}`", path.display()))?;
        }
        Ok(text)
    }
}

/// Compiles a client against the jars of a peer.
fn compile(workspace: &Workspace, client: &Path, folder: &Path) -> Result<()> {
    let mut compiler = workspace.command("javac");
    compiler.args(["-encoding", "UTF-8", "-cp"]);
    compiler.arg(folder.join("lib/*")).arg("-d");
    compiler.arg(folder.join("client")).arg(client);
    let next = format!("mend `{}`", client.display());
    step::run("client in Java", &mut compiler, &next)
}
