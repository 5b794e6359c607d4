//! Becoming what the configuration says now, without a restart (delivery contract, D7.1).
//!
//! All or nothing: the files are read and checked, handlers are compiled, what is new is opened, and
//! only then parts are swapped. Whatever goes wrong, the agent runs on as before, and what is wrong
//! is said with file, line and key.

mod next;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use async_trait::async_trait;
use levada_admin::{Done, Facts, Lines, Operate, Order, Reload, TapOrder};
use levada_config::{ChannelConfig, Files, Look, render_all, report};
use levada_core::{
    ChannelName, Counter, Effects, Outcome, Outcomes, Problems, Settlement, Store, Table, Want,
    inspect::Inspect, ledger::channel_part, store::Lanes, tasks::blocking,
};
use levada_flow::{ChangeError, Control, Plan};
use levada_store::{ChannelError, ChannelSpec, Stores};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tracing::{error, info};

use crate::{
    around::Around,
    check::sorted,
    opening::{Opened, Sandbox},
    run::placed,
    tap,
};
use next::{ChannelChange, Next};

/// Reads the configuration again, and changes the running agent.
pub(crate) struct Reloader {
    conf: Vec<PathBuf>,
    around: Around,
    store: Arc<Stores>,
    control: Control,
    /// What the doors show.
    pub(crate) facts: Arc<Mutex<Facts>>,
    /// Held for the whole of a reload.
    current: tokio::sync::Mutex<Current>,
    /// Rings when a channel is to be drained.
    drains: Notify,
}

/// What the running agent was made from.
pub(crate) struct Current {
    pub(crate) table: Table,
    pub(crate) channels: Vec<Configured>,
    pub(crate) plan: Plan,
    pub(crate) sandbox: Sandbox,
    /// Channels that are not configured any more, and go when their sinks have emptied them.
    pub(crate) draining: Vec<ChannelName>,
}

/// A channel and what the store was told of it.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) config: ChannelConfig,
    pub(crate) spec: ChannelSpec,
}

/// How often to look whether a channel is empty.
const LOOK: Duration = Duration::from_millis(100);

/// Events that are discarded in one transaction.
const AT_ONCE: Want = Want {
    events: 10_000,
    bytes: 16 << 20,
    wait: Duration::ZERO,
    lanes: Lanes::Any,
};

impl Reloader {
    /// Takes over what an agent was made from.
    pub(crate) fn new(opened: &mut Opened, around: &Around, conf: &[PathBuf]) -> Self {
        let current = Current {
            table: opened.current.table.clone(),
            channels: std::mem::take(&mut opened.current.channels),
            plan: opened.current.plan.clone(),
            sandbox: std::mem::take(&mut opened.current.sandbox),
            draining: Vec::new(),
        };
        Self {
            conf: conf.to_vec(),
            around: around.clone(),
            store: Arc::clone(&opened.store),
            control: opened.flow.control(),
            facts: Arc::new(Mutex::new(opened.facts.clone())),
            current: tokio::sync::Mutex::new(current),
            drains: Notify::new(),
        }
    }

    /// Reloads at every SIGHUP, for as long as it is polled.
    pub(crate) async fn on_hang_up(self: Arc<Self>, mut hang_ups: mpsc::Receiver<()>) {
        while hang_ups.recv().await.is_some() {
            let _told_in_the_log = self.reload(&Reload::default(), "SIGHUP").await;
        }
    }

    /// Removes channels that were to be drained, for as long as it is polled.
    pub(crate) async fn remove_drained(self: Arc<Self>) {
        loop {
            self.drains.notified().await;
            while !self.drained().await {
                sleep(LOOK).await;
            }
        }
    }

