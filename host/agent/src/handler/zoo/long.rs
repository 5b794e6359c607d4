//! What is not one call: residue of memory between two handlers, and a leak that goes on and on.

use anyhow::{Context, Result};
use levada_wasm::{
    Reuse,
    zoo::{self, POISON},
};

use super::{
    keeper::{self, Keeper},
    visit::{Event, Outcome, Visit},
};
use crate::table::{number, size};

/// Row, name and what is tried.
pub(super) const RESIDUE: (&str, &str, &str) = (
    "F75",
    "residue",
    "seeks what another handler left in memory",
);
pub(super) const SLOW_LEAK: (&str, &str, &str) =
    ("F78", "slow-leak-long", "leaks through ten million events");

/// How often two handlers take turns.
const TURNS: u64 = 200;
const TURNS_LONG: u64 = 100_000;

/// Calls and events a call of the long leak.
const LEAKS: u64 = 100_000;
const EVENTS: u64 = 100;

/// How far resident memory may grow after the first tenth of a long leak: what an allocator may
/// keep, and much less than the gibibytes that leak.
const DRIFT: u64 = 16 << 20;

/// Two handlers take turns on fresh memory: one leaves a canary, the other must never find it.
pub(super) async fn residue(keeper: &Keeper, long: bool) -> Result<Visit> {
    let mut handlers = Vec::new();
    let mut allowed = 0;
    for (name, component) in [
        ("canary-plant", zoo::CANARY_PLANT),
        ("canary-seek", zoo::CANARY_SEEK),
    ] {
        let mut spec = keeper.spec(name, component)?;
        spec.reuse = Reuse::Fresh;
        allowed = spec.limits.memory;
        let loaded = keeper.load(name, RESIDUE.0, &spec).await;
        handlers.push(loaded.with_context(|| format!("cannot load `{name}`"))?);
    }
    let batch = keeper::events([POISON]);
    let turns = if long { TURNS_LONG } else { TURNS };
    let work = async {
        for turn in 0..turns {
            for handler in &handlers {
                let (out, effects) = keeper::call(&**handler, &batch).await?;
                if out != batch || !effects.dead_letters.is_empty() {
                    return Ok::<_, anyhow::Error>(Some(turn));
                }
            }
        }
        Ok(None)
    };
    let (seen, beside) = keeper.beside(work).await;
    let outcome = match seen? {
        None => Outcome {
            ended: "no effect".into(),
            reason: format!("{} turns, and nothing was found", number(turns)),
            event: Some(Event::Delivered),
            wrong: Vec::new(),
        },
        Some(turn) => Outcome {
            ended: "a canary was seen".into(),
            reason: format!("in turn {turn}"),
            event: Some(Event::Delivered),
            wrong: vec![format!("memory was not empty in turn {turn}")],
        },
    };
    Ok(Visit::judged(RESIDUE, outcome, beside, allowed))
}

/// A handler leaks 64 KiB a call until its memory is half full, again and again.
pub(super) async fn slow_leak(keeper: &Keeper) -> Result<Visit> {
    let (_, name, _) = SLOW_LEAK;
    let leak = zoo::animals().find(|animal| animal.name == "slow-leak");
    let leak = leak.context("there is no `slow-leak` in the zoo")?;
    let spec = keeper.spec(name, &(leak.component)())?;
    let handler = keeper.load(name, SLOW_LEAK.0, &spec).await;
    let handler = handler.with_context(|| format!("cannot load `{name}`"))?;
    let batch = keeper::events((0..EVENTS).map(|n| if n == 0 { POISON } else { "good" }));
    let work = async {
        let (mut lost, mut early) = (0, None);
        for call in 0..LEAKS {
            let (out, _) = keeper::call(&*handler, &batch).await?;
            lost += batch.len() - out.len();
            if call == LEAKS / 10 {
                early = keeper::resident();
            }
        }
        Ok::<_, anyhow::Error>((lost, early, keeper::resident()))
    };
    let (done, beside) = keeper.beside(work).await;
    let (lost, early, late) = done?;
    let drift = early
        .zip(late)
        .map(|(early, late)| late.saturating_sub(early));
    let retired = keeper.metric(name, "levada_handler_retirements_total reason=\"memory\"");
    let mut wrong = Vec::new();
    if lost > 0 {
        wrong.push(format!("{lost} events did not go on"));
    }
    if retired == 0.0 {
        wrong.push("no instance was retired for its memory".into());
    }
    if let Some(drift) = drift.filter(|drift| *drift > DRIFT) {
        wrong.push(format!(
            "resident memory grew by {drift} bytes after the first tenth"
        ));
    }
    let outcome = Outcome {
        ended: "no effect".into(),
        reason: format!(
            "{} events, {} leaked, {retired} instances retired, resident memory +{} after the first \
             tenth",
            number(LEAKS * EVENTS),
            size(LEAKS << 16),
            size(drift.unwrap_or_default()),
        ),
        event: Some(if lost == 0 {
            Event::Delivered
        } else {
            Event::Lost
        }),
        wrong,
    };
    Ok(Visit::judged(
        SLOW_LEAK,
        outcome,
        beside,
        spec.limits.memory,
    ))
}
