//! The task runner: `cargo x demo`, `cargo x test`, `cargo x ci`, ...
//!
//! A task is a list of steps; a step is one command of cargo or of a tool, printed before it runs
//! and timed. The first step that fails ends the task, with what to do next.

mod build;
mod ci;
mod features;
mod guests;
mod peers;
mod step;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::step::Workspace;

/// Builds, shows and tests Levada.
#[derive(Debug, Parser)]
#[command(name = "cargo x", bin_name = "cargo x", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds the guests and the host, and shows one path from a device to a file while both
    /// agents are killed.
    Demo {
        /// Passed on to the demo; see `cargo x demo -- --help`.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Builds the guests and the host, and runs every test.
    Test {
        /// Passed on to `cargo test`, such as a filter.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Builds the WebAssembly guests into `target/guests`.
    Guests,
    /// Builds the guests and the `levada` binary for development.
    Build,
    /// Everything that a change must pass.
    Ci,
    /// Kills a loaded agent again and again and checks that nothing is missing.
    Kill {
        /// How often to kill it.
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// Runs every test against Apache Flume, and saves what came of it.
    Peers {
        #[command(subcommand)]
        what: Option<Peers>,
    },
    /// Has simulated disks, networks and machines lie and fail, any number of times, and checks what
    /// is left.
    Chaos {
        /// How often, from which seed; `cargo x chaos --help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Lets hostile handlers loose beside a harmless one.
    Zoo {
        /// Which, and whether their long forms too; `levada handler zoo --help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Measures, each figure beside its yardstick: limits, store, codec, handler, hop, idle, zoo.
    Bench {
        /// What to measure and how; `cargo x bench --help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Peers {
    /// Fetches Flume and OpenSearch into `target/peers`, and no more.
    Fetch,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            step::say_failed(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &Verb) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::Demo { rest } => build::demo(&workspace, rest),
        Verb::Test { rest } => build::test(&workspace, rest),
        Verb::Guests => guests::build(&workspace),
        Verb::Build => build::build(&workspace),
        Verb::Ci => ci::run(&workspace),
        Verb::Kill { rounds } => build::kill(&workspace, *rounds),
        Verb::Peers {
            what: Some(Peers::Fetch),
        } => peers::fetch(&workspace),
        Verb::Peers { what: None } => peers::run(&workspace),
        Verb::Chaos { rest } => build::chaos(&workspace, rest),
        Verb::Zoo { rest } => build::zoo(&workspace, rest),
        Verb::Bench { rest } => build::bench(&workspace, rest),
    }
}
