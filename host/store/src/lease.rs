//! Handing events to sinks: a lease lives in memory and writes nothing.

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{
    Batch, ChannelName, Counter, Lease, Positions, TakeError, Want, origin::PositionRun,
    tasks::in_place,
};
use redb::ReadableDatabase;
use tokio::time::{Instant, timeout_at};
use tracing::error;

use crate::{
    keys::{self, LaneId, ROWS},
    queue::{Pick, Places},
    room::Need,
    row::{self, StoredRow},
    shared::{Aside, Shared, State, Status, now},
    trouble::Trouble,
};

/// The store's side of a lease: gives the events back when it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channel: usize,
    pub(crate) picks: Vec<Pick>,
    /// The events, in the order of the picks.
    pub(crate) batch: Batch,
    /// How often the most tried of them was leased before.
    pub(crate) attempts: u32,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let picks = std::mem::take(&mut self.picks);
        if picks.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        for pick in picks {
            let attempts = Some(self.attempts + 1);
            state.queues[self.channel].give_back(pick.first, &pick.places, attempts);
        }
        drop(state);
        self.shared.channels[self.channel].events.notify_waiters();
    }
}

pub(crate) async fn lease(
    shared: &Arc<Shared>,
    name: &ChannelName,
    want: Want,
) -> Result<Lease, TakeError> {
    let missing = || TakeError::NoChannel {
        channel: name.to_string(),
    };
    let channel = shared.channel(name).ok_or_else(missing)?;
    loop {
        wait_for_events(shared, channel, want).await?;
        let Some((mut hold, received_ms)) = take(shared, channel, want) else {
            // Somebody else was faster.
            continue;
        };
        let read = in_place(|| fill(&mut hold, want))?;
        // All of it may have been damaged.
        let Some(positions) = read else { continue };
        return Ok(Lease {
            channel: name.clone(),
            lane: crate::LANE,
            batch: hold.batch.clone(),
            positions,
            attempts: hold.attempts,
            received_ms,
            hold: Box::new(hold),
        });
    }
}

