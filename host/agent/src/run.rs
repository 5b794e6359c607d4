//! `levada run`: configuration, blueprint, open, run, drain.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use levada_config::{AgentSettings, LogLook};
use levada_core::{PartId, Problem, Problems, Stopper, TaskSet, settings::Span, tasks::blocking};
use levada_flow::{OpenErrors, PartError};
use levada_telemetry::{LogFormat, LogSetup, init_logs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tracing::{debug, error, info, warn};

use crate::{
    around::Around,
    blueprint::Blueprint,
    check::show_problems,
    cli::RunArgs,
    exit::Exit,
    opening::{self, Opened},
    output::{clean, complain},
    reading::Reading,
    reload::Reloader,
    signals::Signals,
};

/// How long operators' last questions may take after everything else has ended.
const DOORS_CLOSE: Duration = Duration::from_secs(1);

/// Files that are open at once, at most: connections to every listener, and some.
const MOST_FILES: u64 = 65_536;

/// Runs an agent.
pub(crate) fn run(args: &RunArgs) -> Result<Exit> {
    let Reading {
        files,
        around,
        found,
        problems,
    } = Reading::of(&args.conf.conf);
    show_problems(problems, &files, args.conf.json);
    let Some(blueprint) = found else {
        return Ok(Exit::Usage);
    };
    start_logs(&blueprint.settings, args.conf.json)?;
    allow_files();
    if !levada_wasm::deny_write_execute() {
        debug!("this kernel cannot forbid to execute what was written (Linux 6.3 can)");
    }
    let places = blueprint.places();
    match runtime()?.block_on(live(blueprint, &around, &args.conf.conf)) {
        Err(error) => {
            let unopened = error.downcast::<OpenErrors>()?;
            show_problems(placed(&unopened, &places), &files, args.conf.json);
            Ok(Exit::Failed)
        }
        ended => ended,
    }
}

/// Parts that could not be opened, with the places of their tables.
pub(crate) fn placed(unopened: &OpenErrors, places: &BTreeMap<PartId, Span>) -> Problems {
    let mut problems = Problems::new();
    for PartError { part, error } in &unopened.0 {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            message = format!("{message}: {deeper}");
            cause = deeper.source();
        }
        let place = places.get(part).copied();
        problems.push(Problem::error(place, part.to_string(), message));
    }
    problems
}

fn start_logs(settings: &AgentSettings, json: bool) -> Result<()> {
    let log = settings.log.clone().unwrap_or_default();
    let setup = LogSetup {
        format: match log.format {
            LogLook::Human if !json => LogFormat::Human,
            LogLook::Human | LogLook::Json => LogFormat::Json,
        },
        filter: log.filter,
    };
    init_logs(&setup).map_err(anyhow::Error::msg)
}

/// Takes what this process may have of open files: a shell's own limit is often 1,024, and one
/// listener takes 5,000 connections.
fn allow_files() {
    let allowed = getrlimit(Resource::Nofile);
    let most = allowed
        .maximum
        .map_or(MOST_FILES, |most| most.min(MOST_FILES));
    let Some(now) = allowed.current.filter(|now| *now < most) else {
        return;
    };
    let wanted = Rlimit {
        current: Some(most),
        ..allowed
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        warn!(now, %error, "the limit of open files cannot be raised");
    }
}

/// The runtime of everything that waits.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("levada")
        .build()
        .context("cannot start the threads")
}

async fn live(blueprint: Blueprint, around: &Around, conf: &[PathBuf]) -> Result<Exit> {
    let settings = blueprint.settings.clone();
    let signals = Signals::take().context("cannot take signals")?;
    let (stopper, stop) = Stopper::new();
    let mut watchers = TaskSet::new();
    let (hang_ups, hung_up) = mpsc::channel(1);
    watchers.spawn("signals", signals.pass_on(stopper, hang_ups));
    let sandbox = tokio::select! {
        sandbox = opening::load(&blueprint, around) => sandbox,
        () = stop.draining() => return Ok(Exit::Ok),
    };
    let sandbox = match sandbox {
        Ok(sandbox) => sandbox,
        Err(error) => {
            complain(&format!("error: {}\n", clean(&format!("{error:#}"))));
            return Ok(Exit::Usage);
        }
    };
    let mut opened = tokio::select! {
        opened = opening::open(blueprint, sandbox, around) => opened?,
        () = stop.draining() => {
            info!("stopped before everything was open");
            return Ok(Exit::Ok);
        }
    };
    opening::announce(&settings, &opened.facts);
    let reloader = Arc::new(Reloader::new(&mut opened, around, conf));
    watchers.spawn("reload", Arc::clone(&reloader).on_hang_up(hung_up));
    watchers.spawn("drained channels", Arc::clone(&reloader).remove_drained());
    let view = opening::view(&opened, around, (stop.clone(), &reloader));
    let Opened {
        store, flow, doors, ..
    } = opened;
    // The doors close last: until then operators see how the stop goes on.
    let (close_doors, doors_stop) = Stopper::new();
    let mut operators = TaskSet::new();
    operators.spawn("admin", async move { doors.serve(view, &doors_stop).await });

    let drained = flow.run(&stop, settings.shutdown_deadline).await;

    let closed = blocking(move || store.close()).await;
    close_doors.drain();
    if !operators.join(DOORS_CLOSE).await {
        operators.abort().await;
    }
    watchers.abort().await;
    drop(reloader);
    if let Some(reason) = closed.unclean {
        error!(%reason, "the store was not closed in order; the next start repairs it");
        return Ok(Exit::Failed);
    }
    if !drained.cut_off.is_empty() {
        warn!(
            parts = drained.cut_off.join(", "),
            "cut off; what they had was not acknowledged"
        );
    }
    let lost = drained.lost_events();
    if lost > 0 {
        error!(events = lost, "stopped with loss from memory channels");
        return Ok(Exit::Lost);
    }
    info!("stopped");
    Ok(Exit::Ok)
}
