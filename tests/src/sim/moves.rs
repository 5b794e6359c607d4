//! What a life does between an open and its end: random moves, each checked at once.

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{
    Chance, Commit, Counter, DeadLetter, Effects, MarkWrite, Outcome, Outcomes, PartId, Settlement,
    Store,
    ledger::channel_part,
    marks::Expect,
    store::{ChannelPut, Need},
};

use super::{
    cuts::{Finding, World},
    life::{
        CHANNELS, Expected, Held, Life, Refused, SMALL, SMALL_EVENTS, Waiting, channel_name, poll,
    },
    verify::{self, SINK, SOURCE},
};

/// What became of the life in a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    On,
    /// The disk has failed or is off: nobody knows what of the last commit is there.
    Broken,
}

/// One random move.
pub(super) fn one(world: &mut World, life: &mut Life) -> Result<Moved, Finding> {
    match world.chance.below(20) {
        0..=7 => {
            for _ in 0..=world.chance.below(3) {
                put(world, life)?;
            }
            if world.chance.below(8) == 0 {
                return Ok(Moved::On);
            }
            step(world, life, false)
        }
        8..=11 => lease(world, life).map(|()| Moved::On),
        12..=15 => {
            let durable = settle(world, life)?;
            if durable {
                return step(world, life, false);
            }
            Ok(Moved::On)
        }
        16 => {
            if !life.leases.is_empty() {
                let at = below(&world.chance, life.leases.len());
                drop(life.leases.remove(at));
            }
            Ok(Moved::On)
        }
        17 => withdraw(world, life).map(|()| Moved::On),
        18 => step(world, life, false),
        _ => step(world, life, true),
    }
}

fn below(chance: &Chance, below: usize) -> usize {
    usize::try_from(chance.below(below as u64)).unwrap_or(0)
}

/// Has the writer work, and hears every answer.
pub(super) fn step(world: &mut World, life: &mut Life, late: bool) -> Result<Moved, Finding> {
    let worked = life.step(late);
    world.doomed = 0;
    let broken = world.has_failed() || world.disk.has_ended();
    let waiting = std::mem::take(&mut life.waiting);
    life.waiting = hear(world, waiting, broken)?;
    if world.disk.has_ended() || !life.works() {
        return Ok(Moved::Broken);
    }
    if worked && !broken {
        world.commit();
        world.totals.commits += 1;
    }
    Ok(Moved::On)
}

/// Takes the answers; gives who still waits. Whoever hears that something is done can rely on it
/// from now on, and so can who hears that nothing of it was.
pub(super) fn hear(
    world: &mut World,
    waiting: Vec<Waiting>,
    broken: bool,
) -> Result<Vec<Waiting>, Finding> {
    let mut still = Vec::new();
    let mut done = false;
    for mut waiting in waiting {
        match (poll(&mut waiting.answer), waiting.expected) {
            (Some(Ok(())), Expected::Done) => done = true,
            (Some(Err(Refused::Conflict)), Expected::Conflict) => {}
            (None, _) if broken => still.push(waiting),
            (Some(Err(refused)), _) if broken && refused != Refused::Conflict => {
                let Some(put) = waiting.put else { continue };
                if refused == Refused::Unknown || world.disk.has_ended() {
                    world.model.doubt(put);
                } else {
                    world.model.take_back(put);
                }
            }
            (answer, expected) => {
                let text = format!("expected {expected:?}, was told {answer:?}");
                return Err(Finding::Misled(text));
            }
        }
    }
    if done {
        world.commit();
    }
    Ok(still)
}

fn part(text: &str) -> PartId {
    PartId::parse(text).expect("is a part")
}

