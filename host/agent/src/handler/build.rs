//! `levada handler build`: one command from sources to a component that says what it is.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use levada_wasm::Inspection;
use serde::Deserialize;

use super::manifest;
use crate::output::{complain, say};

/// What handlers are built for.
const TARGET: &str = "wasm32-wasip2";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada handler build
  levada handler build guests/redact --output /etc/levada/redact.wasm

Builds with cargo for wasm32-wasip2, and adds that target with rustup if it is missing.")]
pub(crate) struct BuildArgs {
    /// The project's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) project: PathBuf,
    /// Where to write the component; by default NAME.wasm in the project
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Never go to a registry: what is needed is here already
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Builds the project, writes the component and tells its path, size and digest.
///
/// # Errors
/// If the project, its `levada.toml` or a tool is missing or wrong, or the result is no handler;
/// an older component stays as it was then.
pub(crate) fn run(args: &BuildArgs) -> Result<()> {
    let project = &args.project;
    if !project.join("Cargo.toml").is_file() {
        bail!(
            "`{}` has no Cargo.toml: give the folder of a Rust project, or make one with \
             `levada handler new`",
            project.display()
        );
    }
    let about = manifest::read(project)?;
    let package = package(args)?;
    ensure_target(project)?;
    let built = cargo_build(args, &package)?;
    let component =
        fs::read(&built).with_context(|| format!("cannot read `{}`", built.display()))?;
    let text = about.manifest(&package.name, &package.version)?;
    let component = manifest::add(component, &text)?;
    let inspection = check(&component)?;
    for unused in about.compare(&inspection)? {
        complain(&format!(
            "warning: `uses` in levada.toml has \"{unused}\", which the component does not import: \
             remove it\n"
        ));
    }
    let name = format!("{}.wasm", package.name);
    let output = args.output.clone().unwrap_or_else(|| project.join(name));
    write(&output, &component)?;
    let roles: Vec<_> = inspection
        .roles
        .iter()
        .map(|role| role.interface())
        .collect();
    say(&format!(
        "built  {path}\nrole   {roles}\nsize   {size} bytes\ndigest {digest}\n",
        path = output.display(),
        roles = roles.join(", "),
        size = inspection.bytes,
        digest = inspection.digest,
    ))
}

/// A component must be one that a host takes.
fn check(component: &[u8]) -> Result<Inspection> {
    let inspection = levada_wasm::inspect(component).context("the result is no component")?;
    if inspection.roles.is_empty() {
        bail!("the component is no handler: put `#[interceptor]` on a function of its library");
    }
    let refused: Vec<_> = inspection
        .refused()
        .map(|(import, why)| format!("\n  `{import}`: {why}"))
        .collect();
    if !refused.is_empty() {
        bail!(
            "a host would refuse the component, which imports{}",
            refused.concat()
        );
    }
    Ok(inspection)
}

/// Replaces the file in one step: an agent that loads it meanwhile sees the old or the new one.
fn write(path: &Path, component: &[u8]) -> Result<()> {
    let beside = path.with_extension("wasm.tmp");
    fs::write(&beside, component)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// What cargo knows about a package.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The package of the project's folder.
fn package(args: &BuildArgs) -> Result<Package> {
    let mut command = cargo(args, "metadata");
    command.args(["--no-deps", "--format-version=1"]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo: install it from https://rustup.rs")?;
    if !output.status.success() {
        bail!("cargo does not understand the project");
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot read what cargo says")?;
    let manifest = fs::canonicalize(args.project.join("Cargo.toml"))
        .with_context(|| format!("cannot open `{}`", args.project.display()))?;
    metadata
        .packages
        .into_iter()
        .find(|package| package.manifest_path == manifest)
        .with_context(|| {
            format!(
                "`{}` holds a workspace: give the folder of one of its packages",
                args.project.display()
            )
        })
}

/// Adds the target to the project's toolchain if it is not there.
fn ensure_target(project: &Path) -> Result<()> {
    let output = Command::new(tool("RUSTC", "rustc"))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(project)
        .output()
        .context("cannot start rustc: install it from https://rustup.rs")?;
    let folder = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    complain(&format!(
        "adding the target {TARGET}: rustup target add {TARGET}\n"
    ));
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(project)
        .status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => bail!("rustup cannot add the target {TARGET}: is there a network?"),
        Err(_) => bail!(
            "the target {TARGET} is missing and there is no rustup to add it: install the \
             standard library for {TARGET} the way you installed Rust"
        ),
    }
}

/// One line of what cargo reports.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Builds; where the component is.
fn cargo_build(args: &BuildArgs, package: &Package) -> Result<PathBuf> {
    let mut command = cargo(args, "build");
    command.args([
        "--release",
        "--lib",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo: install it from https://rustup.rs")?;
    let mut component = None;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.context("cannot read what cargo says")?;
            // Build scripts may print what is no message of cargo's.
            let Ok(message) = serde_json::from_str::<Message>(&line) else {
                continue;
            };
            if message.reason == "compiler-artifact"
                && message.manifest_path == package.manifest_path
            {
                let wasm = |path: &PathBuf| path.extension().is_some_and(|end| end == "wasm");
                component = message.filenames.into_iter().find(wasm).or(component);
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    component.context(
        "the build made no component: Cargo.toml needs `crate-type = [\"cdylib\"]` under `[lib]`",
    )
}

/// A call of cargo in the project's folder, where its settings are found.
fn cargo(args: &BuildArgs, verb: &str) -> Command {
    let mut command = Command::new(tool("CARGO", "cargo"));
    command.arg(verb).current_dir(&args.project);
    if args.offline {
        command.arg("--offline");
    }
    command
}

/// A tool: the one that the environment names, as cargo's sub-commands do.
fn tool(variable: &str, name: &str) -> OsString {
    env::var_os(variable).unwrap_or_else(|| name.into())
}
