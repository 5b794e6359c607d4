//! What an agent is to become: read, checked and compiled, and nothing of it done.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use levada_admin::{Facts, Reload};
use levada_config::{Files, Loaded};
use levada_core::{
    ChannelName, PartId, Problem, Problems, Table, inspect::Inspect, settings::Span,
    tasks::blocking,
};
use levada_flow::{Difference, Plan};
use levada_store::{ChannelSpec, Stores};
use levada_wasm::Handlers;

use super::{Configured, Current};
use crate::{
    around::Around,
    blueprint::{Blueprint, blueprint},
    figures, handler_part,
    kinds::Kinds,
    opening::{self, Sandbox},
    plan::{self, Loaded as LoadedHandlers, only},
};

/// An agent that could be.
pub(super) struct Next {
    pub(super) table: Table,
    pub(super) channels: Vec<Configured>,
    pub(super) channels_changed: Vec<ChannelChange>,
    pub(super) plan: Plan,
    pub(super) sandbox: NewSandbox,
    pub(super) draining: Vec<ChannelName>,
    pub(super) facts: Facts,
    /// Where the table of each source and sink stands.
    pub(super) places: BTreeMap<PartId, Span>,
}

/// Handlers that are loaded; the engine if there was none before.
pub(super) struct NewSandbox {
    engine: Option<Handlers>,
    loaded: LoadedHandlers,
}

/// A channel that is touched.
pub(super) enum ChannelChange {
    Added(ChannelSpec),
    Changed { old: ChannelSpec, new: ChannelSpec },
    Removed(ChannelName),
}

impl ChannelChange {
    pub(super) fn added(&self) -> Option<&ChannelName> {
        match self {
            Self::Added(spec) => Some(&spec.name),
            Self::Changed { .. } | Self::Removed(_) => None,
        }
    }

    pub(super) fn removed(&self) -> Option<&ChannelName> {
        match self {
            Self::Removed(name) => Some(name),
            Self::Added(_) | Self::Changed { .. } => None,
        }
    }
}

impl NewSandbox {
    pub(super) fn put_into(self, sandbox: &mut Sandbox) {
        sandbox.loaded = self.loaded;
        if self.engine.is_some() {
            sandbox.handlers = self.engine;
        }
    }
}

/// Reads and checks; `None` beside an error among the problems.
pub(super) async fn read(
    conf: &[PathBuf],
    around: &Around,
    current: &Current,
    (store, before): (&Stores, &Facts),
    order: &Reload,
) -> (Files, Problems, Option<Next>) {
    let conf = conf.to_vec();
    let Loaded {
        files,
        agent,
        mut problems,
    } = blocking(move || levada_config::load(&conf)).await;
    let kinds = Kinds::new(around);
    let Some(blueprint) = agent.and_then(|agent| blueprint(agent, &kinds, &mut problems)) else {
        return (files, problems, None);
    };
    needs_restart(&current.table, &blueprint.table, &mut problems);
    let (channels, changed) = channels(current, &blueprint, &mut problems);
    let draining = going(current, &changed, store, order, &mut problems);
    no_sink_twice(current, &blueprint, &draining, &mut problems);
    let sandbox = load(current, &blueprint, around, &mut problems).await;
    let Some(sandbox) = sandbox.filter(|_| !problems.has_errors()) else {
        return (files, problems, None);
    };
    let places = blueprint.places();
    let facts = opening::facts_after(before, &blueprint, around);
    let table = blueprint.table.clone();
    let mut plan = plan::plan(blueprint, &sandbox.loaded);
    keep_draining(&mut plan, &current.plan, &draining);
    let next = Next {
        table,
        channels,
        channels_changed: changed,
        plan,
        sandbox,
        draining,
        facts,
        places,
    };
    (files, problems, Some(next))
}