/// Stages a put of new events.
fn put(world: &mut World, life: &mut Life) -> Result<(), Finding> {
    let (commit, expected) = draw_commit(world);
    let small: u64 = commit
        .puts
        .iter()
        .filter(|put| put.channel == channel_name(SMALL))
        .map(|put| put.batch.len() as u64)
        .sum();
    let store = Arc::clone(&life.store);
    let staged = commit.clone();
    let mut answer = Box::pin(async move { Ok(store.commit(staged).await?) });
    match poll(&mut answer) {
        None => {}
        Some(Err(Refused::Full)) => {
            let there = world.model.staged.channels[SMALL].len() as u64 + world.doomed;
            if there + small > SMALL_EVENTS {
                return Ok(());
            }
            let text = format!("refused {small} events as too many beside {there}");
            return Err(Finding::Refused(text));
        }
        Some(other) => {
            return Err(Finding::Refused(format!(
                "a put before its commit: {other:?}"
            )));
        }
    }
    let put = match expected {
        Expected::Done => Some(world.stage(&commit)),
        Expected::Conflict => {
            world.doomed += small;
            None
        }
    };
    life.waiting.push(Waiting {
        answer,
        expected,
        put,
    });
    Ok(())
}

fn draw_commit(world: &mut World) -> (Commit, Expected) {
    let chance = world.chance.clone();
    let events = match chance.below(4) {
        0 => 1,
        1 => 1 + chance.below(4),
        _ => 1 + chance.below(40),
    };
    let (first, batch) = world.model.events.make(events);
    let mut puts = Vec::new();
    let start = below(&chance, CHANNELS.len());
    for n in 0..=below(&chance, CHANNELS.len()) {
        let channel = (start + n) % CHANNELS.len();
        let batch = if n > 0 && chance.below(3) == 0 {
            batch.select((0..batch.len()).step_by(2))
        } else {
            batch.clone()
        };
        puts.push(ChannelPut {
            channel: channel_name(channel),
            batch,
            need: Need::Required,
        });
    }
    let mut effects = Effects::default();
    let source = part(SOURCE);
    if chance.below(8) == 0 {
        for _ in 0..=chance.below(2) {
            let (number, batch) = world.model.events.make(1);
            let event = batch.event_bytes(0).unwrap_or_default();
            effects.dead_letters.push(letter(number, event, &source));
        }
    }
    let dead = effects.dead_letters.len() as u64;
    effects.count(&source, Counter::Accepted, events + dead);
    effects.count(&source, Counter::Put, events);
    effects.count(&source, Counter::DeadLettered, dead);
    let (marks, expected) = draw_marks(world, &chance);
    let commit = Commit {
        part: source,
        puts,
        marks,
        effects,
        deadline: None,
        received_ms: first,
    };
    (commit, expected)
}

/// Up to two marks; sometimes one expects what is not so.
fn draw_marks(world: &World, chance: &Chance) -> (Vec<MarkWrite>, Expected) {
    let mut marks: Vec<MarkWrite> = Vec::new();
    let mut expected = Expected::Done;
    for _ in 0..chance.below(3) {
        let key = format!("mark-{}", chance.below(4));
        if marks.iter().any(|mark| mark.key == key) {
            continue;
        }
        let is = world
            .model
            .staged
            .marks
            .get(&(SOURCE.to_owned(), key.clone()));
        let is = is.map(|value| value.clone().into());
        let expect = match chance.below(16) {
            0..=7 => Expect::Any,
            8..=14 => Expect::Exactly(is),
            _ => {
                expected = Expected::Conflict;
                Expect::Exactly(Some("never written".into()))
            }
        };
        let value = (chance.below(8) > 0).then(|| chance.bits().to_le_bytes().to_vec().into());
        marks.push(MarkWrite { key, value, expect });
    }
    (marks, expected)
}

fn letter(number: u64, event: Bytes, flow: &PartId) -> DeadLetter {
    DeadLetter {
        event,
        origin: None,
        part: part("handlers.simulated"),
        flow: flow.clone(),
        reason: number.to_string(),
        limit: None,
        backtrace: None,
        handler: None,
        recording: None,
        attempts: 1,
        at_ms: number,
    }
}