    /// Reads the configuration and becomes what it says. `by` is who wanted it.
    async fn reload(&self, order: &Reload, by: &str) -> Done {
        let mut current = self.current.lock().await;
        let before = self.facts();
        let on = (&*self.store, &before);
        let read = next::read(&self.conf, &self.around, &current, on, order);
        let (files, problems, next) = read.await;
        let Some(next) = next else {
            return refused(&problems, &files, by);
        };
        let changes = next.changes(&current);
        if order.dry_run {
            return Done::Well(body(false, &changes, &problems, &files));
        }
        let places = next.places.clone();
        match self.become_next(&mut current, next, order).await {
            Ok(()) => {
                let list = changes
                    .iter()
                    .map(|(part, change)| format!("{change} {part}"));
                let changes_made = list.collect::<Vec<_>>().join(", ");
                info!(%by, changes = changes_made, "configuration reloaded");
                Done::Well(body(true, &changes, &problems, &files))
            }
            Err(error) => match error.downcast::<ChangeError>() {
                Ok(ChangeError::Open(unopened)) => {
                    let problems = placed(&unopened, &places);
                    refused(&problems, &files, by);
                    Done::Failed(body(false, &[], &problems, &files))
                }
                Ok(error) => failed(&error.into(), by),
                Err(error) => failed(&error, by),
            },
        }
    }

