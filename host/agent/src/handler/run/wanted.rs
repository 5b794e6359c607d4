//! Which handler to run: one of an agent, or a component with settings from the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use levada_config::{Loaded, load, load_text};
use levada_core::{Name, PartId, PartKind, Problem, Problems, settings::nearest};
use levada_wasm::HandlerSpec;
use serde_json::json;

use super::RunArgs;
use crate::check::show_problems;

/// A handler with its settings, limits and grants.
pub(super) struct Wanted {
    pub(super) part: PartId,
    pub(super) spec: HandlerSpec,
    /// Where its agent keeps compiled code, if that is there.
    pub(super) cache: Option<PathBuf>,
}

impl Wanted {
    /// Finds it; `None` after what is wrong was shown.
    pub(super) fn find(args: &RunArgs) -> Result<Option<Self>> {
        match (&args.component, &args.handler) {
            (Some(component), _) => {
                let name = name_of(component);
                let text = text(component, &name, args)?;
                Self::read(load_text("the command line", text), &name)
            }
            (None, Some(name)) => Self::read(load(&args.conf), name),
            (None, None) => bail!(
                "which handler? give a component's file, or --conf and --handler, or --replay"
            ),
        }
    }

    /// A handler of a configuration. What is wrong elsewhere in it does not matter here.
    fn read(loaded: Loaded, name: &str) -> Result<Option<Self>> {
        let Loaded {
            files,
            agent,
            problems,
        } = loaded;
        let Some(agent) = agent else {
            show_problems(problems, &files, false);
            return Ok(None);
        };
        let mut handlers = agent.handlers.iter();
        let found = handlers.find(|handler| handler.part.name.as_str() == name);
        let Some(handler) = found else {
            let known: Vec<_> = agent
                .handlers
                .iter()
                .map(|it| it.part.name.as_str())
                .collect();
            let near = nearest(name, known.iter().copied());
            let near = near.map(|near| format!("; did you mean `{near}`?"));
            bail!(
                "there is no handler `{name}`, the configuration has {}{}",
                known.join(", "),
                near.unwrap_or_default()
            );
        };
        let path = handler.part.to_string();
        let is_own = |problem: &&Problem| {
            let rest = problem.key.strip_prefix(&path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut own = Problems::new();
        problems
            .iter()
            .filter(is_own)
            .for_each(|it| own.push(it.clone()));
        let spec = levada_wasm::check(&handler.part, &handler.table, &mut own);
        let is_right = !own.has_errors();
        show_problems(own, &files, false);
        let Some(spec) = spec.filter(|_| is_right) else {
            return Ok(None);
        };
        let data = agent.settings.map(|settings| settings.data);
        let cache = data.map(|data| data.join("compiled"));
        Ok(Some(Self {
            part: handler.part.clone(),
            spec,
            cache: cache.filter(|folder| folder.is_dir()),
        }))
    }
}

/// A component's name without its ending, where that can be one.
fn name_of(component: &Path) -> String {
    let stem = component.file_stem().unwrap_or_default().to_string_lossy();
    Name::new(&stem).map_or_else(|| "handler".into(), |name| name.to_string())
}

/// The command line as the table that it stands for.
fn text(component: &Path, name: &str, args: &RunArgs) -> Result<String> {
    let component = component
        .to_str()
        .context("the component's path is no text")?;
    let table = format!("{}.{}", PartKind::Handlers.as_str(), json!(name));
    let mut text = format!("[{table}]\ncomponent = {}\n", json!(component));
    for (key, given) in [("config", &args.set), ("grants", &args.grant)] {
        text += &format!("[{table}.{key}]\n");
        for pair in given {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            text += &format!("{} = {}\n", json!(key), value_of(value));
        }
    }
    Ok(text)
}

/// A value as it is where it is one of TOML, else as a text.
fn value_of(written: &str) -> String {
    let is_value = toml::from_str::<toml::Table>(&format!("x = {written}")).is_ok();
    match is_value && !written.contains('\n') {
        true => written.to_owned(),
        false => json!(written).to_string(),
    }
}