impl Next {
    /// Every part that is touched, with what happens to it.
    pub(super) fn changes(&self, current: &Current) -> Vec<(String, &'static str)> {
        let mut changes = Vec::new();
        for change in &self.channels_changed {
            let (name, what) = match change {
                ChannelChange::Added(spec) => (&spec.name, "added"),
                ChannelChange::Changed { new, .. } => (&new.name, "changed"),
                ChannelChange::Removed(name) if self.draining.contains(name) => (name, "draining"),
                ChannelChange::Removed(name) => (name, "removed"),
            };
            changes.push((format!("channels.{name}"), what));
        }
        let (old, new) = (&current.sandbox.loaded, &self.sandbox.loaded);
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for part in names {
            let what = match (old.get(part), new.get(part)) {
                (None, _) => "added",
                (_, None) => "removed",
                (Some(old), Some(new)) if old.made_of != new.made_of => "replaced",
                _ => continue,
            };
            changes.push((part.to_string(), what));
        }
        let Difference(parts) = Difference::between(&current.plan, &self.plan);
        for changed in parts {
            changes.push((changed.part.to_string(), changed.change.as_str()));
        }
        changes
    }
}

/// Settings of the process as a whole are those it was started with.
fn needs_restart(old: &Table, new: &Table, problems: &mut Problems) {
    let keys = old.entries.iter().chain(&new.entries);
    let keys: BTreeSet<_> = keys.map(|(key, _)| key.name.as_str()).collect();
    for key in keys {
        let is = |name: &str| name == key;
        if only(old, is) != only(new, is) {
            let span = new.get(key).map_or(new.span, |(key, _)| key.span);
            let message = "cannot be changed while the agent runs";
            let problem = Problem::error(Some(span), new.path_of(key), message);
            problems.push(problem.help("restart the agent, or put the old value back"));
        }
    }
}

/// The channels with what the store is to be told of each, and those that are touched.
fn channels(
    current: &Current,
    blueprint: &Blueprint,
    problems: &mut Problems,
) -> (Vec<Configured>, Vec<ChannelChange>) {
    let share = figures::durable_share(&blueprint.settings.data, &blueprint.channels);
    let share = share.unwrap_or_else(|error| {
        problems.push(Problem::error(None, "channels", format!("{error:#}")));
        0
    });
    let (mut channels, mut changed) = (Vec::new(), Vec::new());
    for config in &blueprint.channels {
        let old = current.channels.iter();
        let mut old = old.filter(|old| old.config.name == config.name);
        let Some(old) = old.next() else {
            let new = opening::configured(config, share);
            changed.push(ChannelChange::Added(new.spec.clone()));
            channels.push(new);
            continue;
        };
        // A share of the disk is worked out once, when the channel is new.
        if format!("{:?}", old.config.params) == format!("{:?}", config.params) {
            channels.push(old.clone());
            continue;
        }
        let new = opening::configured(config, share);
        if new.spec.kind != old.spec.kind {
            let key = format!("channels.{}.type", config.name);
            let message = "cannot be changed while the agent runs";
            let problem = Problem::error(Some(config.span), key, message);
            problems.push(problem.help("restart the agent, or give the channel another name"));
        }
        changed.push(ChannelChange::Changed {
            old: old.spec.clone(),
            new: new.spec.clone(),
        });
        channels.push(new);
    }
    let stays = |name: &ChannelName| blueprint.channels.iter().any(|config| config.name == *name);
    let gone = current.channels.iter().map(|old| &old.config.name);
    let gone = gone.filter(|name| !stays(name)).cloned();
    changed.extend(gone.map(ChannelChange::Removed));
    (channels, changed)
}

