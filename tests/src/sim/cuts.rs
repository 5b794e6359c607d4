//! Losses of power: a store lives through random moves, is cut at any operation of the disk, and
//! must then hold what it acknowledged, or that and the one commit that was under way.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use levada_core::{
    Chance, Commit, Counter, Incarnation, MarkWrite, Outcome, Outcomes, store::ChannelPut,
};
use tempfile::TempDir;

use super::{
    disk::{EIO, ENOSPC, End, Fault, Honesty, On, SimDisk},
    life::{CHANNELS, Held, Life, Setup, channel_name},
    model::{Change, Model},
    moves::{self, Moved},
    totals::Totals,
    verify::{self, SINK, SOURCE},
};

/// What a run is to go through.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub honesty: Honesty,
    pub plant: Plant,
    /// Whether operations of the disk fail, too.
    pub faults: Faults,
    /// How many times the store's life ends by force.
    pub lives: u32,
}

impl Default for Plan {
    /// Six ends in a row, on a disk that is honest.
    fn default() -> Self {
        Self {
            honesty: Honesty::Honest,
            plant: Plant::Nothing,
            faults: Faults::None,
            lives: 6,
        }
    }
}

/// Errors of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    None,
    /// One in every life: an error of the device or a lack of space, at any operation, once or
    /// until the process is started again.
    Planned,
}

/// A bug that is planted to see whether it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// Puts are acknowledged before their commit.
    EarlyAck,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An acknowledged event is not there.
    Lost(String),
    /// An event is there that was never acknowledged, or was settled for good.
    Risen(String),
    /// Only a part of a commit is there.
    Half(String),
    /// Bytes that nobody put there.
    Wrong(String),
    /// A position, an id or the order has changed.
    Moved(String),
    /// An accounting identity does not hold.
    Unbalanced(String),
    /// The store does not open any more.
    Unopenable(String),
    /// The store refused what it must take.
    Refused(String),
    /// Somebody was told what is not so.
    Misled(String),
    /// The store panicked.
    Panicked(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Lost(text) => ("lost", text),
            Self::Risen(text) => ("came back", text),
            Self::Half(text) => ("half a commit", text),
            Self::Wrong(text) => ("wrong bytes", text),
            Self::Moved(text) => ("moved", text),
            Self::Unbalanced(text) => ("an identity does not hold", text),
            Self::Unopenable(text) => ("the store does not open", text),
            Self::Refused(text) => ("refused", text),
            Self::Misled(text) => ("a wrong answer", text),
            Self::Panicked(text) => ("a panic", text),
        };
        write!(f, "{what}: {text}")
    }
}

/// What a seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub totals: Totals,
    pub finding: Option<Finding>,
    /// Equal for equal runs.
    pub trace: u64,
}

/// Runs one seed to its end, or to the first finding.
#[must_use]
pub fn run(seed: u64, plan: &Plan) -> Report {
    let mut world = World::new(seed, *plan);
    let finding = match catch_unwind(AssertUnwindSafe(|| world.live())) {
        Ok(lived) => lived.err(),
        Err(panic) => Some(Finding::Panicked(panic_text(&*panic))),
    };
    let totals = Totals {
        seeds: 1,
        operations: world.disk.operations(),
        findings: u64::from(finding.is_some()),
        ..world.totals
    };
    Report {
        seed,
        totals,
        finding,
        trace: world.disk.trace(),
    }
}

/// Everything that one seed owns.
pub(super) struct World {
    plan: Plan,
    pub(super) chance: Chance,
    /// What the store draws its ids from.
    ids: Chance,
    pub(super) disk: SimDisk,
    dir: TempDir,
    setup: Setup,
    pub(super) model: Model,
    pub(super) totals: Totals,
    /// Events of puts since the last step that will not go through: their room is not free yet.
    pub(super) doomed: u64,
    incarnation: Option<Incarnation>,
    /// The disk has given an error in this life.
    failed: bool,
}

/// How one life ended.
enum Ended {
    InRecovery,
    AtWork,
}

