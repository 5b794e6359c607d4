//! `levada`: one binary, one agent.
//!
//! What is typed and what it means are two stages: [`cli`] is the first, a file per verb the
//! second. `run` tells the story: configuration, blueprint, open, run, drain.

mod cli;
mod exit;
mod output;

mod around;
mod blueprint;
mod crossing;
mod handler_part;
mod handler_sink;
mod handler_source;
mod kinds;
mod reading;

mod check;
mod figures;
mod opening;
mod plan;
mod reload;
mod run;
mod salvage;
mod signals;
mod state_order;
mod tap;

mod ask;
mod audit;
mod channel;
mod dlq;
mod explain;
mod handler;
mod order;
mod pki;
mod status;

mod table;

#[cfg(feature = "failpoints")]
mod crash;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Verb},
    exit::Exit,
};

fn main() -> ExitCode {
    // Everything that uses TLS takes this provider; the first installation wins.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    #[cfg(feature = "failpoints")]
    if let Err(error) = crash::arm() {
        return exit::of(Err(error));
    }
    match cli::read(std::env::args_os()) {
        Ok(cli) => exit::of(obey(cli)),
        Err(exit) => exit.into(),
    }
}

fn obey(cli: Cli) -> anyhow::Result<Exit> {
    match cli.verb {
        Verb::Run(run) => run::run(&run),
        Verb::Check(check) => check::check(&check),
        Verb::Status(place) => status::status(&place),
        Verb::Reload(reload) => order::reload(&reload),
        Verb::Audit(place) => audit::audit(&place),
        Verb::Dlq(dlq) => dlq::dlq(&dlq),
        Verb::Channel(channel) => channel::channel(&channel),
        Verb::Explain(explain) => explain::explain(&explain),
        Verb::Handler(handler) => handler::handler(handler),
        Verb::Pki(args) => pki::pki(&args),
    }
}
