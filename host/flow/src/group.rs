//! Sink groups: several sinks that empty one channel and take turns.
//!
//! A group holds one *turn*. A sink asks for it before it takes from the channel, and gives it back
//! itself: only what it has in hand no longer can nobody else overtake. Failover keeps the turn until
//! the sink fails or a better one is back, and passes it on when nothing is in flight any more, so
//! the order of the channel stays and no event is with two sinks at once. Load balancing passes it on
//! with every batch, and several sinks deliver side by side.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use levada_core::{Chance, PartId};
use levada_telemetry::{Gauge, Registry};
use tokio::{sync::watch, time::Instant};

use crate::plan::{GroupPlan, Policy};

/// A sink that failed rests so long after its first failure; doubled at each further one (Flume's
/// penalty: one second, doubled once at the first failure).
const FIRST_PENALTY: Duration = Duration::from_secs(2);

/// Failures of load balancing are forgotten so long after the rest they led to (Flume's rule).
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The members of one group and whose turn it is.
#[derive(Debug)]
pub(crate) struct Group {
    policy: Policy,
    /// The longest rest of a member that failed; `None` leaves it to the sink's own back-off.
    longest: Option<Duration>,
    chance: Chance,
    table: Mutex<Table>,
    /// Told whenever the turn or a member's readiness changes.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Table {
    members: Vec<Member>,
    /// Who may take from the channel.
    holder: Option<usize>,
    /// Who took last.
    last: Option<usize>,
}

#[derive(Debug)]
struct Member {
    is_running: bool,
    /// Whether it would take a batch now.
    wants: bool,
    /// Whether it rests after a failure.
    rests: bool,
    failures: u32,
    /// When its last rest ends or ended.
    rested: Option<Instant>,
    /// 1 for the member that has the turn.
    shown: Gauge,
}

/// One sink's place in its group.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    group: Arc<Group>,
    member: usize,
}

/// A seat while its sink runs. Dropped, it gives the turn back: nothing may be in hand then.
#[derive(Debug)]
pub(crate) struct Seated {
    seat: Seat,
    changes: watch::Receiver<()>,
}

impl Group {
    /// The seats of a group, in the order of its members.
    pub(crate) fn seats(plan: &GroupPlan, chance: &Chance, registry: &Registry) -> Vec<Seat> {
        let member = |part: &PartId| {
            let (group, part) = (plan.part.to_string(), part.to_string());
            let labels = [("group", group.as_str()), ("part", part.as_str())];
            let help = "1 for the sink of a group whose turn it is, 0 for the others";
            Member {
                is_running: false,
                wants: false,
                rests: false,
                failures: 0,
                rested: None,
                shown: registry.gauge("levada_group_turn", help, &labels),
            }
        };
        let members: Vec<_> = plan.members.iter().map(member).collect();
        let count = members.len();
        let table = Table {
            members,
            holder: None,
            last: None,
        };
        let group = Arc::new(Self {
            policy: plan.policy.clone(),
            longest: plan.longest_rest,
            chance: chance.clone(),
            table: Mutex::new(table),
            changes: watch::Sender::new(()),
        });
        let seat = |member| Seat {
            group: Arc::clone(&group),
            member,
        };
        (0..count).map(seat).collect()
    }

    /// Looks for somebody to have the turn, if nobody has it.
    fn pass_on(&self, table: &mut Table) {
        if table.holder.is_none() {
            table.holder = self.next(table);
        }
        let holder = table.holder;
        for (n, member) in table.members.iter().enumerate() {
            member.shown.set(i64::from(holder == Some(n)));
        }
        self.changes.send_replace(());
    }

    fn next(&self, table: &Table) -> Option<usize> {
        if let Policy::Failover { .. } = &self.policy {
            return self.best(table).filter(|n| table.members[*n].wants);
        }
        let count = table.members.len();
        let after = table.last.map_or(0, |last| last + 1);
        let wanting = (after..after + count)
            .map(|n| n % count)
            .filter(|n| table.members[*n].can_take());
        match &self.policy {
            Policy::Random => {
                let wanting: Vec<_> = wanting.collect();
                let most = u64::try_from(wanting.len()).ok().filter(|most| *most > 0)?;
                wanting
                    .get(usize::try_from(self.chance.below(most)).ok()?)
                    .copied()
            }
            _ => wanting.into_iter().next(),
        }
    }

