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
    lanes::{LaneAt, Offer},
    queue::{Pick, Places, Removed},
    room::Need,
    row::{self, StoredRow},
    shared::{Aside, Shared, State, Status, now},
    trouble::Trouble,
};

/// The store's side of a lease: gives the events back when it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lane: LaneAt,
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
            let queue = state.queue(self.lane);
            queue.give_back(pick.first, &pick.places, attempts);
        }
        drop(state);
        let channel = &self.shared.channels[self.lane.channel];
        channel.events.notify_waiters();
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
        let (mut hold, received_ms) = wait(shared, channel, want).await?;
        let read = in_place(|| fill(&mut hold, want))?;
        // All of it may have been damaged.
        let Some(positions) = read else { continue };
        return Ok(Lease {
            channel: name.clone(),
            lane: hold.lane.lane,
            batch: hold.batch.clone(),
            positions,
            attempts: hold.attempts,
            received_ms,
            hold: Box::new(hold),
        });
    }
}

/// Waits for the first event, then for more as long as is wanted, and takes what is there; with the
/// time when the oldest of it was received.
async fn wait(shared: &Arc<Shared>, channel: usize, want: Want) -> Result<(Hold, u64), TakeError> {
    let events = &shared.channels[channel].events;
    loop {
        let rung = events.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        match try_take(shared, channel, want)? {
            Taken::Some(hold, received_ms) => return Ok((hold, received_ms)),
            Taken::NotBefore(None) => rung.await,
            // Rung or not, there may be something to take now.
            Taken::NotBefore(Some(at)) => {
                let _rung = timeout_at(at, rung).await.is_ok();
            }
        }
    }
}

enum Taken {
    Some(Hold, u64),
    /// Nothing is to be taken yet; before this time only if the channel rings.
    NotBefore(Option<Instant>),
}

fn try_take(shared: &Arc<Shared>, channel: usize, want: Want) -> Result<Taken, TakeError> {
    let mut state = shared.lock();
    if let Some(error) = state.take_error(shared.channels[channel].is_durable()) {
        return Err(error);
    }
    let hurry = state.rooms.waiting_for(channel) > 0 || state.status != Status::Open;
    let lane = match state.lanes[channel].offer(want, hurry, Instant::now()) {
        Offer::Lane(lane) => LaneAt { channel, lane },
        Offer::At(at) => return Ok(Taken::NotBefore(Some(at))),
        Offer::Nothing => return Ok(Taken::NotBefore(None)),
    };
    let queue = state.queue(lane);
    let picks = queue.take(want.events, want.bytes);
    let attempts = picks.iter().map(|pick| queue.attempts(pick)).max();
    let received = picks.iter().filter_map(|pick| queue.received_ms(pick));
    let received_ms = received.min().unwrap_or_default();
    let shared = Arc::clone(shared);
    let hold = Hold {
        shared,
        lane,
        picks,
        batch: Batch::default(),
        attempts: attempts.unwrap_or_default(),
    };
    Ok(Taken::Some(hold, received_ms))
}

/// Brings the events into the hold, and says which positions they have; `None` if nothing is left
/// of them. Damaged events go to the quarantine, surplus ones back.
fn fill(hold: &mut Hold, want: Want) -> Result<Option<Positions>, TakeError> {
    let stored = read_rows(hold)?;
    let lane = hold.shared.lane_id(hold.lane);
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
    let lane = hold.shared.lane_id(hold.lane);
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
        state.queue(hold.lane).give_back(first, &rest, None);
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
    let (lane, first) = (hold.lane, hold.picks[at].first);
    let mut state = shared.lock();
    let mut all = vec![bad.places];
    if bad.whole_row {
        hold.picks[at].places = Places::Range(0..0);
        all.push(state.queue(lane).take_rest(first));
    }
    let gone: u32 = all
        .iter()
        .map(|places| remove(&mut state, lane, first, places))
        .sum();
    for bytes in bad.bytes {
        state.inbox.aside.push(Aside {
            lane,
            first,
            events: gone,
            bytes,
        });
    }
    let part = &shared.channels[lane.channel].part;
    state.count(
        (part.clone(), Counter::Quarantined, String::new()),
        u64::from(gone),
    );
    state.inbox.rows_changed(now());
    drop(state);
    shared.wake.ring();
    error!(%part, position = first, events = gone, "damaged events were set aside");
}

/// Lets damaged events go; how many they were.
fn remove(state: &mut State, lane: LaneAt, first: u64, places: &Places) -> u32 {
    let events = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let (left, left_bytes) = state.queue(lane).left_in(first);
    // What each event had is not known any more: an even share.
    let share = u64::from(left_bytes) * u64::from(events) / u64::from(left.max(1));
    let bytes = u32::try_from(share).unwrap_or(left_bytes);
    if events == 0 {
        return 0;
    }
    let removed = state.queue(lane).remove(first, places, bytes);
    let Some(Removed { after, bytes }) = removed else {
        return 0;
    };
    state.inbox.touched.insert((lane, first), after);
    let room = Need {
        room: lane.channel,
        bytes: u64::from(bytes),
        events: u64::from(events),
    };
    state.rooms.release(&[room]);
    events
}
