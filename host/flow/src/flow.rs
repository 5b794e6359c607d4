//! Putting the parts together and running them.

use std::{collections::HashMap, error::Error, fmt, sync::Arc, time::Duration};

use levada_core::{
    Chance, Clock, OpenError, PartId, RunContext, Stop, Stopper, Store, TaskSet, inspect::Inspect,
};
use levada_telemetry::Registry;

use crate::{
    drain::{self, Drained, Tasks},
    group::{Group, Seat},
    in_flight::{InFlight, default_total},
    ingest::{Behind, SourceIngest},
    metrics::{PartMetrics, SinkMetrics},
    plan::{GroupPlan, Plan, SinkPlan, SourcePlan},
    sink_runner::{SinkRunner, With},
    source_runner::SourceRunner,
    status::{Cell, Status},
    supervise::{Keeper, Runner, caught, chain_text},
};

/// Sources, interceptors, selectors and sinks around one store: open, and not started.
pub struct Flow {
    sources: Vec<Part>,
    sinks: Vec<Part>,
    stop_sources: Stopper,
    close_ingest: Stopper,
    stop_sinks: Stopper,
    status: Status,
    inspect: Arc<dyn Inspect>,
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

/// A part with its supervisor.
struct Part {
    keeper: Keeper,
    runner: Box<dyn Runner>,
}

impl Flow {
    /// Builds and opens every part, sinks first; binds every listener; starts nothing.
    ///
    /// # Errors
    /// [`OpenErrors`] with every part that could not be opened; the others are dropped again.
    pub async fn open(plan: Plan, around: Surroundings) -> Result<Self, OpenErrors> {
        let (stop_sources, sources_stop) = Stopper::new();
        let (close_ingest, ingest_closed) = Stopper::new();
        let (stop_sinks, sinks_stop) = Stopper::new();
        let total = plan.in_flight_bytes.unwrap_or_else(default_total);
        let share = || InFlight::share_of(total, plan.sources.len());
        let mut sources: Vec<_> = plan
            .sources
            .iter()
            .map(|source| around.source(source, &sources_stop, &ingest_closed, share()))
            .collect();
        let mut seats = around.seats(&plan.groups);
        let mut sinks: Vec<_> = plan
            .sinks
            .iter()
            .map(|sink| {
                let seat = seats.remove(&sink.part);
                around.sink(sink, plan.is_alone(sink), seat, &sinks_stop)
            })
            .collect();

        let mut errors = Vec::new();
        for part in sinks.iter_mut().chain(&mut sources) {
            errors.extend(part.open().await.err());
        }
        if !errors.is_empty() {
            for part in sinks.iter_mut().chain(&mut sources) {
                part.runner.close().await;
            }
            return Err(OpenErrors(errors));
        }
        let cells = sources
            .iter()
            .chain(&sinks)
            .map(|part| Arc::clone(&part.keeper.cell));
        let status = Status::new(cells.collect(), Arc::clone(&around.inspect));
        status.show_in(&around.registry);
        let inspect = around.inspect;
        Ok(Self {
            sources,
            sinks,
            stop_sources,
            close_ingest,
            stop_sinks,
            status,
            inspect,
        })
    }

    /// What every part does; stays readable after the flow has ended.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Starts the sinks, then the sources; runs until `stop` drains; drains `within` that time.
    ///
    /// The store stays open: the caller closes it afterwards. Dropped, everything is cut off at
    /// once: what was not acknowledged stays with its sender, what was leased goes back.
    pub async fn run(self, stop: &Stop, within: Duration) -> Drained {
        let Self {
            sources,
            sinks,
            stop_sources,
            close_ingest,
            stop_sinks,
            status,
            inspect,
        } = self;
        let sinks = start(sinks);
        let sources = start(sources);
        stop.draining().await;
        let tasks = Tasks {
            sources,
            sinks,
            stop_sources,
            close_ingest,
            stop_sinks,
        };
        drain::drain(tasks, &status, &inspect, stop, within).await
    }
}

fn start(parts: Vec<Part>) -> TaskSet {
    let mut tasks = TaskSet::new();
    for Part { keeper, runner } in parts {
        tasks.spawn(keeper.cell.part.to_string(), keeper.keep(runner));
    }
    tasks
}

impl Part {
    async fn open(&mut self) -> Result<(), PartError> {
        let opened = caught(self.runner.open()).await;
        let error = match opened {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(panic) => OpenError::new(format!("panicked: {panic}")),
        };
        self.keeper.cell.error(&chain_text(&error));
        Err(PartError {
            part: self.keeper.cell.part.clone(),
            error,
        })
    }
}

impl Surroundings {
    fn source(&self, plan: &SourcePlan, stop: &Stop, closed: &Stop, in_flight: InFlight) -> Part {
        let cell = Cell::new(
            plan.part.clone(),
            plan.channels.clone(),
            Arc::clone(&self.clock),
        );
        let behind = Behind {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            in_flight,
            closed: closed.clone(),
            registry: &self.registry,
            cell: Arc::clone(&cell),
        };
        let runner = SourceRunner {
            build: Arc::clone(&plan.build),
            ingest: Arc::new(SourceIngest::new(plan, behind)),
            context: self.context(&plan.part, stop),
            source: None,
        };
        Part {
            keeper: self.keeper(cell, stop),
            runner: Box::new(runner),
        }
    }

    /// The seat of each sink that is in a group.
    fn seats(&self, groups: &[GroupPlan]) -> HashMap<PartId, Seat> {
        let seats = groups.iter().flat_map(|group| {
            let seats = Group::seats(group, &self.chance, &self.registry);
            group.members.iter().cloned().zip(seats)
        });
        seats.collect()
    }

    fn sink(&self, plan: &SinkPlan, alone: bool, seat: Option<Seat>, stop: &Stop) -> Part {
        let channels = vec![plan.channel.clone()];
        let cell = Cell::new(plan.part.clone(), channels, Arc::clone(&self.clock));
        let memory = |info: &levada_core::inspect::ChannelInfo| {
            info.name == plan.channel && info.kind == "memory"
        };
        let with = With {
            channel: plan.channel.clone(),
            alone,
            want: plan.want,
            retry: plan.retry,
            seat,
            empties: self.inspect.channels().iter().any(memory),
            store: Arc::clone(&self.store),
            inspect: Arc::clone(&self.inspect),
            context: self.context(&plan.part, stop),
            metrics: SinkMetrics::new(&self.registry, &plan.part),
            cell: Arc::clone(&cell),
        };
        let runner = SinkRunner {
            build: Arc::clone(&plan.build),
            with,
            sink: None,
        };
        Part {
            keeper: self.keeper(cell, stop),
            runner: Box::new(runner),
        }
    }

    fn context(&self, part: &PartId, stop: &Stop) -> RunContext {
        RunContext {
            part: part.clone(),
            stop: stop.clone(),
            clock: Arc::clone(&self.clock),
            chance: self.chance.clone(),
        }
    }

    fn keeper(&self, cell: Arc<Cell>, stop: &Stop) -> Keeper {
        let metrics = PartMetrics::new(&self.registry, &cell.part);
        Keeper {
            cell,
            stop: stop.clone(),
            chance: self.chance.clone(),
            metrics,
        }
    }
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