    /// The member that failover prefers, whether it wants anything now or not.
    fn best(&self, table: &Table) -> Option<usize> {
        let Policy::Failover { priorities } = &self.policy else {
            return None;
        };
        let ready = (0..table.members.len()).filter(|n| table.members[*n].is_ready());
        ready.max_by_key(|n| priorities.get(*n))
    }

    /// Whether the member should give its turn back as soon as it can.
    fn is_called_off(&self, table: &Table, member: usize) -> bool {
        let is_failover = matches!(self.policy, Policy::Failover { .. });
        is_failover && self.best(table).is_some_and(|best| best != member)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn is_ready(&self) -> bool {
        self.is_running && !self.rests
    }

    fn can_take(&self) -> bool {
        self.is_ready() && self.wants
    }
}

impl Seat {
    /// The sink runs.
    pub(crate) fn sit(&self) -> Seated {
        let changes = self.group.changes.subscribe();
        let mut table = self.group.lock();
        let member = &mut table.members[self.member];
        member.is_running = true;
        member.rests = false;
        self.group.pass_on(&mut table);
        Seated {
            seat: self.clone(),
            changes,
        }
    }

    /// The sink runs no longer; whatever it had in hand is back in the channel.
    fn leave(&self) {
        let mut table = self.group.lock();
        let member = &mut table.members[self.member];
        member.is_running = false;
        member.wants = false;
        if table.holder == Some(self.member) {
            table.holder = None;
        }
        self.group.pass_on(&mut table);
    }
}

impl Seated {
    /// Whether the turn is wanted by a better member: then nothing more should be taken.
    pub(crate) fn is_called_off(&self) -> bool {
        let table = self.lock();
        table.holder == Some(self.seat.member)
            && self.seat.group.is_called_off(&table, self.seat.member)
    }

    /// Says whether the sink would take a batch now, and learns whether it may. With `wants` unset
    /// nothing is being taken; then the turn goes on, with failover only if the sink is `idle`: it
    /// has nothing in flight.
    pub(crate) fn turn(&self, wants: bool, idle: bool) -> bool {
        let mut table = self.lock();
        let changed = std::mem::replace(&mut table.members[self.seat.member].wants, wants) != wants;
        let holds = table.holder == Some(self.seat.member);
        let releases = holds && !wants && (idle || !self.keeps_in_flight());
        if releases {
            table.holder = None;
        }
        if releases || (changed && table.holder.is_none()) {
            self.seat.group.pass_on(&mut table);
        }
        wants && table.holder == Some(self.seat.member)
    }

    /// The sink took a batch.
    pub(crate) fn took(&self) {
        let mut table = self.lock();
        table.last = Some(self.seat.member);
        if !self.keeps_in_flight() {
            table.members[self.seat.member].wants = false;
            table.holder = None;
            self.seat.group.pass_on(&mut table);
        }
    }

    /// The sink failed; how long it rests. `None` leaves it to the sink's back-off.
    pub(crate) fn failed(&self, now: Instant) -> Option<Duration> {
        let mut table = self.lock();
        let longest = self.seat.group.longest;
        let member = &mut table.members[self.seat.member];
        if member.rests {
            // Another batch of the same failure.
            return longest.and(Some(member.rested?.saturating_duration_since(now)));
        }
        member.rests = true;
        let rest = longest.map(|longest| {
            let is_old = member.rested.is_some_and(|end| end + FORGOTTEN < now);
            member.failures = if is_old { 1 } else { member.failures + 1 };
            let factor = 1_u32.checked_shl(member.failures - 1).unwrap_or(u32::MAX);
            let rest = FIRST_PENALTY.saturating_mul(factor).min(longest);
            member.rested = Some(now + rest);
            rest
        });
        self.seat.group.pass_on(&mut table);
        rest
    }

    /// The sink has rested.
    pub(crate) fn rested(&self) {
        let mut table = self.lock();
        table.members[self.seat.member].rests = false;
        self.seat.group.pass_on(&mut table);
    }

    /// The sink delivered something.
    pub(crate) fn went_well(&self) {
        if let Policy::Failover { .. } = self.seat.group.policy {
            self.lock().members[self.seat.member].failures = 0;
        }
    }

    /// Waits until something in the group has changed since the last call. Safe to cancel.
    pub(crate) async fn changed(&mut self) {
        // The group lives as long as this seat.
        let _alive = self.changes.changed().await;
    }

    fn keeps_in_flight(&self) -> bool {
        matches!(self.seat.group.policy, Policy::Failover { .. })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.seat.group.lock()
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seat.leave();
    }
}