/// Takes back a put that nobody has taken yet.
fn withdraw(world: &mut World, life: &mut Life) -> Result<(), Finding> {
    let (commit, _) = draw_commit(world);
    let store = Arc::clone(&life.store);
    let events: usize = commit.puts.iter().map(|put| put.batch.len()).sum();
    let mut answer = Box::pin(async move { store.commit(commit).await });
    match poll(&mut answer) {
        None => world.doomed += events as u64,
        Some(Err(error)) if Refused::from(error.clone()) == Refused::Full => {}
        Some(other) => {
            return Err(Finding::Refused(format!(
                "a put before its commit: {other:?}"
            )));
        }
    }
    Ok(())
}

/// Leases some events: they must be the oldest that are free, in order.
fn lease(world: &mut World, life: &mut Life) -> Result<(), Finding> {
    let channel = below(&world.chance, CHANNELS.len());
    let most = 1 + below(&world.chance, 80);
    let held = |number: &u64| {
        let of_it = life.leases.iter().filter(|held| held.channel == channel);
        of_it.flat_map(|held| &held.numbers).any(|n| n == number)
    };
    let free = world.model.in_memory(channel).filter(|n| !held(n));
    let expected: Vec<u64> = free.take(most).collect();
    let Some(lease) = life.lease(channel, most) else {
        return match expected.is_empty() {
            true => Ok(()),
            false => Err(Finding::Lost(format!("none is given of {expected:?}"))),
        };
    };
    let lease = lease.map_err(Finding::Refused)?;
    let numbers = verify::check(&lease, channel, &mut world.model)?;
    if numbers != expected {
        return Err(Finding::Lost(format!(
            "channel {channel}: leased {numbers:?} in place of {expected:?}"
        )));
    }
    life.leases.push(Held {
        channel,
        numbers,
        lease,
    });
    Ok(())
}

/// Ends a lease; whether somebody waits until that is on disk.
fn settle(world: &mut World, life: &mut Life) -> Result<bool, Finding> {
    if life.leases.is_empty() {
        return Ok(false);
    }
    let chance = world.chance.clone();
    let held = life.leases.remove(below(&chance, life.leases.len()));
    let outcomes = match chance.below(10) {
        0..=4 => Outcomes::Done,
        5 => Outcomes::Retry,
        _ => Outcomes::Each(held.numbers.iter().map(|_| draw_outcome(&chance)).collect()),
    };
    let channel = channel_part(&channel_name(held.channel));
    let mut effects = Effects::default();
    for (at, number) in held.numbers.iter().enumerate() {
        if outcomes.get(at) == Outcome::Dead {
            let event = held.lease.batch.event_bytes(at).unwrap_or_default();
            effects.dead_letters.push(letter(*number, event, &channel));
        }
    }
    let mut marks = Vec::new();
    if chance.below(3) == 0 {
        let key = format!("file-{}", chance.below(3));
        marks.push(MarkWrite::set(key, chance.bits().to_le_bytes().to_vec()));
    }
    let durable = chance.below(2) == 0;
    world.settle(&held, &outcomes, &marks);
    let settlement = Settlement {
        part: part(SINK),
        outcomes,
        marks,
        effects,
        durable,
    };
    let store = Arc::clone(&life.store);
    let lease = held.lease;
    let mut answer = Box::pin(async move {
        let settled = store.settle(lease, settlement).await;
        settled.map_err(|error| Refused::Other(error.to_string()))
    });
    match (poll(&mut answer), durable) {
        (None, true) => {
            life.waiting.push(Waiting {
                answer,
                expected: Expected::Done,
                put: None,
            });
            Ok(true)
        }
        (Some(Ok(())), false) => Ok(false),
        (other, _) => Err(Finding::Refused(format!("a settlement: {other:?}"))),
    }
}

fn draw_outcome(chance: &Chance) -> Outcome {
    match chance.below(24) {
        0 => Outcome::Dead,
        1..=3 => Outcome::Discard,
        4..=9 => Outcome::Retry,
        _ => Outcome::Done,
    }
}
