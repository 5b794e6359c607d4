//! `levada handler`: what authors and operators do with handlers.

mod build;
mod list;
mod manifest;
mod new;
mod run;
mod sdk;
mod tap;
mod zoo;

use std::{
    fmt::Write,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use levada_wasm::{Given, Inspection, Role};

use crate::{
    exit::Exit,
    output::{clean, complain, say, say_json},
    table::{Table, size},
};

/// Room for the largest component and one byte more, so that what is too large is seen to be.
const MOST_READ: u64 = (32 << 20) + 1;

#[derive(Debug, Args)]
pub(crate) struct HandlerArgs {
    #[command(subcommand)]
    pub(crate) verb: HandlerVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HandlerVerb {
    /// Makes a project for a new handler, with a test
    New(new::NewArgs),
    /// Builds a handler's project into a component
    Build(build::BuildArgs),
    /// Shows the handlers of a configuration, with what each may use and every limit
    List(list::ListArgs),
    /// Shows what a component can be used as, what it imports, and what it would get
    Inspect(InspectArgs),
    /// Feeds a handler events from standard input; records a call, or replays one
    Run(run::RunArgs),
    /// Looks on while a handler of a running agent works
    Tap(tap::TapArgs),
    /// Lets hostile components loose on this build, beside a harmless one
    Zoo(zoo::ZooArgs),
    /// Compiles a component from standard input; started by the agent itself
    #[command(hide = true)]
    CompileChild,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is compiled and nothing is run. Exit code 1 if the component cannot be a handler here.

Example:
  levada handler inspect redact.wasm")]
pub(crate) struct InspectArgs {
    /// The component's file
    pub(crate) component: PathBuf,
    /// Output for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Does what was asked for.
pub(crate) fn handler(args: HandlerArgs) -> Result<Exit> {
    match args.verb {
        HandlerVerb::New(args) => new::run(&args).map(|()| Exit::Ok),
        HandlerVerb::Build(args) => build::run(&args).map(|()| Exit::Ok),
        HandlerVerb::List(args) => list::run(&args),
        HandlerVerb::Inspect(args) => inspect(&args),
        HandlerVerb::Run(args) => run::run(&args),
        HandlerVerb::Tap(args) => tap::run(&args),
        HandlerVerb::Zoo(args) => zoo::run(&args),
        HandlerVerb::CompileChild => Ok(compile_child()),
    }
}

fn compile_child() -> Exit {
    if levada_wasm::compile_child() == ExitCode::SUCCESS {
        Exit::Ok
    } else {
        Exit::Failed
    }
}

fn inspect(args: &InspectArgs) -> Result<Exit> {
    let bytes = read(&args.component)?;
    let seen = match levada_wasm::inspect(&bytes) {
        Ok(seen) => seen,
        Err(error) => {
            let help = error.help();
            complain(&format!(
                "error: {}: {error}\nhelp: {help}\n",
                args.component.display()
            ));
            return Ok(Exit::Failed);
        }
    };
    if args.json {
        say_json(&seen)?;
    } else {
        say(&shown(&args.component, &seen))?;
    }
    let loads = !seen.roles.is_empty() && seen.refused().next().is_none();
    Ok(if loads { Exit::Ok } else { Exit::Failed })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_READ).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read the component `{}`", path.display()))?;
    Ok(bytes)
}

fn shown(path: &Path, seen: &Inspection) -> String {
    let roles: Vec<_> = seen.roles.iter().copied().map(Role::interface).collect();
    let mut facts = Table::new(&["COMPONENT", ""]);
    facts.row(["file".into(), path.display().to_string()]);
    facts.row(["size".into(), size(seen.bytes as u64)]);
    facts.row(["digest".into(), seen.digest.clone()]);
    facts.row([
        "role".into(),
        if roles.is_empty() {
            "none that this version has".into()
        } else {
            roles.join(", ")
        },
    ]);
    facts.row(["exports".into(), seen.exports.join(", ")]);
    let mut out = facts.to_string();
    if let Some(manifest) = &seen.manifest {
        let _written = write!(out, "\nMANIFEST\n{}\n", clean(manifest));
    }
    if !seen.imports.is_empty() {
        let mut table = Table::new(&["IMPORT", "WOULD GET"]);
        for import in &seen.imports {
            table.row([
                import.name.clone(),
                match &import.given {
                    Given::Always => "works, without a grant".into(),
                    Given::Granted(line) => format!("works once it is granted: {line}"),
                    Given::Inert => "is there and does nothing".into(),
                    Given::Refused(why) => format!("REFUSED: {why}"),
                },
            ]);
        }
        let _written = write!(out, "\n{table}");
    }
    out
}