/// The channels that are configured no more and are to be emptied before they go.
fn going(
    current: &Current,
    changed: &[ChannelChange],
    store: &Stores,
    order: &Reload,
    problems: &mut Problems,
) -> Vec<ChannelName> {
    let removed: Vec<_> = changed.iter().filter_map(ChannelChange::removed).collect();
    let named = order.drain.iter().chain(&order.discard);
    for word in named.filter(|word| removed.iter().all(|name| name.as_str() != **word)) {
        let message = format!("`{word}` is no channel that this reload would remove");
        problems.push(Problem::error(None, format!("channels.{word}"), message));
    }
    let holds = |name: &ChannelName| {
        let infos = store.channels();
        let info = infos.iter().find(|info| info.name == *name);
        info.map_or(0, |info| info.events)
    };
    let has = |words: &[String], name: &ChannelName| words.iter().any(|w| w == name.as_str());
    // What was to be drained and is configured again stays.
    let again = |name: &&ChannelName| {
        !changed.iter().any(|change| change.added() == Some(name)) && holds(name) > 0
    };
    let mut draining: Vec<_> = current.draining.iter().filter(again).cloned().collect();
    for name in removed {
        let events = holds(name);
        if has(&order.drain, name) {
            draining.push(name.clone());
        } else if events > 0 && !has(&order.discard, name) {
            let message = format!("is configured no more, and holds {events} events");
            let help = format!(
                "levada reload --drain {name} has its sinks empty it first, \
                 --discard {name} loses the events"
            );
            let key = format!("channels.{name}");
            problems.push(Problem::error(None, key, message).help(help));
        }
    }
    draining
}

/// A sink that empties a channel which goes keeps its name until then.
fn no_sink_twice(
    current: &Current,
    blueprint: &Blueprint,
    draining: &[ChannelName],
    problems: &mut Problems,
) {
    for sink in &blueprint.sinks {
        let (part, table) = (&sink.config.part, &sink.config.table);
        let before = current.plan.sinks.iter().find(|old| old.part == *part);
        if let Some(old) = before.filter(|old| draining.contains(&old.channel)) {
            let message = format!("this sink still has to empty channel `{}`", old.channel);
            let problem = Problem::error(Some(table.span), part.to_string(), message);
            problems.push(problem.help("give the new sink another name"));
        }
    }
}

fn keep_draining(plan: &mut Plan, old: &Plan, draining: &[ChannelName]) {
    let drains = old.sinks.iter();
    let drains = drains.filter(|sink| draining.contains(&sink.channel));
    let drains: Vec<_> = drains.cloned().collect();
    let groups = old.groups.iter();
    let of_them =
        groups.filter(|group| drains.iter().any(|sink| group.members.contains(&sink.part)));
    plan.groups.extend(of_them.cloned());
    plan.sinks.extend(drains);
}

/// Loads handlers that are new or other than before.
async fn load(
    current: &Current,
    blueprint: &Blueprint,
    around: &Around,
    problems: &mut Problems,
) -> Option<NewSandbox> {
    let mut engine = None;
    if current.sandbox.handlers.is_none() {
        match opening::open_handlers(blueprint, around).await {
            Ok(opened) => engine = opened,
            Err(error) => {
                problems.push(Problem::error(None, "handlers", format!("{error:#}")));
                return None;
            }
        }
    }
    let mut loaded = LoadedHandlers::new();
    let handlers = engine.as_ref().or(current.sandbox.handlers.as_ref());
    for handler in &blueprint.handlers {
        let made_of = opening::made_of(handler).await;
        let before = current.sandbox.loaded.get(&handler.part);
        if let Some(same) = before.filter(|before| before.made_of == made_of) {
            loaded.insert(handler.part.clone(), same.clone());
            continue;
        }
        let ready = opening::load_one(handlers?, handler, made_of).await;
        match ready {
            Ok(ready) => drop(loaded.insert(handler.part.clone(), ready)),
            Err(error) => {
                let key = format!("{}.component", handler.part);
                let message = format!("{error:#}");
                problems.push(Problem::error(Some(handler.place), key, message));
            }
        }
    }
    handler_part::check_roles(blueprint, &loaded, problems);
    Some(NewSandbox { engine, loaded })
}
