//! What the writer does when the file gives an error: it opens the file again, checked, and goes
//! on; or it gives up for a while (delivery contract D5.3 to D5.5).

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use levada_core::{Incarnation, PutError};
use tracing::{error, info, warn};

use super::{Step, Work, Writer, refuse_all};
use crate::{
    folder,
    lanes::LaneAt,
    open::beyond,
    pages::Check,
    params::{OnCorruption, OpenError},
    rescue::Rescued,
    room::{DEAD, Need},
    scan::{self, Found},
    shared::Status,
    trouble::{Trouble, TroubleKind, guarded},
};

/// Two failures within this time are one that does not go away.
const WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked whether a full disk has space again.
const ASK: Duration = Duration::from_secs(1);

/// What the writer remembers of failures.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    last: Option<Instant>,
    /// When a failed store is opened again.
    try_at: Option<Instant>,
    /// What failed, until it is known whether it is on disk. Who waited for it was answered.
    pending: Option<Work>,
    /// The disk is full: when it is asked for space again, and when something is written again.
    full: Option<Full>,
    /// When a damaged file was set aside.
    replaced: Option<Instant>,
}

/// A full disk.
#[derive(Debug, Clone, Copy)]
struct Full {
    ask_at: Instant,
    write_at: Instant,
}

impl Writer {
    /// Opens the file again after an error, and goes on where the disk is.
    pub(super) fn recover(&mut self, trouble: &Trouble, work: Option<Work>, now: Instant) {
        let again = match trouble.kind {
            TroubleKind::Full => {
                self.save_space(now);
                false
            }
            TroubleKind::Io | TroubleKind::Damage => {
                error!(%trouble, "the store's file gave an error");
                let last = self.recovery.last.replace(now);
                last.is_some_and(|last| now.saturating_duration_since(last) < WITHIN)
            }
        };
        let opened = if again {
            Err(trouble.clone())
        } else {
            self.reopen()
        };
        let opened = match opened {
            Err(cause) if cause.kind == TroubleKind::Damage => self.replace(cause, now),
            other => other,
        };
        match opened {
            Ok(found) => self.go_on(found, work, trouble, now),
            Err(cause) => {
                self.recovery.pending = work;
                self.give_up(&cause, now);
            }
        }
    }

    /// Opens a failed store again when it is time.
    pub(super) fn try_again(&mut self, now: Instant) -> Step {
        match self.recovery.try_at {
            None => return Step::Sleep(None),
            Some(at) if at > now => return Step::Sleep(Some(at)),
            Some(_) => {}
        }
        self.recovery.last = Some(now);
        match self.reopen() {
            Ok(found) => {
                let work = self.recovery.pending.take();
                self.go_on(found, work, &Trouble::io("the store had failed"), now);
                let mut state = self.shared.lock();
                if matches!(state.status, Status::Failed(_)) {
                    state.status = Status::Open;
                }
                drop(state);
                self.shared.ring_all();
            }
            Err(trouble) => self.give_up(&trouble, now),
        }
        Step::Worked
    }

    /// The disk is full: what it holds is drained, and only then is something put again.
    fn save_space(&mut self, now: Instant) {
        self.pages.save();
        let again = self.recovery.full.is_some();
        self.recovery.full = Some(Full {
            ask_at: now + ASK,
            // Who cannot even delete waits for space.
            write_at: if again { now + ASK } else { now },
        });
        let mut state = self.shared.lock();
        // A quarter of what fitted is left for those who delete.
        let letters = state.rooms.get(DEAD).bytes;
        let fitted = self.durable_bytes(&state) + letters;
        state.rooms.set_ceiling(fitted / 4 * 3);
        state.full = true;
        drop(state);
        if !again {
            error!(
                queued_bytes = fitted,
                "the disk is full: sources wait until there is space or a quarter is drained"
            );
        }
    }

    /// Asks a full disk for space. Says when there is something to do, or not to be done before.
    pub(super) fn ask_for_space(&mut self, now: Instant) -> Option<Instant> {
        let full = self.recovery.full.as_mut()?;
        if full.ask_at <= now {
            full.ask_at = now + ASK;
            if self.pages.try_spend() {
                self.recovery.full = None;
                let mut state = self.shared.lock();
                state.rooms.set_ceiling(u64::MAX);
                state.full = false;
                drop(state);
                info!("the disk has space again");
                return None;
            }
        }
        self.recovery.full.map(|full| full.ask_at)
    }

    /// Until when nothing is to be written.
    pub(super) fn held_up(&self, now: Instant) -> Option<Instant> {
        let full = self.recovery.full?;
        (full.write_at > now).then_some(full.write_at)
    }

    /// Drops everything of the file that is in memory, and opens it with every page checked.
    fn reopen(&mut self) -> Result<Found, Trouble> {
        let mut base = self
            .shared
            .base
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = base.db.take();
        if let Err(trouble) = guarded(|| before.map_or(Ok(()), redb::Database::close)) {
            warn!(%trouble, "the store's file was not closed in order");
        }
        let started = Instant::now();
        // What readers met is the past.
        self.shared.lock().trouble = None;
        let db = self.pages.open(Check::Whole)?;
        let found = guarded(|| scan::resume(&db))?;
        base.db = Some(db);
        let took = started.elapsed();
        info!(?took, "the store's file was opened again");
        Ok(found)
    }