/// Moves of a life that nothing cuts short.
const MOVES: u32 = 80;

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let chance = Chance::seeded(seed);
        let disk = SimDisk::new(Chance::seeded(chance.bits()), plan.honesty);
        Self {
            plan,
            ids: Chance::seeded(chance.bits()),
            setup: Setup::draw(&chance),
            chance,
            disk,
            dir: tempfile::tempdir().expect("the machine has a folder for temporary files"),
            model: Model::new(CHANNELS.len()),
            totals: Totals::default(),
            doomed: 0,
            incarnation: None,
            failed: false,
        }
    }

    fn live(&mut self) -> Result<(), Finding> {
        // A store is made under another name and moved to its own when it is whole and synced: so
        // nothing is cut here.
        let life = self.open().map_err(Finding::Unopenable)?;
        self.close(life)?;
        levada_store::testing::Disk::sync(&self.disk)
            .map_err(|error| Finding::Refused(error.to_string()))?;
        for _ in 0..self.plan.lives {
            // A recovery takes some ten operations.
            let operations = match self.chance.below(3) {
                0 => self.chance.below(10),
                _ => 10 + self.chance.below(400),
            };
            self.disk.end_after(operations);
            if self.plan.faults == Faults::Planned {
                self.plan_fault();
            }
            let ended = self.one_life()?;
            // A store that gave up over an error of the disk waits for people.
            let given_up = !self.disk.has_ended();
            let end = if given_up || self.chance.below(8) == 0 {
                End::Kill
            } else {
                End::PowerCut
            };
            match (end, ended) {
                (End::Kill, _) => self.totals.kills += 1,
                (End::PowerCut, Ended::AtWork) => self.totals.cuts += 1,
                (End::PowerCut, Ended::InRecovery) => {
                    self.totals.cuts += 1;
                    self.totals.cuts_in_recovery += 1;
                }
            }
            self.disk.restart(end);
            self.disk.repair();
        }
        let life = self.open().map_err(Finding::Unopenable)?;
        self.compare(&life)?;
        self.close(life)?;
        let life = self.open().map_err(Finding::Unopenable)?;
        self.compare(&life)
    }

    /// From an open to an end by force.
    fn one_life(&mut self) -> Result<Ended, Finding> {
        self.failed = false;
        let life = match self.open() {
            Ok(life) if !self.disk.has_ended() => life,
            Err(_) if self.disk.has_ended() => return Ok(Ended::InRecovery),
            Err(_) if self.has_failed() => return Ok(Ended::InRecovery),
            Err(reason) => return Err(Finding::Unopenable(reason)),
            Ok(_) => return Ok(Ended::InRecovery),
        };
        match self.work(life) {
            // redb writes what it has in memory whenever it wants: so a read can be cut, too.
            Err(Finding::Refused(_)) if self.disk.has_ended() => Ok(Ended::AtWork),
            Err(Finding::Refused(_)) if self.has_failed() => Ok(Ended::AtWork),
            worked => worked.map(|()| Ended::AtWork),
        }
    }

    /// Random moves until the disk ends; the store is closed and opened again in between.
    fn work(&mut self, mut life: Life) -> Result<(), Finding> {
        self.compare(&life)?;
        for _ in 0..MOVES {
            if moves::one(self, &mut life)? == Moved::Broken {
                return Ok(());
            }
            if self.chance.below(60) == 0 {
                self.close(life)?;
                if self.failed || self.disk.has_ended() {
                    return Ok(());
                }
                life = self.open().map_err(Finding::Refused)?;
                self.compare(&life)?;
            }
        }
        self.disk.end_now();
        Ok(())
    }

    fn plan_fault(&mut self) {
        let on = [On::Write, On::SetLength, On::Sync, On::Read, On::Change];
        let at = usize::try_from(self.chance.below(5)).unwrap_or(0);
        // There are a few syncs and lengths for many writes.
        let most = [200, 6, 30, 60, 200][at];
        self.disk.plan(Fault {
            after: self.chance.below(most),
            on: on[at],
            errno: if self.chance.below(2) == 0 {
                EIO
            } else {
                ENOSPC
            },
            sticky: self.chance.below(3) == 0,
        });
    }

    fn open(&mut self) -> Result<Life, String> {
        self.doomed = 0;
        let life = Life::open(self.dir.path(), &self.disk, &self.setup, &self.ids)
            .map_err(|error| describe(&error))?;
        let incarnation = life.store.incarnation();
        let before = *self.incarnation.get_or_insert(incarnation);
        if before != incarnation && self.plan.honesty == Honesty::Honest {
            return Err(format!("it is another store: {before}, now {incarnation}"));
        }
        Ok(life)
    }

    /// Whether the disk has given an error in this life: what was refused since may be refused.
    pub(super) fn has_failed(&mut self) -> bool {
        let failed = self.disk.take_failed();
        self.failed |= failed;
        self.totals.faults += u64::from(failed);
        self.failed
    }

    /// Compares everything with the model.
    fn compare(&mut self, life: &Life) -> Result<(), Finding> {
        let found = verify::read(life, &mut self.model)?;
        self.totals.compared += 1;
        if self.model.settle_on(found)? {
            self.totals.in_flight_kept += 1;
        }
        Ok(())
    }

    /// Closes in order, unless the disk ends.
    fn close(&mut self, life: Life) -> Result<(), Finding> {
        let (unclean, waiting) = life.close();
        let ended = self.has_failed() || self.disk.has_ended();
        moves::hear(self, waiting, ended)?;
        match unclean {
            _ if ended => Ok(()),
            None => {
                self.totals.closed_in_order += 1;
                self.commit();
                Ok(())
            }
            Some(reason) => Err(Finding::Refused(format!("to close: {reason}"))),
        }
    }

    /// Everything that waited is on disk, the store says.
    pub(super) fn commit(&mut self) {
        let (put, settled) = self.model.commit();
        self.totals.put += put;
        self.totals.settled += settled;
    }

    /// A put waits for the writer; gives its number.
    pub(super) fn stage(&mut self, commit: &Commit) -> u64 {
        let letters = commit.effects.dead_letters.iter();
        let letters: Vec<u64> = letters.map(|letter| letter.at_ms).collect();
        self.totals.dead_letters += letters.len() as u64;
        let added: Vec<_> = commit.puts.iter().map(|put| self.numbers(put)).collect();
        let per_channel = added.iter().map(|(channel, numbers)| {
            let part = format!("channels.{}", CHANNELS[*channel]);
            (part, Counter::Put.as_str(), numbers.len() as u64)
        });
        let own = commit.effects.counts.iter();
        let own = own.map(|count| (SOURCE.to_owned(), count.counter.as_str(), count.amount));
        let change = Change {
            part: SOURCE,
            counts: per_channel.chain(own).collect(),
            added,
            marks: commit.marks.clone(),
            letters,
            is_put: true,
            ..Change::default()
        };
        match self.plan.plant {
            Plant::Nothing => self.model.stage(change),
            Plant::EarlyAck => self.model.stage_too_early(change),
        }
    }

    /// The channel of a put, and which events it brings.
    fn numbers(&self, put: &ChannelPut) -> (usize, Vec<u64>) {
        let mut names = CHANNELS.iter();
        let channel = names.position(|name| *name == put.channel.as_str());
        let events = put.batch.iter();
        let numbers = events.filter_map(|event| self.model.events.number(event));
        (
            channel.expect("a channel of the simulation"),
            numbers.collect(),
        )
    }

    /// A lease was ended; gives the number of what waits.
    pub(super) fn settle(&mut self, held: &Held, outcomes: &Outcomes, marks: &[MarkWrite]) -> u64 {
        let part = format!("channels.{}", channel_name(held.channel));
        let mut change = Change {
            part: SINK,
            marks: marks.to_vec(),
            ..Change::default()
        };
        let mut gone = Vec::new();
        for (at, number) in held.numbers.iter().enumerate() {
            let counter = match outcomes.get(at) {
                Outcome::Retry => continue,
                Outcome::Done => Counter::Delivered,
                Outcome::Discard => Counter::Discarded,
                Outcome::Dead => {
                    change.letters.push(*number);
                    Counter::DeadLettered
                }
            };
            change.counts.push((part.clone(), counter.as_str(), 1));
            gone.push(*number);
        }
        self.totals.dead_letters += change.letters.len() as u64;
        change.removed.push((held.channel, gone));
        self.model.stage(change)
    }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
