//! Looks at everything that an open store holds.

use levada_core::{Lease, PartId, Store, TakeError, inspect::Inspect};
use levada_store::Identity;

use super::{
    cuts::Finding,
    life::{CHANNELS, Life, channel_name},
    model::{Model, State},
};

/// The parts whose marks there are.
pub(super) const SOURCE: &str = "sources.simulated";
pub(super) const SINK: &str = "sinks.simulated";

/// Every channel has one lane.
const LANE: u32 = 0;

/// More than any simulated channel holds.
const ALL: usize = 1 << 20;

/// Reads all of it, checks every byte, and gives what a user would see.
pub(super) fn read(life: &Life, model: &mut Model) -> Result<State, Finding> {
    let broken: Vec<Identity> = life
        .store
        .audit()
        .into_iter()
        .filter(|identity| !identity.holds())
        .collect();
    if !broken.is_empty() {
        return Err(Finding::Unbalanced(format!("{broken:?}")));
    }
    let mut state = State::default();
    for channel in 0..CHANNELS.len() {
        state.channels.push(read_channel(life, model, channel)?);
    }
    for part in [SOURCE, SINK] {
        let marks = life.store.marks(&PartId::parse(part).expect("is a part"));
        for (key, value) in marks.iter() {
            let key = (part.to_owned(), key.to_owned());
            state.marks.insert(key, value.to_vec());
        }
    }
    let counts = life.store.counts().map_err(Finding::Refused)?;
    let mut dropped = 0;
    for count in counts {
        if count.part.to_string() == "agent.dead-letters" {
            dropped += count.amount;
            continue;
        }
        let key = (count.part.to_string(), count.counter.as_str(), count.reason);
        state.counts.insert(key, count.amount);
    }
    // What was dropped by the rule is known by its number only.
    let dropped = usize::try_from(dropped).unwrap_or(usize::MAX);
    let gone = model.staged.letters.iter().take(dropped);
    state.letters.extend(gone.copied());
    let letters = life
        .store
        .dead_letters(None, ALL)
        .map_err(Finding::Refused)?;
    for letter in letters {
        let number = letter.reason.parse().ok();
        let number = number.filter(|n| {
            model
                .events
                .bytes(*n)
                .is_some_and(|event| is_hex(&letter.event_hex, event))
        });
        let wrong = || Finding::Wrong(format!("dead letter {}", letter.id));
        state.letters.push(number.ok_or_else(wrong)?);
    }
    Ok(state)
}

fn read_channel(
    life: &Life,
    model: &mut Model,
    channel: usize,
) -> Result<std::collections::BTreeSet<u64>, Finding> {
    let name = CHANNELS[channel];
    let infos = life.store.channels();
    let info = infos.iter().find(|info| info.name.as_str() == name);
    let queued = info.map_or(0, |info| info.events);
    if queued == 0 {
        return Ok(std::collections::BTreeSet::new());
    }
    let Some(lease) = life.lease(channel, ALL) else {
        let nothing = format!("channel `{name}` says it has {queued} events and gives none");
        return Err(Finding::Unbalanced(nothing));
    };
    let lease = lease.map_err(Finding::Refused)?;
    let numbers = check(&lease, channel, model)?;
    let runs = lease.positions.runs();
    if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
        let last = last.first + u64::from(last.count) - 1;
        check_lane(life, model, channel, (first.first, last))?;
    }
    if numbers.len() as u64 != queued {
        let fewer = format!("channel `{name}`: {queued} queued, {} given", numbers.len());
        return Err(Finding::Unbalanced(fewer));
    }
    Ok(numbers.into_iter().collect())
}

/// Checks what a hop asks for: where the lane begins, and chains, which never change.
fn check_lane(
    life: &Life,
    model: &mut Model,
    channel: usize,
    (first, last): (u64, u64),
) -> Result<(), Finding> {
    let name = channel_name(channel);
    let refused = |error: TakeError| Finding::Refused(error.to_string());
    let lane = life.store.lane(&name, LANE).map_err(refused)?;
    if lane.oldest != first {
        let begins = format!("channel {channel} begins at {first}, not {}", lane.oldest);
        return Err(Finding::Moved(begins));
    }
    for position in [first, last] {
        let chain = life
            .store
            .chain_at(&name, LANE, position)
            .map_err(refused)?;
        let missing = || Finding::Moved(format!("channel {channel} has no chain at {position}"));
        model
            .chains
            .entry((channel, position))
            .or_insert(chain.ok_or_else(missing)?);
    }
    let known = model.chains.iter().filter(|((of, _), _)| *of == channel);
    for ((_, position), before) in known.rev().take(8) {
        let chain = life
            .store
            .chain_at(&name, LANE, *position)
            .map_err(refused)?;
        if chain.is_some_and(|chain| chain != *before) {
            let other = format!("channel {channel} has another chain at {position}");
            return Err(Finding::Moved(other));
        }
    }
    Ok(())
}

/// The numbers of leased events, in order; their bytes, ids and positions are checked.
pub(super) fn check(lease: &Lease, channel: usize, model: &mut Model) -> Result<Vec<u64>, Finding> {
    let mut numbers: Vec<u64> = Vec::with_capacity(lease.batch.len());
    let runs = lease.positions.runs().iter();
    let mut positions = runs.flat_map(|run| (0..u64::from(run.count)).map(|n| run.first + n));
    let mut ids = lease.batch.origins().iter();
    let mut last = 0;
    for event in lease.batch.iter() {
        let number = model.events.number(event);
        let wrong = || Finding::Wrong(format!("channel {channel}, after {:?}", numbers.last()));
        let number = number.ok_or_else(wrong)?;
        let (Some(position), Some(id)) = (positions.next(), ids.next()) else {
            return Err(Finding::Moved(format!("event {number} has no position")));
        };
        if numbers.last().is_some_and(|before| *before >= number) || position <= last {
            let order = format!("channel {channel}: {number} after {:?}", numbers.last());
            return Err(Finding::Moved(order));
        }
        model.saw(channel, number, position, id)?;
        last = position;
        numbers.push(number);
    }
    Ok(numbers)
}

/// Whether a text is these bytes, in lower-case hex.
fn is_hex(text: &str, bytes: &[u8]) -> bool {
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    text.bytes().eq(digits)
}
