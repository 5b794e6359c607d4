//! Apache Flume, fetched from Maven's registry: what the tests run Levada against.

use std::{env, fs, path::Path, time::Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    build,
    step::{self, Workspace},
};

/// The versions, as profiles of the pom.
const VERSIONS: [&str; 2] = ["1.9.0", "1.11.0"];

/// Maven's task that copies the jars of a pom; the short name does not resolve everywhere.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

const INSTALL: &str = "install a JDK (17 or later) and Maven (Debian: openjdk-17-jdk-headless, \
                       maven), with a connection to Maven's registry for the first run";

/// Fetches every version that is not there yet.
///
/// # Errors
/// Java or Maven is missing, or the registry cannot be reached.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    VERSIONS
        .iter()
        .try_for_each(|version| fetch_version(workspace, version))
}

/// As [`fetch`]; where that is not possible, it says so, and the tests against Flume are left out.
///
/// # Errors
/// It is not possible, and `LEVADA_REQUIRE_FLUME=1`.
pub(crate) fn fetch_or_skip(workspace: &Workspace) -> Result<()> {
    let required = env::var_os("LEVADA_REQUIRE_FLUME").is_some_and(|value| value == "1");
    match fetch(workspace) {
        Err(error) if required => Err(error.context("LEVADA_REQUIRE_FLUME=1")),
        Err(error) => {
            step::note(&format!("{error:#}"));
            step::note("not run on this machine: the tests against Apache Flume");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Runs the whole matrix and keeps its results.
///
/// # Errors
/// Flume cannot be fetched, or a test failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let start = Instant::now();
    fetch(workspace)?;
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

fn fetch_version(workspace: &Workspace, version: &str) -> Result<()> {
    let source = workspace.root.join("tests/peers/flume");
    let folder = workspace.target().join(format!("peers/flume-{version}"));
    let made_of = made_of(&source)?;
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
    maven.arg(source.join("pom.xml")).arg(COPY);
    maven.arg(format!("-DoutputDirectory={}", lib.display()));
    maven.arg("-DincludeScope=runtime");
    step::run(&format!("Flume {version}"), &mut maven, INSTALL)?;
    let mut compiler = workspace.command("javac");
    compiler.args(["-encoding", "UTF-8", "-cp"]);
    compiler.arg(lib.join("*")).arg("-d");
    compiler.arg(folder.join("client"));
    compiler.arg(source.join("Client.java"));
    let next = "mend `tests/peers/flume/Client.java`";
    step::run(&format!("client of Flume {version}"), &mut compiler, next)?;
    fs::write(&complete, made_of).with_context(|| format!("cannot write `{}`", complete.display()))
}

/// What a fetched folder depends on, whole: if it changes, the folder is made anew.
fn made_of(source: &Path) -> Result<String> {
    let read = |name: &str| {
        let path = source.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    Ok(read("pom.xml")? + &read("Client.java")?)
}
