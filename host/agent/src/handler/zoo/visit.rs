//! One animal: let loose, watched, and judged.

use std::error::Error;

use anyhow::Result;
use levada_core::{Batch, DeadLetter, Effects, InterceptError};
use levada_wasm::zoo::{Animal, Ends, POISON};
use serde::Serialize;

use super::keeper::{self, Beside, Keeper};

/// A tick of the guests' clock, in nanoseconds.
const TICK: f64 = 1e7;

/// How far resident memory may grow: by the memory of two instances, since one that failed is
/// followed by a fresh one.
const INSTANCES: u64 = 2;

/// What was seen of one animal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Visit {
    pub(super) row: &'static str,
    pub(super) name: &'static str,
    pub(super) tries: &'static str,
    pub(super) found: Found,
    /// In which way it ended: refused, limit, trap, broken contract, no effect.
    pub(super) ended: String,
    /// The words of the host.
    pub(super) reason: String,
    /// What became of the event it acted on; none if it was not loaded.
    pub(super) event: Option<Event>,
    pub(super) neighbour: Option<Neighbour>,
    /// Mean CPU time past the limit, in ticks of 10 ms.
    pub(super) ticks_late: Option<f64>,
    /// Bytes by which this process's resident memory grew at most.
    pub(super) resident_growth: Option<u64>,
    /// Why it is not held.
    pub(super) wrong: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Found {
    Held,
    GotThrough,
    NotInThisBuild,
}

impl Found {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::GotThrough => "GOT THROUGH",
            Self::NotInThisBuild => "not in this build",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    DeadLetter,
    Delivered,
    Lost,
}

impl Event {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead letter",
            Self::Delivered => "delivered",
            Self::Lost => "LOST",
        }
    }
}

/// Events that the neighbour finished.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Neighbour {
    finished: u64,
    of: u64,
}

impl Neighbour {
    pub(super) fn finished(self) -> bool {
        self.finished == self.of
    }
}

