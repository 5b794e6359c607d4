//! Committing on the source side: prepare, reserve, stage, wait.

use std::{collections::HashMap, sync::Arc};

use levada_core::{Batch, Commit, Counter, OriginId, Origins, PutError, store::Need as Wish};
use tokio::{sync::oneshot, time::timeout_at};

use crate::{
    lanes::{LaneAt, divide},
    letter,
    room::{DEAD, Granted, Need, Reserve},
    row,
    shared::{CountKey, Shared, Staged, StagedPut, State, key_of, now},
    writer::fill_memory,
};

/// A commit with its events sorted by what becomes of them.
#[derive(Debug)]
struct Prepared {
    durable: Vec<StagedPut>,
    memory: Vec<(LaneAt, Batch)>,
    /// Events for optional channels, which take them if they have room.
    optional: Vec<(usize, Batch)>,
    needs: Vec<Need>,
    letters: Vec<Vec<u8>>,
    replayed: Vec<u64>,
    counts: Vec<(CountKey, u64)>,
}

pub(crate) async fn commit(shared: &Arc<Shared>, commit: Commit) -> Result<(), PutError> {
    let deadline = commit.deadline;
    let mut prepared = prepare(shared, &commit)?;
    let reserved = reserve(shared, std::mem::take(&mut prepared.needs), deadline).await?;
    let answer = stage(shared, commit, prepared, reserved)?;
    match answer {
        None => Ok(()),
        Some(rx) => rx.await.unwrap_or(Err(PutError::Stopping)),
    }
}

fn prepare(shared: &Shared, commit: &Commit) -> Result<Prepared, PutError> {
    let mut prepared = Prepared {
        durable: Vec::new(),
        memory: Vec::new(),
        optional: Vec::new(),
        needs: Vec::new(),
        letters: commit
            .effects
            .dead_letters
            .iter()
            .map(letter::encode)
            .collect(),
        replayed: commit.effects.replayed.clone(),
        counts: commit
            .effects
            .counts
            .iter()
            .map(|count| (key_of(count), count.amount))
            .collect(),
    };
    let mut identities = Identities::default();
    for put in commit.puts.iter().filter(|put| !put.batch.is_empty()) {
        let name = &put.channel;
        let missing = || PutError::Store {
            reason: format!("there is no channel `{name}`"),
        };
        let channel = shared.channel(name).ok_or_else(missing)?;
        let durable = shared.channels[channel].is_durable();
        let batch = if durable {
            identities.give(shared, &put.batch)
        } else {
            put.batch.clone()
        };
        match put.need {
            Wish::Required => {
                prepared.needs.push(need_of(channel, &batch));
                prepared.add(shared, channel, batch, commit);
            }
            Wish::Optional => prepared.optional.push((channel, batch)),
        }
    }
    if let Some(need) = letters_need(&prepared.letters) {
        prepared.needs.push(need);
    }
    let needs = merge(std::mem::take(&mut prepared.needs));
    if let Some(room) = shared.lock().rooms.too_small(&needs) {
        let channel = room_name(shared, room);
        let of_it = needs.iter().filter(|need| need.room == room);
        let bytes: u64 = of_it.map(|need| need.bytes).sum();
        return Err(PutError::TooLarge {
            channel,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        });
    }
    prepared.needs = needs;
    Ok(prepared)
}

impl Prepared {
    fn add(&mut self, shared: &Shared, channel: usize, batch: Batch, commit: &Commit) {
        let part = shared.channels[channel].part.clone();
        // Only what comes back to a channel is committed by the channel itself.
        let counter = match part == commit.part {
            true => Counter::Replayed,
            false => Counter::Put,
        };
        self.counts
            .push(((part, counter, String::new()), batch.len() as u64));
        let of = &shared.channels[channel];
        for (lane, batch) in divide(of.divided().as_deref(), batch) {
            let at = LaneAt { channel, lane };
            if of.is_durable() {
                self.durable.push(StagedPut {
                    lane: at,
                    nonce: shared.nonces.bits(),
                    rows: row::rows_of(&batch, lane, commit.received_ms),
                });
            } else {
                self.memory.push((at, batch));
            }
        }
    }
}

/// Origin ids for events that have none: the copies of an event in several channels share one.
#[derive(Debug, Default)]
struct Identities {
    first: Option<Batch>,
    /// By the address of the event: all batches of a commit live as long as it does.
    known: HashMap<usize, OriginId>,
}

