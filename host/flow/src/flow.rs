//! Putting the parts together and running them.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use levada_core::{Chance, Clock, OpenError, PartId, Stop, Stopper, Store, inspect::Inspect};
use levada_telemetry::Registry;
use tokio::sync::mpsc;

use crate::{
    change::Running,
    control::{Control, Order},
    drain::{self, Drained, Tasks},
    parts::Part,
    plan::Plan,
    status::Status,
    supervise::chain_text,
};

/// Sources, interceptors, selectors and sinks around one store: open, and not started.
pub struct Flow {
    plan: Plan,
    sources: Vec<Part>,
    sinks: Vec<Part>,
    close_ingest: Stopper,
    status: Status,
    around: Surroundings,
    control: Control,
    orders: mpsc::Receiver<Order>,
}

/// What a flow stands on.
#[derive(Clone)]
pub struct Surroundings {
    pub store: Arc<dyn Store>,
    /// The same store, to look at.
    pub inspect: Arc<dyn Inspect>,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
    pub chance: Chance,
}

/// Everything that could not be opened.
#[derive(Debug)]
pub struct OpenErrors(pub Vec<PartError>);

/// A part that could not be opened.
#[derive(Debug)]
pub struct PartError {
    pub part: PartId,
    pub error: OpenError,
}

impl Flow {
    /// Builds and opens every part, sinks first; binds every listener; starts nothing.
    ///
    /// # Errors
    /// [`OpenErrors`] with every part that could not be opened; the others are dropped again.
    pub async fn open(plan: Plan, around: Surroundings) -> Result<Self, OpenErrors> {
        let (close_ingest, _) = Stopper::new();
        let sinks: Vec<_> = plan.sinks.iter().map(|sink| &sink.part).collect();
        let sources: Vec<_> = plan.sources.iter().map(|source| &source.part).collect();
        let mut sinks = around.build(&plan, &sinks, &close_ingest);
        let mut sources = around.build(&plan, &sources, &close_ingest);
        let errors = open_all(sinks.iter_mut().chain(&mut sources)).await;
        if !errors.is_empty() {
            return Err(OpenErrors(errors));
        }
        let status = Status::new(Arc::clone(&around.inspect));
        status.show(sources.iter().chain(&sinks).map(Part::cell));
        status.show_in(&around.registry);
        let (control, orders) = Control::new(&around);
        Ok(Self {
            plan,
            sources,
            sinks,
            close_ingest,
            status,
            around,
            control,
            orders,
        })
    }

    /// What every part does; stays readable after the flow has ended.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// What operators may change while the flow runs.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Starts the sinks, then the sources; runs, and changes as it is told, until `stop` drains;
    /// drains `within` that time.
    ///
    /// The store stays open: the caller closes it afterwards. Dropped, everything is cut off at
    /// once: what was not acknowledged stays with its sender, what was leased goes back.
    pub async fn run(self, stop: &Stop, within: Duration) -> Drained {
        let Self {
            plan,
            sources,
            sinks,
            close_ingest,
            status,
            around,
            control,
            mut orders,
        } = self;
        let inspect = Arc::clone(&around.inspect);
        let mut running = Running::new(plan, around, status.clone(), close_ingest, within);
        running.ingests = control.ingests.clone();
        drop(control);
        sinks.into_iter().for_each(|sink| running.start(sink));
        sources.into_iter().for_each(|source| running.start(source));
        loop {
            let order = tokio::select! {
                biased;
                () = stop.draining() => break,
                Some(_) = running.sources.next() => continue,
                Some(_) = running.sinks.next() => continue,
                Some(order) = orders.recv() => order,
            };
            tokio::select! {
                biased;
                () = stop.now() => break,
                () = order.carry_out(&mut running) => {}
            }
        }
        orders.close();
        let tasks = Tasks::of(running);
        drain::drain(tasks, &status, &inspect, stop, within).await
    }
}

/// Opens parts one after the other; what could not be opened. If there is any, all are closed.
pub(crate) async fn open_all<'a>(parts: impl Iterator<Item = &'a mut Part>) -> Vec<PartError> {
    let mut parts: Vec<_> = parts.collect();
    let mut errors = Vec::new();
    for part in &mut parts {
        errors.extend(part.open().await.err());
    }
    if !errors.is_empty() {
        for part in parts {
            part.runner.close().await;
        }
    }
    errors
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("parts", &self.status)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open `{}`", self.part)
    }
}

impl Error for PartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl fmt::Display for OpenErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self
            .0
            .iter()
            .map(|part| format!("{part}: {}", chain_text(&part.error)))
            .collect();
        f.write_str(&list.join("; "))
    }
}

impl Error for OpenErrors {}
