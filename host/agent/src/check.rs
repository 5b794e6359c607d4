//! `levada check`: every problem at once, and what the agent will need.

use anyhow::Result;
use levada_config::{Files, render_all, report};
use levada_core::{Problem, Problems};
use levada_wasm::Handlers;
use serde::Serialize;

use crate::{
    around::Around,
    blueprint::{Blueprint, CheckedHandler},
    cli::CheckArgs,
    exit::Exit,
    figures::{Figures, figures},
    handler_part, opening,
    output::{complain, look, say, say_json},
    plan::{Loaded, LoadedHandler},
    reading::Reading,
    run::runtime,
};

/// The JSON of `levada check --json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Checkup {
    ok: bool,
    problems: Vec<levada_config::Report>,
    /// `None` beside an error.
    figures: Option<Figures>,
}

/// Checks a configuration; loads its handlers, and starts nothing.
pub(crate) fn check(args: &CheckArgs) -> Result<Exit> {
    let Reading {
        files,
        around,
        found,
        mut problems,
    } = Reading::of(&args.conf.conf);
    if let Some(blueprint) = &found {
        runtime()?.block_on(load_handlers(blueprint, &around, &mut problems));
    }
    let ok = !problems.has_errors();
    let figures = match found.filter(|_| ok) {
        Some(blueprint) => Some(figures(&blueprint, args.rate)?),
        None => None,
    };
    if args.conf.json {
        let problems = sorted(problems);
        let problems = problems
            .iter()
            .map(|problem| report(problem, &files))
            .collect();
        say_json(&Checkup {
            ok,
            problems,
            figures,
        })?;
    } else {
        show_problems(problems, &files, false);
        if let Some(figures) = figures {
            say(&format!("{}: in order\n\n{figures}", around.agent))?;
        }
    }
    Ok(if ok { Exit::Ok } else { Exit::Usage })
}

/// Loads each handler and lets it go again; what was compiled is kept for the start, if the data
/// folder is there.
async fn load_handlers(blueprint: &Blueprint, around: &Around, problems: &mut Problems) {
    let handlers = match opening::open_handlers(blueprint, around).await {
        Ok(None) => return,
        Ok(Some(handlers)) => handlers,
        Err(error) => {
            problems.push(Problem::error(None, "handlers", format!("{error:#}")));
            return;
        }
    };
    let mut loaded = Loaded::new();
    for handler in &blueprint.handlers {
        let CheckedHandler { part, spec, .. } = handler;
        for remark in Handlers::remarks(spec).await {
            let key = format!("{part}.{}", remark.key);
            let problem = Problem::warning(Some(handler.place), key, remark.what);
            problems.push(problem.help(remark.help));
        }
        match handlers.load(part, spec).await {
            Ok(roles) => {
                let made_of = String::new();
                loaded.insert(part.clone(), LoadedHandler { made_of, roles });
            }
            Err(error) => {
                let help = error.help();
                let error = anyhow::Error::from(error);
                let key = format!("{part}.component");
                let mut problem = Problem::error(Some(handler.place), key, format!("{error:#}"));
                problem.help = help.map(Into::into);
                problems.push(problem);
            }
        }
    }
    handler_part::check_roles(blueprint, &loaded, problems);
}

/// Shows problems on standard error: as text, or as one JSON list.
pub(crate) fn show_problems(problems: Problems, files: &Files, json: bool) {
    let problems = sorted(problems);
    if problems.is_empty() {
        return;
    }
    if json {
        let reports: Vec<_> = problems
            .iter()
            .map(|problem| report(problem, files))
            .collect();
        let text = serde_json::to_string(&reports).expect("our types have text keys only");
        complain(&format!("{text}\n"));
    } else {
        complain(&render_all(&problems, files, look()));
    }
}

/// In the order of the files, and each once: a key that two readers share is reported by both.
pub(crate) fn sorted(problems: Problems) -> Vec<Problem> {
    let mut sorted = problems.into_sorted();
    sorted.dedup();
    sorted
}