    /// Channels first, then the parts, then what is not needed any more.
    async fn become_next(&self, current: &mut Current, next: Next, order: &Reload) -> Result<()> {
        let changes = &next.channels_changed;
        let changed = match self.set_channels(changes).await {
            Ok(()) => {
                let changed = self.control.change(next.plan.clone()).await;
                changed.map_err(Into::into)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = changed {
            self.unset_channels(changes).await;
            return Err(error);
        }
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = next.facts;
        current.table = next.table;
        current.channels = next.channels;
        current.plan = next.plan;
        next.sandbox.put_into(&mut current.sandbox);
        current.draining = next.draining;
        let removed = changes.iter().filter_map(ChannelChange::removed);
        for name in removed.filter(|name| !current.draining.contains(name)) {
            if let Err(error) = self.remove(name, order).await {
                // Nothing uses it any more; the next start will speak of what is in it.
                error!(channel = %name, error = %format_args!("{error:#}"), "channel not removed");
            }
        }
        if !current.draining.is_empty() {
            self.drains.notify_one();
        }
        Ok(())
    }

    async fn remove(&self, name: &ChannelName, order: &Reload) -> Result<()> {
        if order.discard.iter().any(|word| word == name.as_str()) {
            self.discard(name).await?;
        }
        Ok(self.store.remove_channel(name)?)
    }

    async fn set_channels(&self, changes: &[ChannelChange]) -> Result<()> {
        for change in changes {
            match change {
                ChannelChange::Removed(_) => {}
                ChannelChange::Added(new) | ChannelChange::Changed { new, .. } => {
                    self.set_channel(new.clone()).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes the channels what they were. Nobody has put anything into those that were added.
    async fn unset_channels(&self, changes: &[ChannelChange]) {
        for change in changes {
            let undone = match change {
                ChannelChange::Removed(_) => Ok(()),
                ChannelChange::Changed { old, .. } => self.set_channel(old.clone()).await,
                ChannelChange::Added(new) => match self.store.remove_channel(&new.name) {
                    Err(ChannelError::None { .. }) | Ok(()) => Ok(()),
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(error) = undone {
                error!(error = %format_args!("{error:#}"), "a channel is not what it was");
            }
        }
    }

    fn facts(&self) -> Facts {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.clone()
    }

    async fn set_channel(&self, spec: ChannelSpec) -> Result<()> {
        let store = Arc::clone(&self.store);
        Ok(blocking(move || store.set_channel(&spec)).await?)
    }

    /// Takes every event out of a channel that nobody uses any more, counted.
    async fn discard(&self, name: &ChannelName) -> Result<()> {
        let part = channel_part(name);
        let mut discarded = 0;
        while self.events(name) > 0 {
            let lease = self.store.lease(name, AT_ONCE).await?;
            let events = lease.batch.len();
            let mut effects = Effects::default();
            effects.count_reason(&part, Counter::Discarded, "removed", events as u64);
            let settlement = Settlement {
                part: part.clone(),
                outcomes: Outcomes::Each(vec![Outcome::Discard; events]),
                marks: Vec::new(),
                effects,
                durable: true,
            };
            self.store.settle(lease, settlement).await?;
            discarded += events;
        }
        error!(channel = %name, events = discarded, "events were discarded with their channel");
        Ok(())
    }

    fn events(&self, name: &ChannelName) -> u64 {
        let channels = self.store.channels();
        let channel = channels.iter().find(|info| info.name == *name);
        channel.map_or(0, |info| info.events)
    }

    /// Lets go of channels that are empty now; whether none is left to drain.
    async fn drained(&self) -> bool {
        let mut current = self.current.lock().await;
        let (left, empty): (Vec<_>, Vec<_>) = std::mem::take(&mut current.draining)
            .into_iter()
            .partition(|name| self.events(name) > 0);
        current.draining = left;
        if empty.is_empty() {
            return current.draining.is_empty();
        }
        let mut plan = current.plan.clone();
        plan.sinks.retain(|sink| !empty.contains(&sink.channel));
        let sinks = &plan.sinks;
        plan.groups
            .retain(|group| sinks.iter().any(|sink| group.members.contains(&sink.part)));
        if let Err(error) = self.control.change(plan.clone()).await {
            error!(%error, "cannot let go of drained channels");
            return true;
        }
        current.plan = plan;
        for name in empty {
            match self.store.remove_channel(&name) {
                Ok(()) => info!(channel = %name, "a drained channel is gone"),
                Err(error) => error!(channel = %name, %error, "cannot remove a drained channel"),
            }
        }
        current.draining.is_empty()
    }

    async fn replay(&self, id: u64, by: &str) -> Done {
        match self.control.replay(id).await {
            Ok(()) => {
                info!(%by, id, "dead letter replayed for an operator");
                Done::Well(json!({ "replayed": id }))
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                Done::Refused(json!({ "error": format!("{error:#}") }))
            }
        }
    }
}

#[async_trait]
impl Operate for Reloader {
    async fn carry_out(&self, order: Order, by: &str) -> Done {
        match order {
            Order::Replay { letter } => self.replay(letter, by).await,
            Order::Reload(order) => self.reload(&order, by).await,
        }
    }

    async fn tap(&self, order: TapOrder, by: &str) -> Result<Box<dyn Lines>, String> {
        let current = self.current.lock().await;
        let tap = tap::open(&current.sandbox.loaded, &order)?;
        info!(%by, handler = order.handler, filter = order.filter, "somebody looks at events");
        Ok(tap)
    }
}

/// The answer to a reload that was understood.
fn body(reloaded: bool, changes: &[(String, &str)], problems: &Problems, files: &Files) -> Value {
    let problems = sorted(problems.clone());
    let change = |(part, change): &(String, &str)| json!({ "part": part, "change": change });
    json!({
        "reloaded": reloaded,
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "problems": problems.iter().map(|p| report(p, files)).collect::<Vec<_>>(),
        "text": render_all(&problems, files, Look::Plain),
    })
}

/// The configuration is wrong: the agent runs on as before.
fn refused(problems: &Problems, files: &Files, by: &str) -> Done {
    for problem in sorted(problems.clone()) {
        let told = report(&problem, files);
        let (file, line) = (told.file.unwrap_or_default(), told.line.unwrap_or_default());
        let (key, message) = (told.key, told.message);
        error!(%by, at = %format_args!("{file}:{line}:{key}"), %message, "reload refused");
    }
    Done::Refused(body(false, &[], problems, files))
}

fn failed(error: &anyhow::Error, by: &str) -> Done {
    error!(%by, error = %format_args!("{error:#}"), "reload failed");
    Done::Failed(json!({ "reloaded": false, "error": format!("{error:#}") }))
}