/// Waits for the first event, and then for more as long as is wanted.
async fn wait_for_events(shared: &Shared, channel: usize, want: Want) -> Result<(), TakeError> {
    let events = &shared.channels[channel].events;
    let mut until: Option<Instant> = None;
    loop {
        let rung = events.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        match ready(shared, channel, want)? {
            Ready::Enough => return Ok(()),
            Ready::Nothing => {
                until = None;
                rung.await;
            }
            Ready::Some => {
                let at = *until.get_or_insert_with(|| Instant::now() + want.wait);
                if timeout_at(at, rung).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

enum Ready {
    Nothing,
    /// Something, but less than is wanted.
    Some,
    Enough,
}

fn ready(shared: &Shared, channel: usize, want: Want) -> Result<Ready, TakeError> {
    let state = shared.lock();
    if let Some(error) = state.take_error(shared.channels[channel].is_durable()) {
        return Err(error);
    }
    let queue = &state.queues[channel];
    let free = queue.free();
    if free == 0 {
        return Ok(Ready::Nothing);
    }
    let bytes = u128::from(queue.bytes()) * u128::from(free) / u128::from(queue.events().max(1));
    let enough = want.wait.is_zero()
        || free >= want.events as u64
        || bytes >= want.bytes as u128
        || state.rooms.waiting_for(channel) > 0
        || state.status != Status::Open;
    Ok(if enough { Ready::Enough } else { Ready::Some })
}

/// Takes what is there, and when the oldest of it was received.
fn take(shared: &Arc<Shared>, channel: usize, want: Want) -> Option<(Hold, u64)> {
    let mut state = shared.lock();
    let queue = &mut state.queues[channel];
    let picks = queue.take(want.events, want.bytes);
    let attempts = picks.iter().map(|pick| queue.attempts(pick)).max()?;
    let received_ms = picks
        .iter()
        .filter_map(|pick| queue.received_ms(pick))
        .min()?;
    let shared = Arc::clone(shared);
    Some((
        Hold {
            shared,
            channel,
            picks,
            batch: Batch::default(),
            attempts,
        },
        received_ms,
    ))
}

/// Brings the events into the hold, and says which positions they have; `None` if nothing is left
/// of them. Damaged events go to the quarantine, surplus ones back.
fn fill(hold: &mut Hold, want: Want) -> Result<Option<Positions>, TakeError> {
    let stored = read_rows(hold)?;
    let lane = LaneId {
        channel: hold.shared.channels[hold.channel].id,
        lane: crate::LANE,
    };
    let mut parts: Vec<Part> = Vec::with_capacity(hold.picks.len());
    let mut damaged = Vec::new();
    for (at, (pick, stored)) in hold.picks.iter_mut().zip(stored).enumerate() {
        match part_of(lane, pick, stored) {
            Ok((part, bad)) => {
                parts.push(part);
                damaged.extend(bad.map(|bad| (at, bad)));
            }
            Err(bad) => {
                parts.push(Part {
                    batch: Batch::default(),
                    positions: Positions::default(),
                });
                damaged.push((at, bad));
            }
        }
    }
    for (at, bad) in damaged {
        quarantine(hold, at, bad);
    }
    trim(hold, &mut parts, want);
    let positions = Positions::joined(parts.iter().map(|part| &part.positions));
    hold.batch = Batch::concat(parts.into_iter().map(|part| part.batch).collect());
    hold.picks.retain(|pick| pick.places.len() > 0);
    hold.picks.iter_mut().for_each(|pick| pick.batch = None);
    Ok((!hold.batch.is_empty()).then_some(positions))
}

/// The events of one pick.
struct Part {
    batch: Batch,
    positions: Positions,
}

/// What of a pick is damaged: these places, with these bytes.
struct Bad {
    places: Places,
    bytes: Vec<Bytes>,
    whole_row: bool,
}

/// Reads the rows that are not in memory, all in one read transaction that ends here.
fn read_rows(hold: &Hold) -> Result<Vec<Option<Bytes>>, TakeError> {
    if hold.picks.iter().all(|pick| pick.batch.is_some()) {
        return Ok(vec![None; hold.picks.len()]);
    }
    let channel = &hold.shared.channels[hold.channel];
    let lane = LaneId {
        channel: channel.id,
        lane: crate::LANE,
    };
    let read = hold.shared.read(|db| {
        let rows = db.begin_read()?.open_table(ROWS)?;
        let mut read = Vec::with_capacity(hold.picks.len());
        for pick in &hold.picks {
            let row = match &pick.batch {
                Some(_) => None,
                None => rows.get(keys::row(lane, pick.first))?,
            };
            read.push(row.map(|row| Bytes::copy_from_slice(row.value())));
        }
        Ok(read)
    });
    read.map_err(untaken)
}

/// Why something could not be read, for a sink.
pub(crate) fn untaken(trouble: Option<Trouble>) -> TakeError {
    match trouble {
        None => TakeError::Closed,
        Some(trouble) => TakeError::Store {
            reason: trouble.text,
        },
    }
}

/// The sound events of a pick, and the damaged ones if there are any; or that all are.
fn part_of(
    lane: LaneId,
    pick: &mut Pick,
    stored: Option<Bytes>,
) -> Result<(Part, Option<Bad>), Bad> {
    if let Some(batch) = &pick.batch {
        let offsets = pick.families.then(|| row::offsets_of(batch));
        return Ok((choose(batch, pick, offsets.as_deref()), None));
    }
    let key = keys::row(lane, pick.first);
    let read = stored
        .as_ref()
        .and_then(|value| StoredRow::read(&key, value));
    let Some(row) = read else {
        let bytes = stored.into_iter().collect();
        return Err(Bad {
            places: pick.places.clone(),
            bytes,
            whole_row: true,
        });
    };
    let offsets = pick.families.then(|| row.offsets());
    let bad: Vec<u32> = pick
        .places
        .iter()
        .filter(|n| !row.is_sound(*n as usize))
        .collect();
    if bad.is_empty() {
        return Ok((choose(&row.batch, pick, offsets.as_deref()), None));
    }
    let bytes = bad
        .iter()
        .filter_map(|n| row.batch.event_bytes(*n as usize))
        .collect();
    pick.places = Places::Each(pick.places.iter().filter(|n| !bad.contains(n)).collect());
    let part = choose(&row.batch, pick, offsets.as_deref());
    Ok((
        part,
        Some(Bad {
            places: Places::Each(bad),
            bytes,
            whole_row: false,
        }),
    ))
}

/// The picked events of a row, with their positions.
fn choose(batch: &Batch, pick: &Pick, offsets: Option<&[u32]>) -> Part {
    let chosen = match &pick.places {
        Places::Range(range) => batch.slice(range.start as usize..range.end as usize),
        Places::Each(places) => batch.select(places.iter().map(|n| *n as usize)),
    };
    let positions = match (offsets, &pick.places) {
        (None, Places::Range(range)) => {
            let first = pick.first + u64::from(range.start);
            Positions::new([PositionRun {
                first,
                count: range.end - range.start,
            }])
        }
        (offsets, places) => {
            let offset = |n: u32| offsets.map_or(n, |known| known[n as usize]);
            Positions::from_each(places.iter().map(|n| pick.first + u64::from(offset(n))))
        }
    };
    Part {
        batch: chosen,
        positions,
    }
}

/// Gives back what is more than wanted, at the border of a family.
fn trim(hold: &mut Hold, parts: &mut [Part], want: Want) {
    let events: usize = parts.iter().map(|part| part.batch.len()).sum();
    let bytes: usize = parts.iter().map(|part| part.batch.bytes()).sum();
    if events <= want.events && bytes <= want.bytes {
        return;
    }
    let mut kept = 0;
    let (mut events, mut bytes) = (0, 0);
    let mut surplus = Vec::new();
    for (part, pick) in parts.iter_mut().zip(&mut hold.picks) {
        let fits = |length: u32| {
            events += 1;
            bytes += length as usize;
            events <= want.events && bytes <= want.bytes
        };
        let mut here = part
            .batch
            .lengths()
            .map(fits)
            .take_while(|fits| *fits)
            .count();
        here = family_border(&part.batch, here, kept == 0);
        if here < part.batch.len() {
            let rest = pick.places.split_off(here);
            surplus.push((pick.first, rest));
            part.batch = part.batch.slice(0..here);
            part.positions = part.positions.slice(0..here);
            // Nothing after it may go before it.
            (events, bytes) = (usize::MAX / 2, usize::MAX / 2);
        }
        kept += here;
    }
    let mut state = hold.shared.lock();
    for (first, rest) in surplus {
        state.queues[hold.channel].give_back(first, &rest, None);
    }
}

/// The nearest border of a family at or before `at`; after it if there is none and nothing else is
/// leased. At least one event is leased.
fn family_border(batch: &Batch, at: usize, must: bool) -> usize {
    let starts = row::family_starts(batch);
    let is_border = |n: usize| {
        n >= batch.len()
            || starts
                .as_ref()
                .is_none_or(|starts| starts.get(n) == Some(&true))
    };
    let back = (1..=at).rev().find(|n| is_border(*n));
    match back {
        Some(n) => n,
        None if must => (1..=batch.len())
            .find(|n| is_border(*n))
            .unwrap_or(batch.len()),
        None => 0,
    }
}

/// Moves damaged events of a pick out of the channel, counted.
fn quarantine(hold: &mut Hold, at: usize, bad: Bad) {
    let shared = Arc::clone(&hold.shared);
    let (channel, first) = (hold.channel, hold.picks[at].first);
    let mut state = shared.lock();
    let mut all = vec![bad.places];
    if bad.whole_row {
        hold.picks[at].places = Places::Range(0..0);
        all.push(state.queues[channel].take_rest(first));
    }
    let gone: u32 = all
        .iter()
        .map(|places| remove(&mut state, channel, first, places))
        .sum();
    for bytes in bad.bytes {
        state.inbox.aside.push(Aside {
            channel,
            first,
            events: gone,
            bytes,
        });
    }
    let part = &shared.channels[channel].part;
    state.count(
        (part.clone(), Counter::Quarantined, String::new()),
        u64::from(gone),
    );
    state.inbox.rows_changed(now());
    drop(state);
    shared.wake.notify_all();
    error!(%part, position = first, events = gone, "damaged events were set aside");
}

/// Lets damaged events go; how many they were.
fn remove(state: &mut State, channel: usize, first: u64, places: &Places) -> u32 {
    let events = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let (left, left_bytes) = state.queues[channel].left_in(first);
    // What each event had is not known any more: an even share.
    let share = u64::from(left_bytes) * u64::from(events) / u64::from(left.max(1));
    let bytes = u32::try_from(share).unwrap_or(left_bytes);
    if events == 0 {
        return 0;
    }
    let Some(after) = state.queues[channel].remove(first, places, bytes) else {
        return 0;
    };
    state.inbox.touched.insert((channel, first), after);
    let room = Need {
        room: channel,
        bytes: u64::from(bytes),
        events: u64::from(events),
    };
    state.rooms.release(&[room]);
    events
}
