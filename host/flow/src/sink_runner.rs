//! Runs one sink: lease, deliver, settle.

mod shown;
mod waits;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{
    ChannelName, Commit, Contact, Delivery, Effects, Hop, Lease, Needs, OpenError, RunContext,
    Sink, SinkError, Store, TakeError, Want, factory::Build, inspect::Inspect, store::Lanes,
};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use self::waits::{LONGEST_AFTER, Leasing, changed, leased, not_before, until};
use crate::{
    appetite::Appetite,
    attempts::Attempts,
    back_off::BackOff,
    flights::Flights,
    group::{Seat, Seated},
    hop::SinkHop,
    metrics::SinkMetrics,
    plan::Retry,
    status::{Cell, Doing, State},
    supervise::{Failure, Runner, chain_text},
    verdict::{Case, Then, Why},
};

/// A sink, what builds it, and the channel it empties.
pub(crate) struct SinkRunner {
    pub(crate) build: Build<Box<dyn Sink>>,
    pub(crate) with: With,
    /// `None` until it is open.
    pub(crate) sink: Option<Box<dyn Sink>>,
    /// How many lanes the channel had when it was opened.
    pub(crate) lanes: u32,
}

/// What a running sink is surrounded by.
pub(crate) struct With {
    pub(crate) channel: ChannelName,
    /// Whether no other sink empties it while this one does.
    pub(crate) alone: bool,
    pub(crate) want: Want,
    pub(crate) retry: Retry,
    /// Its place in a sink group, if it is in one.
    pub(crate) seat: Option<Seat>,
    /// Whether the channel is emptied before the sink stops: what it holds would be lost.
    pub(crate) empties: Arc<AtomicBool>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) inspect: Arc<dyn Inspect>,
    pub(crate) context: RunContext,
    pub(crate) metrics: SinkMetrics,
    pub(crate) cell: Arc<Cell>,
}

impl With {
    fn hop(&self, lanes: u32) -> Arc<dyn Hop> {
        Arc::new(SinkHop {
            store: Arc::clone(&self.store),
            channel: self.channel.clone(),
            // Of several lanes each is with one sink at a time.
            alone: self.alone || lanes > 1,
            lanes,
            context: self.context.clone(),
        })
    }
}

#[async_trait]
impl Runner for SinkRunner {
    async fn open(&mut self) -> Result<(), OpenError> {
        if let Some(mut old) = self.sink.take() {
            old.close().await;
        }
        let mut sink = (self.build)();
        let with = &self.with;
        let marks = with.store.marks(&with.context.part);
        self.lanes = with.store.lanes(&with.channel);
        sink.open(&marks, &with.hop(self.lanes)).await?;
        self.sink = Some(sink);
        Ok(())
    }

    async fn run(&mut self) -> Result<(), Failure> {
        match &self.sink {
            Some(sink) => {
                let running = Running::new(&**sink, &self.with, self.lanes);
                running.run().await
            }
            None => Err(Failure {
                text: "the sink is not open".into(),
                needs: Needs::Time,
            }),
        }
    }

    async fn close(&mut self) {
        if let Some(mut sink) = self.sink.take() {
            sink.close().await;
        }
    }
}

impl With {
    fn empties(&self) -> bool {
        self.empties.load(Ordering::Relaxed)
    }
}

/// A batch that came back.
struct Landed {
    lease: Lease,
    answer: Result<Delivery, SinkError>,
    took: Duration,
}

/// A sink while it runs.
struct Running<'a> {
    sink: &'a dyn Sink,
    with: &'a With,
    lanes: u32,
    flights: Flights<'a, Landed>,
    leasing: Option<Leasing<'a>>,
    /// When to go on after a failure.
    hold: Option<Instant>,
    draining: bool,
    appetite: Appetite,
    attempts: Attempts,
    unreachable: BackOff,
    refused: BackOff,
    /// Last: what is in flight goes back to the channel before the turn goes on.
    seat: Option<Seated>,
}

/// What a running sink waits for.
enum Next {
    Landed(Box<Landed>),
    Leased(Result<Lease, TakeError>),
    HoldOver,
    Tick,
    Drain,
    /// It may be another sink's turn now, or that one has emptied the channel while draining.
    Look,
}

/// How often a draining sink looks whether another one has emptied the channel.
const LOOK: Duration = Duration::from_millis(20);

impl<'a> Running<'a> {
    fn new(sink: &'a dyn Sink, with: &'a With, lanes: u32) -> Self {
        let (retry, chance) = (&with.retry, &with.context.chance);
        Self {
            sink,
            with,
            lanes,
            flights: Flights::new(),
            leasing: None,
            hold: None,
            draining: false,
            appetite: Appetite::new(with.want),
            attempts: Attempts::new(retry.max_attempts),
            unreachable: BackOff::new(retry.least, retry.unreachable, chance.clone()),
            refused: BackOff::new(retry.least, retry.refusing, chance.clone()),
            seat: with.seat.as_ref().map(Seat::sit),
        }
    }

