//! Building the WebAssembly guests.

use std::{env, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::step::{self, Ended, Workspace};

const TARGET: &str = "wasm32-wasip2";

/// The guest workspaces. Each is built in its own folder, so that its own `.cargo/config.toml`
/// counts, and all share one target folder.
const WORKSPACES: [&str; 2] = [FIRST_PARTY, "tests/guests"];

const FIRST_PARTY: &str = "guests";

/// Builds the Rust guests, and says where the components are.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    add_target(workspace)?;
    let target = workspace.target().join("guests");
    for folder in WORKSPACES {
        let here = workspace.root.join(folder);
        if !here.join("Cargo.toml").exists() {
            bail!("`{folder}/Cargo.toml` is not there\nnext: take a complete clone");
        }
        let mut cargo = workspace.cargo(["build", "--release", "--locked", "--target", TARGET]);
        cargo.current_dir(here).env("CARGO_TARGET_DIR", &target);
        // What the host is compiled with must not reach the guests.
        cargo
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        step::run(folder, &mut cargo, "mend what the compiler reports above")?;
    }
    Ok(())
}

/// Runs the unit tests of the guests that people use, on this machine and without a host.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    let mut cargo = first_party(workspace, "test");
    let next = "run the failed test alone: `cargo test -p <guest> <its name>` in `guests`";
    step::run("unit tests of guests", &mut cargo, next)
}

/// Looks at them as at the rest.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = first_party(workspace, "clippy");
    cargo.args(["--all-targets", "--", "--deny", "warnings"]);
    let next = "mend what clippy reports above";
    step::run("lints of guests", &mut cargo, next)
}

/// A command of cargo for the guests that people use.
fn first_party(workspace: &Workspace, verb: &str) -> Command {
    let mut cargo = workspace.cargo([verb, "--workspace", "--locked"]);
    cargo
        .current_dir(workspace.root.join(FIRST_PARTY))
        .env("CARGO_TARGET_DIR", workspace.target().join("guests"));
    cargo
}

/// Builds the guests written in other languages where their tools are. Elsewhere they are named as
/// not run, or it is an error if `LEVADA_REQUIRE_FOREIGN=1`.
pub(crate) fn build_foreign(workspace: &Workspace) -> Result<()> {
    let script = workspace.root.join("tests/guests/build-foreign.sh");
    let mut bash = workspace.command("bash");
    bash.arg(script);
    let ended = step::run_or_skip(
        "guests in Python and JavaScript",
        &mut bash,
        "read what pip or npm reports above; without them the test is left out",
    )?;
    if ended == Ended::NotRun && is_required() {
        bail!(
            "the guests in Python and JavaScript were not built, and LEVADA_REQUIRE_FOREIGN=1\n\
             next: install python3 with venv, and npm"
        );
    }
    if ended == Ended::NotRun {
        step::note("not run on this machine: the tests of guests in Python and JavaScript");
    }
    Ok(())
}

fn is_required() -> bool {
    env::var_os("LEVADA_REQUIRE_FOREIGN").is_some_and(|value| value == "1")
}

/// Adds the guests' target if it is missing. A target named in `rust-toolchain.toml` is not always
/// installed by itself.
fn add_target(workspace: &Workspace) -> Result<()> {
    if has_target(workspace) {
        return Ok(());
    }
    let mut rustup = workspace.command("rustup");
    rustup.args(["target", "add", TARGET]);
    step::run(
        "target for guests",
        &mut rustup,
        "guests are WebAssembly components: install rustup (https://rustup.rs) and run \
         `rustup target add wasm32-wasip2` with a connection to the network",
    )
}

/// Whether the compiler in use has the standard library of the target.
fn has_target(workspace: &Workspace) -> bool {
    let mut rustc = workspace.command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    step::read(&mut rustc, "").is_ok_and(|path| Path::new(path.trim()).is_dir())
}