impl Identities {
    fn give(&mut self, shared: &Shared, batch: &Batch) -> Batch {
        if !batch.origins().is_empty() {
            return batch.clone();
        }
        let Some(first) = self.first.take() else {
            let named = batch.clone().with_origins(shared.draw_origins(batch.len()));
            self.first = Some(named.clone());
            return named;
        };
        let named = if same_events(&first, batch) {
            batch.clone().with_origins(first.origins().clone())
        } else {
            self.match_events(shared, &first, batch)
        };
        self.first = Some(first);
        named
    }

    fn match_events(&mut self, shared: &Shared, first: &Batch, batch: &Batch) -> Batch {
        if self.known.is_empty() {
            self.known.extend(
                first
                    .iter()
                    .map(|event| address(event.as_bytes()))
                    .zip(first.origins().iter()),
            );
        }
        let mut ids = Vec::with_capacity(batch.len());
        for event in batch.iter() {
            let new = || shared.draw_origins(1).get(0).expect("one id was drawn");
            ids.push(
                *self
                    .known
                    .entry(address(event.as_bytes()))
                    .or_insert_with(new),
            );
        }
        batch.clone().with_origins(Origins::from_ids(ids))
    }
}

fn address(event: &[u8]) -> usize {
    event.as_ptr().addr()
}

/// Whether both are the same run of the same buffer: the usual case of replication.
fn same_events(a: &Batch, b: &Batch) -> bool {
    let dense = |batch: &Batch| batch.runs().count() == 1;
    let start = |batch: &Batch| batch.get(0).map(|event| address(event.as_bytes()));
    a.len() == b.len() && a.bytes() == b.bytes() && start(a) == start(b) && dense(a) && dense(b)
}

fn need_of(room: usize, batch: &Batch) -> Need {
    Need {
        room,
        bytes: batch.bytes() as u64,
        events: batch.len() as u64,
    }
}

pub(crate) fn letters_need(letters: &[Vec<u8>]) -> Option<Need> {
    let bytes = letters.iter().map(|letter| letter.len() as u64).sum();
    let (room, events) = (DEAD, letters.len() as u64);
    (events > 0).then_some(Need {
        room,
        bytes,
        events,
    })
}

/// One need per room.
fn merge(needs: Vec<Need>) -> Vec<Need> {
    let mut merged: Vec<Need> = Vec::with_capacity(needs.len());
    for need in needs {
        match merged.iter_mut().find(|other| other.room == need.room) {
            Some(other) => {
                other.bytes += need.bytes;
                other.events += need.events;
            }
            None => merged.push(need),
        }
    }
    merged
}

fn room_name(shared: &Shared, room: usize) -> String {
    match shared.channels.get(room) {
        Some(channel) => channel.name.to_string(),
        None => "dead-letters".to_owned(),
    }
}

/// Room that was granted; given back when dropped before it is staged.
#[derive(Debug)]
pub(crate) struct Reserved {
    shared: Arc<Shared>,
    needs: Vec<Need>,
}

impl Reserved {
    /// The room now belongs to what was staged.
    pub(crate) fn keep(mut self) -> Vec<Need> {
        std::mem::take(&mut self.needs)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.needs.is_empty() {
            self.shared.release(&self.needs);
        }
    }
}

/// A reservation that waits; withdrawn when dropped.
#[derive(Debug)]
struct Waiting {
    shared: Arc<Shared>,
    ticket: u64,
    needs: Vec<Need>,
    rx: oneshot::Receiver<Granted>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.rooms.withdraw(self.ticket) {
            return;
        }
        // It may have been granted in the same moment.
        if matches!(self.rx.try_recv(), Ok(Ok(()))) {
            state.rooms.release(&self.needs);
        }
    }
}

/// Waits for room in all; fair, safe to cancel.
pub(crate) async fn reserve(
    shared: &Arc<Shared>,
    needs: Vec<Need>,
    deadline: Option<tokio::time::Instant>,
) -> Result<Reserved, PutError> {
    let granted = |needs| {
        Ok(Reserved {
            shared: Arc::clone(shared),
            needs,
        })
    };
    if needs.is_empty() {
        return granted(needs);
    }
    let full = |room| {
        Err(PutError::Full {
            channel: room_name(shared, room),
        })
    };
    let asked = {
        let mut state = shared.lock();
        match state.put_error() {
            Some(PutError::Stopping) => return Err(PutError::Stopping),
            Some(error) if !only_memory(shared, &needs) => return Err(error),
            Some(_) | None => state.rooms.reserve(needs.clone()),
        }
    };
    let mut waiting = match asked {
        Reserve::Granted => return granted(needs),
        Reserve::Refused(room) => return full(room),
        Reserve::Waits { ticket, rx } => Waiting {
            shared: Arc::clone(shared),
            ticket,
            needs: needs.clone(),
            rx,
        },
    };
    // The writer may free pages for it, and a taker that waits for more has no reason to.
    shared.wake.ring();
    let channels = needs
        .iter()
        .filter_map(|need| shared.channels.get(need.room));
    channels.for_each(|channel| channel.events.notify_waiters());
    let answer = match deadline {
        None => (&mut waiting.rx).await,
        Some(at) => match timeout_at(at, &mut waiting.rx).await {
            Ok(answer) => answer,
            Err(_) => return Err(PutError::Deadline),
        },
    };
    match answer {
        Ok(Ok(())) => {
            drop(waiting);
            granted(needs)
        }
        Ok(Err(room)) => full(room),
        Err(_) => Err(shared.lock().put_error().unwrap_or(PutError::Stopping)),
    }
}

