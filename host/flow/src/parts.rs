//! Building parts with everything they need to run.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use levada_core::{OpenError, PartId, RunContext, Stop, Stopper, inspect::ChannelInfo};

use crate::{
    flow::{PartError, Surroundings},
    group::{Group, Seat},
    in_flight::{InFlight, default_total},
    ingest::{Behind, SourceIngest},
    metrics::{PartMetrics, SinkMetrics},
    plan::{GroupPlan, Plan, SinkPlan, SourcePlan},
    sink_runner::{SinkRunner, With},
    source_runner::SourceRunner,
    status::Cell,
    supervise::{Keeper, Runner, caught, chain_text},
};

/// A part with its supervisor.
pub(crate) struct Part {
    pub(crate) keeper: Keeper,
    pub(crate) runner: Box<dyn Runner>,
    pub(crate) stopper: Stopper,
    /// What stands behind it, if it is a source.
    pub(crate) ingest: Option<Arc<SourceIngest>>,
    /// Whether it empties its channel before it stops, if it is a sink.
    pub(crate) empties: Arc<AtomicBool>,
}

impl Part {
    pub(crate) fn cell(&self) -> Arc<Cell> {
        Arc::clone(&self.keeper.cell)
    }

    pub(crate) fn id(&self) -> &PartId {
        &self.keeper.cell.part
    }

    /// Builds the part and opens it.
    pub(crate) async fn open(&mut self) -> Result<(), PartError> {
        let opened = caught(self.runner.open()).await;
        let error = match opened {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(panic) => OpenError::new(format!("panicked: {panic}")),
        };
        self.keeper.cell.error(&chain_text(&error));
        Err(PartError {
            part: self.id().clone(),
            error,
        })
    }
}

impl Surroundings {
    /// Builds parts of a plan, in the order of `wanted`. Sinks of one group that are to take turns
    /// are built in one call.
    pub(crate) fn build(
        &self,
        plan: &Plan,
        wanted: &[&PartId],
        close_ingest: &Stopper,
    ) -> Vec<Part> {
        let is_wanted = |group: &&GroupPlan| group.members.iter().any(|m| wanted.contains(&m));
        let groups = plan.groups.iter().filter(is_wanted);
        let seats = groups.flat_map(|group| {
            let seats = Group::seats(group, &self.chance, &self.registry);
            group.members.iter().zip(seats)
        });
        let mut seats: HashMap<&PartId, Seat> = seats.collect();
        let total = plan.in_flight_bytes.unwrap_or_else(default_total);
        let share = || InFlight::share_of(total, plan.sources.len());
        let mut parts = Vec::new();
        for id in wanted {
            if let Some(source) = plan.sources.iter().find(|source| source.part == **id) {
                parts.push(self.source(source, close_ingest.listen(), share()));
            } else if let Some(sink) = plan.sinks.iter().find(|sink| sink.part == **id) {
                parts.push(self.sink(sink, plan.is_alone(sink), seats.remove(id)));
            }
        }
        parts
    }

    fn source(&self, plan: &SourcePlan, closed: Stop, in_flight: InFlight) -> Part {
        let (part, channels) = (plan.part.clone(), plan.channels.clone());
        let cell = Cell::new(part, channels, Arc::clone(&self.clock));
        let behind = Behind {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            in_flight,
            closed,
            registry: &self.registry,
            cell: Arc::clone(&cell),
        };
        let ingest = Arc::new(SourceIngest::new(plan, behind));
        let (stopper, stop) = Stopper::new();
        let runner = SourceRunner {
            build: Arc::clone(&plan.build),
            ingest: Arc::clone(&ingest),
            context: self.context(&cell, &stop),
            source: None,
        };
        Part {
            keeper: self.keeper(cell, stop),
            runner: Box::new(runner),
            stopper,
            ingest: Some(ingest),
            empties: Arc::default(),
        }
    }

    fn sink(&self, plan: &SinkPlan, alone: bool, seat: Option<Seat>) -> Part {
        let channels = vec![plan.channel.clone()];
        let cell = Cell::new(plan.part.clone(), channels, Arc::clone(&self.clock));
        let memory = |info: &ChannelInfo| info.name == plan.channel && info.kind == "memory";
        let empties = self.inspect.channels().iter().any(memory);
        let empties = Arc::new(AtomicBool::new(empties));
        let (stopper, stop) = Stopper::new();
        let with = With {
            channel: plan.channel.clone(),
            alone,
            want: plan.want,
            retry: plan.retry,
            seat,
            empties: Arc::clone(&empties),
            store: Arc::clone(&self.store),
            inspect: Arc::clone(&self.inspect),
            context: self.context(&cell, &stop),
            metrics: SinkMetrics::new(&self.registry, &plan.part),
            cell: Arc::clone(&cell),
        };
        let runner = SinkRunner {
            build: Arc::clone(&plan.build),
            with,
            sink: None,
            lanes: 1,
        };
        Part {
            keeper: self.keeper(cell, stop),
            runner: Box::new(runner),
            stopper,
            ingest: None,
            empties,
        }
    }

    fn context(&self, cell: &Cell, stop: &Stop) -> RunContext {
        RunContext {
            part: cell.part.clone(),
            stop: stop.clone(),
            clock: Arc::clone(&self.clock),
            chance: self.chance.clone(),
            peer: cell.peer.clone(),
        }
    }

    fn keeper(&self, cell: Arc<Cell>, stop: Stop) -> Keeper {
        let metrics = PartMetrics::new(&self.registry, &cell.part);
        Keeper {
            cell,
            stop,
            chance: self.chance.clone(),
            metrics,
        }
    }
}