    /// Runs until asked to drain, and then until nothing is in hand and, where the channel would be
    /// lost, the channel is empty.
    async fn run(mut self) -> Result<(), Failure> {
        while !self.is_over() {
            match self.next().await {
                Next::Landed(landed) => self.settle(*landed).await?,
                Next::Leased(Ok(lease)) => self.deliver(lease).await,
                Next::Leased(Err(error)) => self.store_failed(&error)?,
                Next::HoldOver => self.hold_over(),
                Next::Tick => self.tick().await?,
                Next::Drain => self.drain(),
                Next::Look => {}
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Next {
        let idle = self.flights.is_empty();
        let has_room = self.hold.is_none() && self.flights.len() < self.sink.window().max(1);
        let wants_more = self.with.empties() || !self.draining;
        let may_take = self.has_turn(has_room && wants_more);
        if may_take && self.leasing.is_none() {
            let want = self.want();
            self.leasing = Some(self.with.store.lease(&self.with.channel, want));
        }
        self.show(has_room && !may_take);
        let hold = self.hold.filter(|_| idle);
        let tick = self
            .sink
            .tick_after()
            .filter(|_| idle && self.hold.is_none());
        tokio::select! {
            biased;
            landed = self.flights.next(), if !idle => Next::Landed(Box::new(landed)),
            () = self.with.context.stop.draining(), if !self.draining => Next::Drain,
            () = until(hold), if hold.is_some() => Next::HoldOver,
            leased = leased(&mut self.leasing), if may_take => Next::Leased(leased),
            () = changed(&mut self.seat) => Next::Look,
            () = time::sleep(tick.unwrap_or_default()), if tick.is_some() => Next::Tick,
            () = time::sleep(LOOK), if self.draining && idle => Next::Look,
        }
    }

    /// What to take now. Where the channel has lanes, each of them stays in order.
    fn want(&self) -> Want {
        let in_order = self.with.alone && self.sink.pipelines();
        let lanes = if self.lanes > 1 && !in_order {
            Lanes::Idle
        } else {
            Lanes::Any
        };
        Want {
            lanes,
            ..self.appetite.want()
        }
    }

    /// Whether the sink may take: in a group only when it is its turn.
    fn has_turn(&mut self, wants: bool) -> bool {
        let Some(seat) = &self.seat else {
            return wants;
        };
        let wants = wants && !seat.is_called_off();
        if !wants {
            self.leasing = None;
        }
        seat.turn(wants, self.flights.is_empty())
    }

    fn hold_over(&mut self) {
        self.hold = None;
        if let Some(seat) = &self.seat {
            seat.rested();
        }
    }

    fn is_over(&self) -> bool {
        self.draining && self.flights.is_empty() && (!self.with.empties() || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        let channels = self.with.inspect.channels();
        channels
            .iter()
            .all(|info| info.name != self.with.channel || info.events == 0)
    }

    /// A lease that is not there yet is given up, unless the channel is to be emptied.
    fn drain(&mut self) {
        self.draining = true;
        if !self.with.empties() {
            self.leasing = None;
            self.hold = None;
        }
    }

    async fn deliver(&mut self, lease: Lease) {
        self.leasing = None;
        if let Some(seat) = &self.seat {
            seat.took();
        }
        let (sink, with, lane) = (self.sink, self.with, lease.lane);
        let metrics = &with.metrics;
        let full = lease.batch.len() >= with.want.events;
        if full {
            &metrics.complete_batches
        } else {
            &metrics.underflow_batches
        }
        .add(1);
        metrics.attempted_events.add(lease.batch.len() as u64);
        let began = Instant::now();
        let flight = async move {
            let answer = sink.deliver(&lease, &with.context).await;
            Landed {
                lease,
                answer,
                took: began.elapsed(),
            }
        };
        self.flights.launch(lane, flight).await;
        self.show_in_flight();
    }

    async fn settle(&mut self, landed: Landed) -> Result<(), Failure> {
        let Landed {
            lease,
            answer,
            took,
        } = landed;
        let with = self.with;
        self.show_in_flight();
        with.metrics.seconds.observe(took);
        let now_ms = with.context.clock.wall_ms();
        let case = Case {
            part: &with.context.part,
            lease: &lease,
            now_ms,
        };
        let verdict = case.judge(answer, &mut self.attempts);
        let bytes = lease.batch.bytes() as u64;
        with.cell.doing(Doing::Settling);
        let settling = with.store.settle(lease, verdict.settlement);
        if let Err(error) = self.flights.beside(settling).await {
            return self.store_failed(&error);
        }
        self.count(verdict.tally, bytes);
        if verdict.confirm
            && let Err(error) = self.flights.beside(self.sink.settled()).await
        {
            self.failed(&error)?;
        }
        match verdict.then {
            Then::GoOn => {
                self.went_well();
                Ok(())
            }
            Then::Stop { error } => self.stop(error),
            // The sink works; some events have to wait.
            Then::Hold { why, after, error } if verdict.tally.done > 0 => {
                self.went_well();
                let wait = self.back_off(why);
                self.wait(not_before(after, wait), &error);
                Ok(())
            }
            Then::Hold { why, after, error } => {
                if self.hold.is_none() {
                    self.appetite.failed();
                }
                self.hold(why, after, &error);
                Ok(())
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Failure> {
        let with = self.with;
        let marks = match self.sink.tick().await {
            Ok(marks) => marks,
            Err(error) => return self.failed(&error),
        };
        if !marks.is_empty() {
            let commit = Commit {
                part: with.context.part.clone(),
                puts: Vec::new(),
                marks,
                effects: Effects::default(),
                deadline: None,
                received_ms: with.context.clock.wall_ms(),
            };
            if let Err(error) = with.store.commit(commit).await {
                with.metrics.store_failures.add(1);
                self.hold(Why::Unreachable, None, &error.to_string());
                return Ok(());
            }
        }
        match self.sink.settled().await {
            Ok(()) => Ok(()),
            Err(error) => self.failed(&error),
        }
    }

    /// A failure beside a delivery: the sink's own housekeeping.
    fn failed(&mut self, error: &SinkError) -> Result<(), Failure> {
        let text = chain_text(error);
        match error {
            SinkError::Fatal { .. } => return self.stop(text),
            SinkError::Unreachable { .. } => self.hold(Why::Unreachable, None, &text),
            SinkError::Refused { after, .. } => self.hold(Why::Refused, *after, &text),
            _ => self.hold(Why::Refused, None, &text),
        }
        Ok(())
    }

    fn stop(&self, text: String) -> Result<(), Failure> {
        self.with.metrics.fatal.add(1);
        Err(Failure {
            text,
            needs: Needs::Human,
        })
    }

    /// The events are back in the channel.
    fn store_failed(&mut self, error: &TakeError) -> Result<(), Failure> {
        self.leasing = None;
        let text = chain_text(error);
        match error {
            // The agent is going down; nothing can be delivered any more.
            TakeError::Closed if self.draining => Err(Failure {
                text,
                needs: Needs::Time,
            }),
            TakeError::NoChannel { .. } => Err(Failure {
                text,
                needs: Needs::Human,
            }),
            _ => {
                self.with.metrics.store_failures.add(1);
                let wait = self.unreachable.next();
                self.wait(wait, &text);
                Ok(())
            }
        }
    }

    /// The sink failed: it waits, in a group it rests while others have the turn.
    fn hold(&mut self, why: Why, after: Option<Duration>, error: &str) {
        let back_off = self.back_off(why);
        if why == Why::Unreachable {
            self.with.cell.peer.waiting(error);
        }
        let seat = self.seat.as_ref();
        let rest = seat.and_then(|seat| seat.failed(Instant::now()));
        let wait = match rest {
            Some(rest) => rest.max(after.unwrap_or_default().min(LONGEST_AFTER)),
            None => not_before(after, back_off),
        };
        self.wait(wait, error);
    }

    fn back_off(&mut self, why: Why) -> Duration {
        let (metric, back_off) = match why {
            Why::Unreachable => (&self.with.metrics.unreachable, &mut self.unreachable),
            Why::Refused => (&self.with.metrics.refused, &mut self.refused),
        };
        metric.add(1);
        match self.hold {
            // What was on its way together fails together: that is one failure.
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => back_off.next(),
        }
    }

    fn wait(&mut self, wait: Duration, error: &str) {
        self.leasing = None;
        let until = Instant::now() + wait;
        self.hold = Some(self.hold.map_or(until, |other| other.max(until)));
        let part = &self.with.context.part;
        if self.with.cell.error(error) {
            warn!(%part, error, "delivery failed, trying again");
        }
        self.with.cell.enter(State::Retrying, Doing::BackOff(until));
    }

    fn went_well(&mut self) {
        self.unreachable.reset();
        self.refused.reset();
        self.appetite.went_well();
        if let Some(seat) = &self.seat {
            seat.went_well();
        }
        let peer = &self.with.cell.peer;
        if matches!(peer.contact(), Contact::Waiting { .. }) {
            peer.connected();
        }
        if self.with.cell.success() {
            info!(part = %self.with.context.part, "delivering again");
        }
    }
}