impl Visit {
    /// Something that needs what this build does not have.
    pub(super) fn absent((row, name, tries): (&'static str, &'static str, &'static str)) -> Self {
        Self {
            row,
            name,
            tries,
            found: Found::NotInThisBuild,
            ended: String::new(),
            reason: String::new(),
            event: None,
            neighbour: None,
            ticks_late: None,
            resident_growth: None,
            wrong: Vec::new(),
        }
    }

    /// What was seen, judged; `wrong` is what was wrong with the animal itself.
    pub(super) fn judged(
        (row, name, tries): (&'static str, &'static str, &'static str),
        outcome: Outcome,
        beside: Beside,
        allowed: usize,
    ) -> Self {
        let Outcome {
            ended,
            reason,
            event,
            mut wrong,
        } = outcome;
        let neighbour = Neighbour {
            finished: beside.finished,
            of: beside.of,
        };
        if !neighbour.finished() {
            let (finished, of) = (beside.finished, beside.of);
            wrong.push(format!("the neighbour finished {finished} of {of} events"));
        }
        let allowed = allowed as u64 * INSTANCES;
        if let Some(growth) = beside.growth.filter(|growth| *growth > allowed) {
            wrong.push(format!(
                "resident memory grew by {growth} bytes, {allowed} are allowed"
            ));
        }
        Self {
            found: if wrong.is_empty() {
                Found::Held
            } else {
                Found::GotThrough
            },
            ended,
            reason,
            event,
            neighbour: Some(neighbour),
            resident_growth: beside.growth,
            wrong,
            ..Self::absent((row, name, tries))
        }
    }
}

/// How something ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: String,
    pub(super) reason: String,
    pub(super) event: Option<Event>,
    pub(super) wrong: Vec<String>,
}

/// How far an animal came.
enum Met {
    Refused(String),
    Called(Result<(Batch, Effects), InterceptError>),
}

/// Lets one animal loose, and says what came of it.
pub(super) async fn animal(keeper: &Keeper, animal: &Animal) -> Result<Visit> {
    let mut spec = keeper.spec(animal.name, &(animal.component)())?;
    keeper::grant(&mut spec, animal.granted);
    let poison = format!("{POISON}rey");
    let batch = keeper::events(["first", &poison, "last"]);
    let work = async {
        let loaded = keeper.load(animal.name, animal.row, &spec).await;
        let handler = match loaded {
            Ok(handler) => handler,
            Err(error) => return Met::Refused(words(&error)),
        };
        let mut called = keeper::call(&*handler, &batch).await;
        for _ in 1..animal.calls {
            match &called {
                Ok((out, _)) if *out == batch => called = keeper::call(&*handler, &batch).await,
                _ => break,
            }
        }
        Met::Called(called)
    };
    let (met, beside) = keeper.beside(work).await;
    let mut outcome = outcome(met, &batch);
    if !is_as_meant(keeper, animal, &outcome) {
        let (ended, reason) = (&outcome.ended, &outcome.reason);
        let wrong = format!(
            "it ended otherwise than it must ({:?}): {ended}: {reason}",
            animal.ends
        );
        outcome.wrong.push(wrong);
    }
    let title = (animal.row, animal.name, animal.tries);
    let mut visit = Visit::judged(title, outcome, beside, spec.limits.memory);
    if animal.ends == Ends::Limit("cpu") {
        let calls = keeper.metric(animal.name, "levada_handler_failures_total limit=\"cpu\"");
        let used = keeper.metric(animal.name, "levada_handler_cpu_nanoseconds_total");
        let allowed = spec.limits.cpu_of(batch.len()).as_secs_f64() * 1e9;
        visit.ticks_late = Some((used / calls - allowed) / TICK);
    }
    Ok(visit)
}

/// An error with its causes.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

fn outcome(met: Met, batch: &Batch) -> Outcome {
    let (out, effects) = match met {
        Met::Refused(reason) => {
            return Outcome {
                ended: "refused".into(),
                reason,
                event: None,
                wrong: Vec::new(),
            };
        }
        Met::Called(Ok(came)) => came,
        Met::Called(Err(error)) => {
            return Outcome {
                ended: "failed".into(),
                reason: error.to_string(),
                event: Some(Event::Lost),
                wrong: vec!["the whole batch was given back".into()],
            };
        }
    };
    let mut wrong = Vec::new();
    let good = batch.select([0, 2]);
    let event = match &effects.dead_letters[..] {
        [] if out == *batch => Event::Delivered,
        [letter] if Some(&letter.event) == batch.event_bytes(1).as_ref() => {
            if out != good {
                wrong.push("the events beside it did not go on as they were".into());
            }
            Event::DeadLetter
        }
        _ => {
            wrong.push("the event was neither delivered as it was nor kept".into());
            Event::Lost
        }
    };
    let letter = effects.dead_letters.first();
    Outcome {
        ended: letter.map_or("no effect".into(), ended),
        reason: letter
            .map(|letter| letter.reason.clone())
            .unwrap_or_default(),
        event: Some(event),
        wrong,
    }
}

fn ended(letter: &DeadLetter) -> String {
    match &letter.limit {
        Some(limit) => format!("limit `{limit}`"),
        None if letter.reason.starts_with("trap") => "trap".into(),
        None => "broken contract".into(),
    }
}

fn is_as_meant(keeper: &Keeper, animal: &Animal, outcome: &Outcome) -> bool {
    let says = |ended: &str, words: &str| outcome.ended == ended && outcome.reason.contains(words);
    match animal.ends {
        Ends::Refused(words) => says("refused", words),
        Ends::Limit(limit) => says(&format!("limit `{limit}`"), ""),
        Ends::Trap(words) => says("trap", words),
        Ends::Contract(words) => says("broken contract", words),
        Ends::Harmless("") => says("no effect", ""),
        Ends::Harmless(metric) => says("no effect", "") && keeper.metric(animal.name, metric) > 0.0,
    }
}
