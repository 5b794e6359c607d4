//! The agents of one seed, what is due for them, and how it ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use levada_core::Chance;
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tracing::info;

use super::{
    Finding, Kind, Plan, Report,
    agent::{Agent, Around, NoStart, Role, SimClock, Tuning},
    book::{Balance, Book},
    moves,
    net::{Host, Reachable, SimNet},
};
use crate::sim::{disk::End, totals::HopTotals};

/// The last tier, and the relays.
pub(super) const LAST: Host = 1;
pub(super) const RELAYS: [Host; 2] = [2, 3];

/// The first of the edges.
const EDGES: Host = 10;

/// Everything that one seed owns.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) agents: Vec<Agent>,
    pub(super) around: Around,
    pub(super) totals: HopTotals,
    /// Errors of disks are among what happens.
    pub(super) faults: bool,
    /// What may be stored more than once because of stores that were put back.
    pub(super) repeatable: u64,
    /// What happens at a time, in order.
    agenda: BTreeMap<(Instant, u64), Due>,
    planned: u64,
    ended: mpsc::UnboundedReceiver<Host>,
    began: Instant,
    _dir: TempDir,
}

/// What was put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Boot(Host),
    Carry(Host, Host),
    Hurry(Host, Host),
}

/// How long everything may take to arrive once it has healed.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// How long nothing must be on its way for that to be the end.
const QUIET: Duration = Duration::from_secs(15);

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let chance = Chance::seeded(seed);
        let kind = plan.kind.unwrap_or_else(|| Kind::draw(&chance));
        let tuning = Tuning::draw(&chance);
        let dir = tempfile::tempdir().expect("the machine has a folder for temporary files");
        let (told, ended) = mpsc::unbounded_channel();
        let around = Around {
            plan,
            kind,
            net: SimNet::new(Chance::seeded(chance.bits()), plan.plant),
            book: Book::default(),
            clock: Arc::new(SimClock::default()),
            tuning,
            ended: told,
        };
        let relays = if kind == Kind::Receivers { 2 } else { 1 };
        let edges = 2 + Host::try_from(chance.below(4)).unwrap_or_default();
        let roles = std::iter::once((LAST, Role::Last))
            .chain(
                RELAYS[..relays]
                    .iter()
                    .map(|relay| (*relay, Role::Relay { to: LAST })),
            )
            .chain((EDGES..EDGES + edges).map(|edge| {
                let mut to = RELAYS[..relays].to_vec();
                to.rotate_left(usize::from(edge) % relays);
                (edge, Role::Edge { to })
            }));
        let agents = roles.map(|(host, role)| {
            let room = match role {
                Role::Relay { .. } => tuning.room,
                Role::Edge { .. } | Role::Last => 1_000_000,
            };
            Agent::new(host, role, room, dir.path().join(host.to_string()), &chance)
        });
        Self {
            agents: agents.collect(),
            faults: kind == Kind::Exact && chance.below(3) == 0,
            chance,
            around,
            totals: HopTotals::default(),
            repeatable: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            ended,
            began: Instant::now(),
            _dir: dir,
        }
    }

    pub(super) async fn live(&mut self) -> Result<(), Finding> {
        info!(kind = ?self.around.kind, agents = self.agents.len(), faults = self.faults,
            tuning = ?self.around.tuning, "a seed begins");
        self.begin().await?;
        for _ in 0..self.around.plan.moves {
            self.pass(moves::pause(&self.chance)).await?;
            moves::one(self).await?;
        }
        self.end().await
    }

    /// Starts everybody.
    pub(super) async fn begin(&mut self) -> Result<(), Finding> {
        for at in 0..self.agents.len() {
            self.boot(at).await?;
        }
        Ok(())
    }

    /// Heals everything, and looks at what has come.
    pub(super) async fn end(&mut self) -> Result<(), Finding> {
        self.heal().await?;
        self.arrive().await?;
        self.settle_up()
    }

    /// Lets time pass, with all that is due meanwhile.
    pub(super) async fn pass(&mut self, time: Duration) -> Result<(), Finding> {
        let until = Instant::now() + time;
        loop {
            let due = self.agenda.first_key_value().map(|(at, _)| *at);
            let next = due.map_or(until, |(at, _)| at.min(until));
            let ended = tokio::select! {
                biased;
                ended = self.ended.recv() => ended,
                () = time::sleep_until(next) => None,
            };
            if let Some(host) = ended {
                self.disk_ended(host).await?;
            } else if let Some(key) = due.filter(|(at, _)| *at <= Instant::now()) {
                let due = self.agenda.remove(&key);
                self.meet(due).await?;
            } else if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    async fn meet(&mut self, due: Option<Due>) -> Result<(), Finding> {
        match due {
            Some(Due::Boot(host)) => {
                if let Some(at) = self.at(host).filter(|at| !self.agents[*at].is_up()) {
                    self.boot(at).await?;
                }
            }
            Some(Due::Carry(from, to)) => {
                info!(from, to, "the link carries again");
                self.around.net.set_link(from, to, true);
            }
            Some(Due::Hurry(a, b)) => self.around.net.set_slow(a, b, None),
            None => {}
        }
        Ok(())
    }

    pub(super) fn plan(&mut self, after: Duration, due: Due) {
        self.planned += 1;
        self.agenda
            .insert((Instant::now() + after, self.planned), due);
    }

    pub(super) fn at(&self, host: Host) -> Option<usize> {
        self.agents.iter().position(|agent| agent.host == host)
    }

    /// Starts an agent; a start that the disk ended is tried again in a while.
    async fn boot(&mut self, at: usize) -> Result<(), Finding> {
        let agent = &mut self.agents[at];
        match agent.start(&self.around).await {
            Ok(()) => {
                info!(host = agent.host, queued = agent.queued(), "started");
                Ok(())
            }
            Err(NoStart::Found(finding)) => Err(finding),
            Err(NoStart::Ended) => {
                self.totals.cuts_in_recovery += 1;
                self.totals.cuts += 1;
                info!(host = agent.host, "the power went in the recovery");
                agent.disk.restart(End::PowerCut);
                agent.disk.repair();
                let host = agent.host;
                self.plan(Duration::from_millis(500), Due::Boot(host));
                Ok(())
            }
        }
    }

    /// A disk has ended in the middle of an operation: the machine is without power.
    async fn disk_ended(&mut self, host: Host) -> Result<(), Finding> {
        match self.at(host).filter(|at| self.agents[*at].is_up()) {
            Some(at) => self.crash(at, Reachable::Off, End::PowerCut).await,
            None => Ok(()),
        }
    }

    /// Ends an agent, and plans when it is there again.
    pub(super) async fn crash(
        &mut self,
        at: usize,
        left: Reachable,
        end: End,
    ) -> Result<(), Finding> {
        let agent = &mut self.agents[at];
        info!(host = agent.host, ?left, ?end, "crash");
        agent.crash(&self.around.net, left, end).await;
        match end {
            End::PowerCut => self.totals.cuts += 1,
            End::Kill => self.totals.kills += 1,
        }
        if self.around.kind == Kind::Restored {
            self.copy_or_put_back(at)?;
        }
        if self.chance.below(4) == 0 {
            self.agents[at].disk.end_after(self.chance.below(12));
        }
        let host = self.agents[at].host;
        let down = moves::downtime(&self.chance);
        self.plan(down, Due::Boot(host));
        Ok(())
    }

    fn copy_or_put_back(&mut self, at: usize) -> Result<(), Finding> {
        if self.chance.below(2) == 0 {
            return Ok(());
        }
        let agent = &mut self.agents[at];
        let Some(copy) = agent.copy.take() else {
            agent.copy = Some(agent.disk.image());
            return Ok(());
        };
        let now = agent.queued_offline()?;
        agent.disk.put_back(copy);
        let then = agent.queued_offline()?;
        let gone: Vec<u64> = now.difference(&then).copied().collect();
        let host = agent.host;
        info!(
            host,
            held = now.len(),
            copy_held = then.len(),
            gone = gone.len(),
            "put back"
        );
        self.around.book.lost_with_a_store(gone);
        self.totals.restores += 1;
        self.repeatable += then.len() as u64 + self.in_flight();
        Ok(())
    }

    /// What may be on its way at one time, all senders together: sent and not answered, or answered
    /// and not settled on disk.
    fn in_flight(&self) -> u64 {
        let Tuning { batch, window, .. } = self.around.tuning;
        let senders = self.agents.len() as u64 - 1;
        senders * (window + 2) * batch as u64
    }

    /// Everything works from now on.
    async fn heal(&mut self) -> Result<(), Finding> {
        info!("everything heals");
        self.around.net.heal();
        self.around.book.close();
        self.around.clock.set(0);
        self.agenda.clear();
        for at in 0..self.agents.len() {
            let disk = &self.agents[at].disk;
            disk.repair();
            disk.go_on();
            if !self.agents[at].is_up() {
                self.boot(at).await?;
            }
        }
        Ok(())
    }

    /// Waits until nothing is on its way.
    async fn arrive(&mut self) -> Result<(), Finding> {
        let healed = Instant::now();
        let mut quiet = Instant::now();
        while quiet.elapsed() < QUIET {
            self.pass(Duration::from_secs(1)).await?;
            let queued: Vec<_> = self.agents.iter().map(|a| (a.host, a.queued())).collect();
            if queued.iter().any(|(_, queued)| *queued != Some(0)) {
                quiet = Instant::now();
            }
            if healed.elapsed() > PATIENCE {
                return Err(Finding::Stuck(format!("host and queue: {queued:?}")));
            }
        }
        Ok(())
    }

    /// Compares what was promised with what has come.
    fn settle_up(&mut self) -> Result<(), Finding> {
        for agent in &self.agents {
            agent.check_books()?;
            self.totals.regressions += agent.metric("levada_hop_regressions_total");
        }
        let book = &self.around.book;
        let balance = book.balance()?;
        let Balance {
            acked,
            delivered,
            duplicates,
            gone,
        } = balance;
        info!(acked, delivered, duplicates, gone, "the end");
        self.totals.acked += acked;
        self.totals.delivered += delivered;
        self.totals.gone_with_a_store += gone;
        let allowed = self.allowed();
        if duplicates > allowed {
            let twice = book.twice();
            let text = format!("{duplicates}, allowed are {allowed}: {twice:?}");
            return Err(Finding::Twice(text));
        }
        self.totals.duplicates += duplicates;
        self.totals.duplicates_allowed += allowed;
        match self.around.kind {
            Kind::Exact => book.check_order(),
            Kind::Plaintext | Kind::Restored | Kind::Receivers => Ok(()),
        }
    }

    /// How many events may be stored a second time.
    fn allowed(&self) -> u64 {
        let connections = self.around.net.lock().counts.connections;
        let Tuning { batch, window, .. } = self.around.tuning;
        let of_one = (window + 2) * batch as u64;
        let crashes = self.totals.cuts + self.totals.kills;
        match self.around.kind {
            Kind::Exact => 0,
            Kind::Plaintext | Kind::Receivers => (connections + crashes) * of_one,
            Kind::Restored => self.repeatable,
        }
    }

    pub(super) fn report(&self, seed: u64, finding: Option<Finding>) -> Report {
        let counts = self.around.net.lock().counts;
        let exact = u64::from(self.around.kind == Kind::Exact);
        let of = |kind| u64::from(self.around.kind == kind);
        let totals = HopTotals {
            seeds: 1,
            exact,
            plaintext: of(Kind::Plaintext),
            restored: of(Kind::Restored),
            receivers: of(Kind::Receivers),
            virtual_seconds: self.began.elapsed().as_secs(),
            connections: counts.connections,
            resets: counts.resets,
            hangs: counts.hangs,
            findings: u64::from(finding.is_some()),
            ..self.totals
        };
        let mut trace = self.around.net.trace();
        for agent in &self.agents {
            trace = trace.rotate_left(7) ^ agent.disk.trace();
        }
        Report {
            seed,
            totals,
            finding,
            trace,
        }
    }
}
