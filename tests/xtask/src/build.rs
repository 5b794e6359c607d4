//! Building the host, showing it, testing it.

use std::{process::Command, time::Instant};

use anyhow::Result;

use crate::{
    guests, peers,
    step::{self, Workspace},
};

/// What the demo and the tests build the host with: one set of features, so that nothing is built
/// twice. The named crash points cost nothing while no one sets them, and are off in releases.
pub(crate) const HOST: [&str; 2] = ["--features", "levada-agent/failpoints"];

const MEND: &str = "mend what the compiler reports above";

/// Builds the guests and the host.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let start = Instant::now();
    guests::build(workspace)?;
    step::run("host", &mut host(workspace), MEND)?;
    step::done("levada is built", start);
    Ok(())
}

/// Builds, then shows one path from a device to a file.
pub(crate) fn demo(workspace: &Workspace, rest: &[String]) -> Result<()> {
    guests::build(workspace)?;
    step::run("host", &mut host(workspace), MEND)?;
    let mut demo = workspace.command(workspace.target().join("debug/demo"));
    demo.args(rest);
    step::run(
        "demo",
        &mut demo,
        "the logs of both agents are in the folder named above",
    )
}

/// Builds, then runs every test.
pub(crate) fn test(workspace: &Workspace, rest: &[String]) -> Result<()> {
    let start = Instant::now();
    guests::build(workspace)?;
    guests::test(workspace)?;
    guests::build_foreign(workspace)?;
    peers::fetch_or_skip(workspace)?;
    step::run("host", &mut host(workspace), MEND)?;
    let mut cargo = workspace.cargo(["test", "--workspace"]);
    // Tests below `tests/` find the guests themselves; those of single crates are told.
    cargo
        .args(HOST)
        .env("LEVADA_GUESTS", workspace.target().join("guests"))
        .arg("--")
        .args(rest);
    step::run(
        "tests",
        &mut cargo,
        "run the failed test alone: `cargo x test -- <its name> --nocapture`",
    )?;
    step::done("all tests passed", start);
    Ok(())
}

/// Builds, then kills a loaded agent again and again.
pub(crate) fn kill(workspace: &Workspace, rounds: u32) -> Result<()> {
    guests::build(workspace)?;
    step::run("host", &mut host(workspace), MEND)?;
    let mut cargo = workspace.cargo(["test", "--package", "levada-agent", "--package"]);
    cargo.args(["levada-tests", "--test", "it"]).args(HOST);
    cargo
        .args(["--", "kill::", "--nocapture"])
        .env("LEVADA_KILLS", rounds.to_string());
    step::run(
        "kills",
        &mut cargo,
        "the folder of the failed run is named above; it is kept",
    )
}

/// Builds the simulations, then runs them.
pub(crate) fn chaos(workspace: &Workspace, rest: &[String]) -> Result<()> {
    let mut cargo = workspace.cargo(["build", "--package", "levada-agent", "--package"]);
    cargo.args(["levada-tests", "--bin", "chaos"]).args(HOST);
    step::run("simulations", &mut cargo, MEND)?;
    let mut chaos = workspace.command(workspace.target().join("debug/chaos"));
    chaos.args(rest);
    step::run("chaos", &mut chaos, "replay a seed as it says above")
}

/// Builds the host, then lets its hostile handlers loose.
pub(crate) fn zoo(workspace: &Workspace, rest: &[String]) -> Result<()> {
    step::run("host", &mut host(workspace), MEND)?;
    let mut levada = workspace.command(workspace.target().join("debug/levada"));
    levada.args(["handler", "zoo"]).args(rest);
    step::run("zoo", &mut levada, "what got through is named above")
}

/// Builds for release, then measures.
pub(crate) fn bench(workspace: &Workspace, rest: &[String]) -> Result<()> {
    if rest.iter().any(|word| word.ends_with("flume")) {
        peers::fetch(workspace)?;
    }
    let needs_agent = rest
        .iter()
        .any(|word| ["hop", "idle"].contains(&word.as_str()));
    if needs_agent || rest.iter().any(|word| word == "handler") {
        guests::build(workspace)?;
    }
    if needs_agent {
        let mut cargo = workspace.cargo(["build", "--release", "--package", "levada-agent"]);
        step::run("host", &mut cargo, MEND)?;
    }
    let mut cargo = workspace.cargo(["build", "--release", "--package", "levada-bench"]);
    step::run("bench", &mut cargo, MEND)?;
    let mut bench = workspace.command(workspace.target().join("release/bench"));
    bench.args(rest);
    step::run(
        "measuring",
        &mut bench,
        "`cargo x bench --help` lists what there is to measure",
    )
}

/// The agent, and the programs of the tests.
fn host(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo(["build", "--package", "levada-agent", "--package"]);
    cargo.args(["levada-tests", "--bins"]).args(HOST);
    cargo
}
