//! Ending a lease: events go for good, to the dead letters, or back to their place.

use std::sync::Arc;

use levada_core::{Counter, Lease, Outcome, Outcomes, PutError, Settlement, TakeError};
use tokio::sync::oneshot;

use crate::{
    lease::Hold,
    letter, metrics, put,
    queue::{Pick, Places, Removed},
    room::Need,
    shared::{Shared, State, key_of, now},
};

pub(crate) async fn settle(
    shared: &Arc<Shared>,
    mut lease: Lease,
    settlement: Settlement,
) -> Result<(), TakeError> {
    let hold = std::mem::replace(&mut lease.hold, Box::new(()));
    let foreign = || TakeError::Store {
        reason: "the lease is not of this store".into(),
    };
    let hold = hold.downcast::<Hold>().map_err(|_| foreign())?;
    if !Arc::ptr_eq(&hold.shared, shared) {
        return Err(foreign());
    }
    let letters: Vec<Vec<u8>> = settlement
        .effects
        .dead_letters
        .iter()
        .map(letter::encode)
        .collect();
    let needs = put::letters_need(&letters).into_iter().collect();
    let reserved = put::reserve(shared, needs, None)
        .await
        .map_err(|error| match error {
            PutError::Stopping => TakeError::Closed,
            other => TakeError::Store {
                reason: other.to_string(),
            },
        })?;
    let lane = hold.lane;
    let channel = &shared.channels[lane.channel];
    metrics::settled(&channel.lag, &lease, shared.clock.wall_ms());
    let durable = settlement.durable;
    // What goes back may be taken by others, and so may the rest of a lane that is idle now.
    let rings =
        settlement.outcomes != Outcomes::Done || shared.lock().lanes[lane.channel].len() > 1;
    let answer = {
        let mut state = shared.lock();
        check(&state, &settlement, channel.is_durable())?;
        reserved.keep();
        apply(&mut state, *hold, settlement, letters);
        durable.then(|| {
            let (tx, rx) = oneshot::channel();
            state.inbox.asking.push(tx);
            rx
        })
    };
    shared.wake.ring();
    if rings {
        channel.events.notify_waiters();
    }
    match answer {
        None => Ok(()),
        Some(rx) => match rx.await {
            Ok(written) => written.map_err(|reason| TakeError::Store { reason }),
            Err(_) => Err(TakeError::Closed),
        },
    }
}

/// Whether the settlement can be taken.
fn check(state: &State, settlement: &Settlement, durable: bool) -> Result<(), TakeError> {
    if let Some(error) = state.take_error(durable) {
        return Err(error);
    }
    match settlement
        .marks
        .iter()
        .find(|mark| !state.meets(&settlement.part, mark))
    {
        None => Ok(()),
        Some(mark) => {
            let reason = format!("mark `{}` is not what it was expected to be", mark.key);
            Err(TakeError::Store { reason })
        }
    }
}

/// How many events went which way.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    delivered: u64,
    dead: u64,
    discarded: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.dead += other.dead;
        self.discarded += other.discarded;
        self.bytes += other.bytes;
    }
}

/// Changes what is in memory, and notes what has to be written.
fn apply(state: &mut State, mut hold: Hold, settlement: Settlement, letters: Vec<Vec<u8>>) {
    let picks = std::mem::take(&mut hold.picks);
    let Settlement {
        part,
        outcomes,
        marks,
        effects,
        ..
    } = settlement;
    let durable = hold.shared.channels[hold.lane.channel].is_durable();
    let mut tally = Tally::default();
    let mut known = &effects.counts[..];
    let mut lengths = hold.batch.lengths();
    let mut at = 0;
    for pick in picks {
        let mut here = Tally::default();
        let split = split(&pick, &outcomes, at, &mut lengths, &mut here);
        at += pick.places.len();
        let queue = state.queue(hold.lane);
        queue.give_back(pick.first, &split.back, Some(hold.attempts + 1));
        if split.gone.len() > 0 {
            let removed = queue.remove(pick.first, &split.gone, split.bytes);
            let Some(Removed { after, bytes }) = removed else {
                // Its row was set aside with a damaged file, and is counted there.
                known = &[];
                continue;
            };
            if durable {
                state.inbox.touched.insert((hold.lane, pick.first), after);
            }
            here.bytes = u64::from(bytes);
            tally.add(here);
        }
    }
    let gone = tally.delivered + tally.dead + tally.discarded;
    state.rooms.release(&[Need {
        room: hold.lane.channel,
        bytes: tally.bytes,
        events: gone,
    }]);
    for mark in marks {
        state.inbox.marks.push((part.clone(), mark.clone()));
        state.set_mark(&part, mark);
    }
    let writes = durable || !letters.is_empty() || !state.inbox.marks.is_empty();
    state.inbox.letters.extend(letters);
    count(state, &hold.shared, hold.lane.channel, tally, known);
    let at = now();
    if writes {
        state.inbox.rows_changed(at);
    } else {
        state.inbox.counts_changed(at);
    }
}

/// What becomes of the events of one pick.
struct Split {
    gone: Places,
    back: Places,
    /// Bytes of those that go.
    bytes: u32,
}

fn split(
    pick: &Pick,
    outcomes: &Outcomes,
    at: usize,
    lengths: &mut impl Iterator<Item = u32>,
    tally: &mut Tally,
) -> Split {
    let none = Places::Range(0..0);
    let events = pick.places.len();
    let lengths = lengths.take(events);
    if *outcomes == Outcomes::Retry {
        lengths.for_each(drop);
        return Split {
            gone: none,
            back: pick.places.clone(),
            bytes: 0,
        };
    }
    if *outcomes == Outcomes::Done {
        let bytes: u32 = lengths.sum();
        tally.delivered += events as u64;
        tally.bytes += u64::from(bytes);
        return Split {
            gone: pick.places.clone(),
            back: none,
            bytes,
        };
    }
    let (mut gone, mut back, mut bytes) = (Vec::new(), Vec::new(), 0);
    for ((n, place), length) in pick.places.iter().enumerate().zip(lengths) {
        match outcomes.get(at + n) {
            Outcome::Done => tally.delivered += 1,
            Outcome::Dead => tally.dead += 1,
            Outcome::Discard => tally.discarded += 1,
            Outcome::Retry => {
                back.push(place);
                continue;
            }
        }
        gone.push(place);
        bytes += length;
    }
    tally.bytes += u64::from(bytes);
    Split {
        gone: Places::Each(gone),
        back: Places::Each(back),
        bytes,
    }
}

/// Counts the way of every event. What the effects count for this channel by reason is part of it,
/// and is not counted twice.
fn count(
    state: &mut State,
    shared: &Shared,
    channel: usize,
    tally: Tally,
    counts: &[levada_core::Count],
) {
    let part = &shared.channels[channel].part;
    let ways = [
        (Counter::Delivered, tally.delivered),
        (Counter::DeadLettered, tally.dead),
        (Counter::Discarded, tally.discarded),
    ];
    for (counter, events) in ways {
        let same = |count: &&levada_core::Count| count.counter == counter && count.part == *part;
        let known: u64 = counts.iter().filter(same).map(|count| count.amount).sum();
        let rest = events.saturating_sub(known);
        state.count((part.clone(), counter, String::new()), rest);
    }
    for count in counts {
        state.count(key_of(count), count.amount);
    }
}
