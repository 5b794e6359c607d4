//! A running flow, and how it becomes another one.
//!
//! 1. What is new, and what can run beside the part it replaces, is built and opened. If that fails
//!    nothing has happened.
//! 2. A part that only one at a time can be ends, and its successor opens, from its marks. If that
//!    fails, those that ended are built again, and everything is as before.
//! 3. What was opened starts; sources that stay take the new way from their next put on; what was
//!    replaced or removed ends: it finishes the batch in hand.
//!
//! Parts that stay the same are not touched.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use levada_core::{PartId, PartKind, Stopper, TaskSet};
use tokio::{sync::oneshot, time};
use tracing::{error, warn};

use crate::{
    control::Ingests,
    difference::{Change, Difference, is_exclusive},
    flow::{OpenErrors, Surroundings, open_all},
    parts::Part,
    plan::Plan,
    status::{Cell, Status},
};

/// How long a part that was cut off may take to let go; one that blocks its thread never does.
const LET_GO: Duration = Duration::from_millis(500);

/// A flow while it runs.
pub(crate) struct Running {
    pub(crate) sources: TaskSet,
    pub(crate) sinks: TaskSet,
    pub(crate) live: BTreeMap<PartId, Live>,
    pub(crate) close_ingest: Stopper,
    pub(crate) ingests: Ingests,
    plan: Plan,
    around: Surroundings,
    status: Status,
    /// How long a part may take to end.
    within: Duration,
}

/// A part that runs.
pub(crate) struct Live {
    pub(crate) stopper: Stopper,
    cell: Arc<Cell>,
    /// Nothing is ever sent: the other end goes with the part.
    ended: oneshot::Receiver<()>,
    empties: Arc<std::sync::atomic::AtomicBool>,
}

impl Running {
    pub(crate) fn new(
        plan: Plan,
        around: Surroundings,
        status: Status,
        close_ingest: Stopper,
        within: Duration,
    ) -> Self {
        Self {
            sources: TaskSet::new(),
            sinks: TaskSet::new(),
            live: BTreeMap::new(),
            close_ingest,
            ingests: Ingests::default(),
            plan,
            around,
            status,
            within,
        }
    }

    /// Starts a part that is open.
    pub(crate) fn start(&mut self, part: Part) {
        let id = part.id().clone();
        let cell = part.cell();
        let Part {
            keeper,
            runner,
            stopper,
            ingest,
            empties,
        } = part;
        let (running, ended) = oneshot::channel();
        let tasks = match id.kind {
            PartKind::Sources => &mut self.sources,
            _ => &mut self.sinks,
        };
        tasks.spawn(id.to_string(), async move {
            keeper.keep(runner).await;
            drop(running);
        });
        if let Some(ingest) = ingest {
            let mut ingests = self.ingests.lock().unwrap_or_else(PoisonError::into_inner);
            ingests.insert(id.clone(), ingest);
        }
        let live = Live {
            stopper,
            cell,
            ended,
            empties,
        };
        self.live.insert(id, live);
    }

    /// Makes the flow what `plan` says.
    ///
    /// # Errors
    /// The parts that could not be opened; the flow is as it was.
    pub(crate) async fn change(&mut self, plan: Plan) -> Result<(), OpenErrors> {
        let difference = Difference::between(&self.plan, &plan);
        let replaced: Vec<_> = difference.parts(Change::Replaced).collect();
        let mut touched: Vec<_> = difference.parts(Change::Added).collect();
        touched.extend(&replaced);
        let built = self.around.build(&plan, &touched, &self.close_ingest);
        let waits = |part: &Part| replaced.contains(&part.id()) && is_exclusive(&plan, part.id());
        let (mut after, mut opened): (Vec<_>, Vec<_>) = built.into_iter().partition(waits);

        let errors = open_all(opened.iter_mut()).await;
        if !errors.is_empty() {
            return Err(OpenErrors(errors));
        }
        let ended: Vec<_> = after.iter().map(|part| part.id().clone()).collect();
        self.end(&ended).await;
        let errors = open_all(after.iter_mut()).await;
        if !errors.is_empty() {
            for mut part in opened {
                part.runner.close().await;
            }
            self.restore(&ended).await;
            return Err(OpenErrors(errors));
        }
        opened.extend(after);
        self.take_over(plan, &difference, opened).await;
        Ok(())
    }

    /// Has parts finish what they have in hand.
    async fn end(&mut self, parts: &[PartId]) {
        let old: Vec<_> = parts.iter().filter_map(|id| self.live.remove(id)).collect();
        let within = self.within;
        join_all(old.into_iter().map(|old| old.end(within))).await;
    }

    /// Builds again what has ended already. What cannot be opened now is tried until it can.
    async fn restore(&mut self, parts: &[PartId]) {
        let parts: Vec<_> = parts.iter().collect();
        for mut part in self.around.build(&self.plan, &parts, &self.close_ingest) {
            if let Err(failed) = part.open().await {
                error!(part = %failed.part, error = %failed.error, "cannot open the old part again");
            }
            self.start(part);
        }
        self.show();
    }

    /// Starts what is open, and ends what is not of the plan any more.
    async fn take_over(&mut self, plan: Plan, difference: &Difference, opened: Vec<Part>) {
        let mut old = Vec::new();
        for id in difference.parts(Change::Removed) {
            old.extend(self.live.remove(id));
        }
        for part in opened {
            old.extend(self.live.remove(part.id()));
            self.start(part);
        }
        let mut ways = Vec::new();
        {
            let mut ingests = self.ingests.lock().unwrap_or_else(PoisonError::into_inner);
            ingests.retain(|id, _| self.live.contains_key(id));
            for id in difference.parts(Change::Rewired) {
                let source = plan.sources.iter().find(|source| source.part == *id);
                if let (Some(source), Some(ingest)) = (source, ingests.get(id)) {
                    ways.push(ingest.rewire(source, &self.around.registry));
                }
            }
        }
        self.plan = plan;
        self.show();
        let within = self.within;
        join_all(old.into_iter().map(|old| old.end(within))).await;
        if time::timeout(within, join_all(ways)).await.is_err() {
            warn!("batches that came before the change are still on their way");
        }
    }

    /// Has the status speak of what runs now, in the order of the configuration.
    fn show(&self) {
        let sources = self.plan.sources.iter().map(|source| &source.part);
        let sinks = self.plan.sinks.iter().map(|sink| &sink.part);
        let live = sources.chain(sinks).filter_map(|id| self.live.get(id));
        self.status.show(live.map(|live| Arc::clone(&live.cell)));
    }
}

impl Live {
    /// Has the part finish what it has in hand, and cuts it off when it takes too long. Its channel
    /// stays, so a sink leaves what is in it to others.
    async fn end(mut self, within: Duration) {
        self.empties.store(false, Ordering::Relaxed);
        self.stopper.drain();
        if time::timeout(within, &mut self.ended).await.is_ok() {
            return;
        }
        let part = &self.cell.part;
        warn!(%part, "cut off by a reload; what it had was not acknowledged");
        self.stopper.now();
        if time::timeout(LET_GO, &mut self.ended).await.is_err() {
            error!(%part, "a part blocks its thread and cannot be stopped");
        }
    }
}
