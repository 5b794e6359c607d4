//! Everything that a change must pass, cheapest first.
//!
//! Dependencies are compiled three times and no more: once to machine code for the tests, once to
//! metadata for clippy, documentation and features, once to metadata for the second architecture.

use std::time::Instant;

use anyhow::Result;

use crate::{
    build, features, guests,
    step::{self, Workspace},
};

/// The second architecture: 64-bit ARM, the usual gateway.
const SECOND: &str = "aarch64-unknown-linux-gnu";

/// Runs all of it.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let start = Instant::now();
    formatting(workspace)?;
    dependencies(workspace)?;
    clippy(workspace)?;
    documentation(workspace)?;
    each_feature(workspace)?;
    build::test(workspace, &[])?;
    second_architecture(workspace)?;
    step::done("the change passes", start);
    Ok(())
}

fn formatting(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo(["fmt", "--all", "--check"]);
    step::run("format", &mut cargo, "`cargo fmt --all`")?;
    for folder in ["guests", "tests/guests"] {
        let mut cargo = workspace.cargo(["fmt", "--all", "--check"]);
        cargo.current_dir(workspace.root.join(folder));
        step::run(
            &format!("format of {folder}"),
            &mut cargo,
            "`cargo fmt --all` in that folder",
        )?;
    }
    Ok(())
}

fn dependencies(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo(["deny", "--offline", "--all-features", "--config"]);
    cargo.args([".deny.toml", "check", "bans", "licenses", "sources"]);
    let next = "if cargo-deny is missing, `.ci/run` installs it; else see `.deny.toml` for what is \
                allowed and why";
    step::run("bans, licences, sources", &mut cargo, next)
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo(["clippy", "--workspace", "--all-targets"]);
    cargo.args(build::HOST).args(["--", "--deny", "warnings"]);
    step::run("lints", &mut cargo, "mend what clippy reports above")?;
    guests::clippy(workspace)
}

fn documentation(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo(["doc", "--workspace", "--no-deps"]);
    cargo
        .args(build::HOST)
        .env("RUSTDOCFLAGS", "--deny warnings");
    step::run(
        "documentation",
        &mut cargo,
        "mend what rustdoc reports above",
    )
}

fn each_feature(workspace: &Workspace) -> Result<()> {
    for feature in features::of_host(workspace)? {
        let mut cargo = workspace.cargo(["check", "--package", &feature.package]);
        cargo.arg("--no-default-features");
        if !feature.name.is_empty() {
            cargo.args(["--features", &feature.name]);
        }
        let name = match feature.name.as_str() {
            "" => format!("{} without features", feature.package),
            name => format!("{} with `{name}` alone", feature.package),
        };
        step::run(
            &name,
            &mut cargo,
            "a feature must compile without its brothers",
        )?;
    }
    Ok(())
}

fn second_architecture(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo(["check", "--workspace", "--target", SECOND]);
    cargo.args(build::HOST);
    let next = "it needs `rustup target add aarch64-unknown-linux-gnu` and a C compiler for it \
                (Debian: gcc-aarch64-linux-gnu); `.ci/run` installs both";
    step::run("64-bit ARM", &mut cargo, next)
}