    /// Sets a damaged file aside and goes on with a fresh one, if that is wanted and helps.
    fn replace(&mut self, why: Trouble, now: Instant) -> Result<Found, Trouble> {
        let wanted = self.pages.home.as_ref().map(|home| home.on_corruption);
        let last = self.recovery.replaced.replace(now);
        let again = last.is_some_and(|last| now.saturating_duration_since(last) < WITHIN);
        if wanted != Some(OnCorruption::Quarantine) || again {
            return Err(why);
        }
        let shared = Arc::clone(&self.shared);
        let mut base = shared.base.write().unwrap_or_else(PoisonError::into_inner);
        drop(guarded(|| {
            base.db.take().map_or(Ok(()), redb::Database::close)
        }));
        let incarnation = Incarnation(shared.nonces.id()?);
        let mut rescued = self.rescued();
        rescued.read_letters(&shared.path);
        let unmade = |error: OpenError| Trouble::io(error.to_string());
        let aside = rescued
            .replace(&shared.path, incarnation, &why)
            .map_err(unmade)?;
        let (file, ahead, _) = folder::open_file(&shared.path).map_err(unmade)?;
        self.pages.disk = Arc::new(file);
        self.pages.ahead = ahead;
        let db = self.pages.open(Check::AsNeeded)?;
        let found = guarded(|| scan::resume(&db))?;
        base.db = Some(db);
        drop(base);
        // No number of the damaged file is one of the fresh one.
        self.commits = 0;
        let mut state = shared.lock();
        state.trouble = None;
        state.incarnation = incarnation;
        state.set_aside.push(aside);
        state.ledger = rescued.ledger;
        state.inbox.touched.clear();
        for (room, channel) in shared.channels.iter().enumerate() {
            if channel.is_durable() {
                let (bytes, events) = state.lanes[room].clear();
                state.rooms.release(&[Need {
                    room,
                    bytes,
                    events,
                }]);
            }
        }
        Ok(found)
    }

    /// What memory knows better than a damaged file.
    fn rescued(&self) -> Rescued {
        let state = self.shared.lock();
        let durable = self.shared.channels.iter().enumerate();
        let durable = durable.filter(|(_, channel)| channel.is_durable());
        let kept = state.handlers.iter();
        let handlers = kept.map(|(name, saved)| (name.clone(), saved.values.clone()));
        let mut rescued = Rescued {
            ledger: state.ledger.clone(),
            marks: state.marks.clone(),
            handlers: handlers.collect(),
            ..Rescued::default()
        };
        for (at, channel) in durable {
            rescued
                .channels
                .insert(channel.name.to_string(), channel.id);
            for (lane, queued) in state.lanes[at].iter() {
                let lane = self.shared.lane_id(LaneAt { channel: at, lane });
                rescued.next.insert(lane, queued.next);
            }
        }
        rescued
    }

    /// Takes the writer's numbers from the disk, and what was being written as what it became.
    fn go_on(&mut self, mut found: Found, work: Option<Work>, trouble: &Trouble, now: Instant) {
        match work {
            Some(work) if found.resume.commits == self.commits + 1 => {
                info!("the last commit had reached the disk");
                self.succeed(work);
            }
            Some(work) => self.take_back(work, trouble, now),
            None => {}
        }
        let state = self.shared.lock();
        self.heads.clear();
        let channels = self.shared.channels.iter().enumerate();
        for (channel, _) in channels.filter(|(_, channel)| channel.is_durable()) {
            for (lane, queued) in state.lanes[channel].iter() {
                let at = LaneAt { channel, lane };
                let head = found.heads.remove(&self.shared.lane_id(at));
                let head = beyond(head.unwrap_or_default(), &queued.queue);
                self.heads.insert(at, head);
            }
        }
        drop(state);
        self.commits = found.resume.commits;
        self.next_letter = found.resume.next_letter;
        self.next_aside = found.resume.next_aside;
        self.aside_room = super::ASIDE_MOST.saturating_sub(found.resume.aside_entries);
        self.unsaved = true;
    }

    /// Nothing of it is on disk: refuses the puts, and keeps what was settled for the next time.
    fn take_back(&self, work: Work, trouble: &Trouble, now: Instant) {
        let mut state = self.shared.lock();
        let mut inbox = work.inbox;
        for mut staged in std::mem::take(&mut inbox.commits) {
            state.rooms.release(&staged.needs);
            let channel = staged.puts.first().map(|put| put.lane.channel);
            staged.refuse(match (trouble.kind, channel) {
                (TroubleKind::Full, Some(channel)) => PutError::Full {
                    channel: self.shared.channels[channel].name.to_string(),
                },
                (TroubleKind::Full | TroubleKind::Io | TroubleKind::Damage, _) => PutError::Store {
                    reason: format!("{trouble}; nothing of it was stored: send it again"),
                },
            });
        }
        state.inbox.take_back(inbox, now);
    }

    /// Refuses what is durable until the file can be opened again. Memory channels run on.
    fn give_up(&mut self, trouble: &Trouble, now: Instant) {
        let again = match trouble.kind {
            TroubleKind::Full => Some(now + ASK),
            TroubleKind::Io => Some(now + WITHIN),
            TroubleKind::Damage => None,
        };
        self.recovery.try_at = again;
        let mut state = self.shared.lock();
        let reason = trouble.to_string();
        state.status = match state.status {
            Status::Closing | Status::Closed(_) => Status::Closed(Some(reason)),
            Status::Open | Status::Failed(_) => Status::Failed(reason),
        };
        if let Some(work) = &mut self.recovery.pending {
            for staged in &mut work.inbox.commits {
                staged.answer(Err(PutError::Store {
                    reason: format!("{trouble}; whether it is stored is not known"),
                }));
            }
            state.inbox.asking.append(&mut work.inbox.asking);
        }
        refuse_all(&mut state);
        state.rooms.end();
        drop(state);
        let tries_again = again.is_some();
        error!(%trouble, tries_again, "the store has failed: nothing durable is taken or given");
        self.shared.ring_all();
    }
}