fn only_memory(shared: &Shared, needs: &[Need]) -> bool {
    let memory = |need: &Need| {
        shared
            .channels
            .get(need.room)
            .is_some_and(|c| !c.is_durable())
    };
    needs.iter().all(memory)
}

/// Hands the commit to the writer, or fills the memory channels at once if nothing is durable.
fn stage(
    shared: &Arc<Shared>,
    commit: Commit,
    mut prepared: Prepared,
    reserved: Reserved,
) -> Result<Option<oneshot::Receiver<Result<(), PutError>>>, PutError> {
    let mut state = shared.lock();
    let optional = std::mem::take(&mut prepared.optional);
    let mut extra = take_optional(shared, &mut state, optional, &mut prepared, &commit);
    let volatile = !prepared.memory.is_empty();
    let nothing_durable = prepared.durable.is_empty()
        && prepared.letters.is_empty()
        && prepared.replayed.is_empty()
        && commit.effects.states.is_empty()
        && (volatile || commit.marks.is_empty());
    let refused = match state.put_error() {
        Some(PutError::Store { .. }) if nothing_durable => None,
        other => other,
    };
    if let Some(error) = refused {
        state.rooms.release(&extra);
        return Err(error);
    }
    if nothing_durable {
        let unmet = commit
            .marks
            .iter()
            .find(|mark| !state.meets(&commit.part, mark));
        if let Some(mark) = unmet {
            state.rooms.release(&extra);
            return Err(PutError::Conflict {
                key: mark.key.clone(),
            });
        }
        reserved.keep();
        fill_at_once(shared, &mut state, commit, prepared);
        return Ok(None);
    }
    extra.extend(reserved.keep());
    let states = commit.effects.states;
    // What comes after it is written after it.
    states.iter().for_each(|change| change.ticket.pass_on());
    let (reply, rx) = oneshot::channel();
    state.inbox.commits.push(Staged {
        part: commit.part,
        puts: prepared.durable,
        memory: prepared.memory,
        marks: commit.marks,
        volatile,
        letters: prepared.letters,
        replayed: prepared.replayed,
        states,
        counts: prepared.counts,
        received_ms: commit.received_ms,
        needs: extra,
        reply: Some(reply),
    });
    drop(state);
    shared.wake.ring();
    Ok(Some(rx))
}

/// Takes the events of optional channels that have room, and counts the others as dropped.
fn take_optional(
    shared: &Shared,
    state: &mut State,
    optional: Vec<(usize, Batch)>,
    prepared: &mut Prepared,
    commit: &Commit,
) -> Vec<Need> {
    let mut taken = Vec::new();
    for (channel, batch) in optional {
        let need = need_of(channel, &batch);
        if state.rooms.try_reserve(need) {
            taken.push(need);
            prepared.add(shared, channel, batch, commit);
        } else {
            let part = &shared.channels[channel].part;
            let key = |counter, reason: &str| (part.clone(), counter, reason.to_owned());
            prepared.counts.push((key(Counter::Put, ""), need.events));
            prepared
                .counts
                .push((key(Counter::Dropped, "optional"), need.events));
        }
    }
    taken
}

/// Nothing of it goes to the disk but counters, some time.
fn fill_at_once(shared: &Shared, state: &mut State, commit: Commit, prepared: Prepared) {
    for mark in commit.marks {
        state.set_mark(&commit.part, mark);
    }
    let counted = !prepared.counts.is_empty();
    for (key, amount) in prepared.counts {
        state.count(key, amount);
    }
    for (at, batch) in prepared.memory {
        fill_memory(state, at, batch, commit.received_ms);
        shared.channels[at.channel].events.notify_waiters();
    }
    if counted && state.inbox.counts_changed(now()) {
        shared.wake.ring();
    }
}
