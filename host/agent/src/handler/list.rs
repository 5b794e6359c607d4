//! `levada handler list`: the handlers of a configuration, what each may use, and every limit.

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use levada_core::PartId;
use levada_wasm::LimitRow;
use serde::Serialize;

use crate::{
    blueprint::{Blueprint, CheckedHandler},
    check::show_problems,
    cli::ConfArgs,
    exit::Exit,
    handler_part::handler_of,
    output::{say, say_json},
    reading::Reading,
    table::Table,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is loaded. The values are those that hold: from the configuration, or the defaults.

Example:
  levada handler list --conf edge.toml")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) conf: ConfArgs,
}

/// One handler.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    handler: String,
    component: String,
    /// Its roles, and the sources and sinks in which it has them.
    used_as: Vec<String>,
    instances: usize,
    in_flight: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    /// Keys under `grants`.
    grants: Vec<&'static str>,
    limits: Vec<LimitRow>,
}

/// Shows them.
pub(super) fn run(args: &ListArgs) -> Result<Exit> {
    let Reading {
        files,
        found,
        problems,
        ..
    } = Reading::of(&args.conf.conf);
    show_problems(problems, &files, args.conf.json);
    let Some(blueprint) = found else {
        return Ok(Exit::Usage);
    };
    let listed = |handler| listed(handler, &blueprint);
    let listed: Vec<_> = blueprint.handlers.iter().map(listed).collect();
    if args.conf.json {
        say_json(&listed)?;
    } else if listed.is_empty() {
        say("no handler is configured\n")?;
    } else {
        let shown: Vec<_> = listed.iter().map(shown).collect();
        say(&shown.join("\n"))?;
    }
    Ok(Exit::Ok)
}

fn listed(handler: &CheckedHandler, blueprint: &Blueprint) -> Listed {
    let spec = &handler.spec;
    Listed {
        handler: handler.part.name.to_string(),
        component: spec.component.display().to_string(),
        used_as: used_as(&handler.part, blueprint),
        instances: spec.instances,
        in_flight: spec.in_flight,
        when: spec.when.as_ref().map(ToString::to_string),
        grants: spec.grants.keys(),
        limits: spec.limit_rows(),
    }
}

fn used_as(handler: &PartId, blueprint: &Blueprint) -> Vec<String> {
    let mut uses = Vec::new();
    for source in blueprint.sources.iter().map(|source| &source.config) {
        if source.chain.contains(handler) {
            uses.push(format!("interceptor on {}", source.part));
        }
        if handler_of(&source.table).as_ref() == Some(handler) {
            uses.push(format!("source of {}", source.part));
        }
    }
    for sink in blueprint.sinks.iter().map(|sink| &sink.config) {
        if handler_of(&sink.table).as_ref() == Some(handler) {
            uses.push(format!("sink of {}", sink.part));
        }
    }
    uses
}

fn shown(listed: &Listed) -> String {
    let mut facts = Table::new(&["HANDLER", &listed.handler]);
    facts.row(["component".into(), listed.component.clone()]);
    let used_as = match &listed.used_as[..] {
        [] => "nothing".into(),
        uses => uses.join(", "),
    };
    facts.row(["used as".into(), used_as]);
    facts.row(["instances".into(), listed.instances.to_string()]);
    facts.row(["in flight".into(), listed.in_flight.to_string()]);
    let when = listed.when.clone();
    facts.row(["when".into(), when.unwrap_or_else(|| "always".into())]);
    let grants = match &listed.grants[..] {
        [] => "none".into(),
        grants => grants.join(", "),
    };
    facts.row(["grants".into(), grants]);
    let mut limits = Table::new(&["LIMIT", "ALLOWED", "WHEN HIT"]);
    for LimitRow {
        limit,
        allowed,
        when_hit,
    } in &listed.limits
    {
        limits.row([(*limit).into(), allowed.clone(), when_hit.as_str().into()]);
    }
    let mut out = facts.to_string();
    let _written = write!(out, "\n{limits}");
    out
}
