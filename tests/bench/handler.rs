//! W1 to W3: calls of sandboxed handlers against native code that does the same; W5, W6: the typed
//! form, and a fresh instance for every call.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use levada_core::{
    Batch, Chance, Effects, Interceptor, PartId, SystemClock, interceptor::Call, state::Stateless,
};
use levada_tests::place;
use levada_wasm::{Compiler, HandlerSpec, Handlers, HandlersConfig, MemoryReservation, Reuse};
use tokio::runtime::Runtime;

use crate::{
    harness::{Bench, rate},
    load::{self, Body},
    report::{Report, Target},
};

#[path = "../guests/find-add/src/logic.rs"]
#[expect(unreachable_pub, reason = "shared with the guest, which is a crate")]
mod find_add;
#[path = "../guests/json-drop/src/logic.rs"]
#[expect(unreachable_pub, reason = "shared with the guest, which is a crate")]
mod json_drop;

const EVENTS: usize = 100;
const CALLS: usize = 4000;

/// Events of a call that has an instance of its own, and how many such calls.
const EVENTS_FRESH: usize = 1000;
const CALLS_FRESH: usize = 400;

/// An event as a program without our encoding would hold it.
#[derive(Debug, Clone)]
struct Owned {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// One guest, loaded as an agent loads it.
struct Guest {
    runtime: Arc<Runtime>,
    interceptor: Arc<dyn Interceptor>,
    part: PartId,
}

impl Guest {
    fn load(runtime: &Arc<Runtime>, name: &str, reuse: Reuse) -> Result<Self> {
        let handlers = Handlers::open(HandlersConfig {
            cache_dir: None,
            compiler: Compiler::InProcess,
            memory_reservation: MemoryReservation::Full,
            recordings: None,
            registry: levada_telemetry::Registry::new(),
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
        })?;
        let part = PartId::parse("handlers.bench").context("a part's name")?;
        let spec = HandlerSpec {
            reuse,
            ..HandlerSpec::new(place::guest(name)?)
        };
        let loaded = runtime.block_on(handlers.load(&part, &spec))?;
        let interceptor = loaded.interceptor.context("the guest is an interceptor")?;
        Ok(Self {
            runtime: Arc::clone(runtime),
            interceptor,
            part,
        })
    }

    /// Handles the batch so often; the time of all calls.
    fn run(&self, batch: &Batch, calls: usize) -> Result<Duration> {
        let call = Call {
            part: &self.part,
            attempt: 1,
            received_ms: 0,
            states: &Stateless,
        };
        self.runtime.block_on(async {
            let begin = Instant::now();
            for _ in 0..calls {
                let mut effects = Effects::default();
                let out = self
                    .interceptor
                    .intercept(batch.clone(), &call, &mut effects)
                    .await?;
                black_box((out, effects));
            }
            Ok(begin.elapsed())
        })
    }
}

/// The same work on owned events; what is changed is copied before, outside of the time.
fn native(batch: &Batch, calls: usize, work: impl Fn(&mut Vec<Owned>)) -> Duration {
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let owned: Vec<_> = batch
        .iter()
        .map(|e| Owned {
            headers: e.headers().map(text).collect(),
            body: e.body().to_vec(),
        })
        .collect();
    let mut sum = Duration::ZERO;
    for _ in 0..calls {
        let mut events = owned.clone();
        let begin = Instant::now();
        work(&mut events);
        sum += begin.elapsed();
        black_box(events);
    }
    sum
}

#[expect(clippy::ptr_arg, reason = "both natives are given the same way")]
fn find_and_add(events: &mut Vec<Owned>) {
    for event in events
        .iter_mut()
        .filter(|event| find_add::found(&event.body))
    {
        let (name, value) = find_add::HEADER;
        event.headers.push((name.to_owned(), value.to_owned()));
    }
}

fn parse_and_drop(events: &mut Vec<Owned>) {
    events.retain(|event| json_drop::fate(&event.body) == json_drop::Fate::Keep);
}

/// Nanoseconds an event.
fn each(took: Duration, events: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let events = events as f64;
    took.as_secs_f64() * 1e9 / events
}

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let runtime = Arc::new(runtime);
    let load = |name| Guest::load(&runtime, name, Reuse::Reuse);
    calls(bench, report, &load("noop")?)?;
    against_native(bench, report, &load("find-add")?, &load("json-drop")?)?;
    let fresh = Guest::load(&runtime, "noop", Reuse::Fresh)?;
    forms(bench, report, &load("typed-find-add")?, &fresh)
}

/// W1: what a call costs that does nothing.
fn calls(bench: &Bench, report: &mut Report, noop: &Guest) -> Result<()> {
    let text = load::batch(EVENTS, Body::Text);
    let one = text.slice(0..1);
    let samples = bench.interleave(
        "calls",
        &mut [
            ("no-op", &mut || {
                Ok(each(noop.run(&text, CALLS)?, EVENTS * CALLS))
            }),
            ("no-op, 1 event", &mut || {
                Ok(each(noop.run(&one, CALLS * 10)?, CALLS * 10))
            }),
        ],
    )?;
    let what = "no-op handler, batch 100, per event";
    report.judged("W1", what, "ns", &samples[0], Target::AtMost(20.0));
    let what = "no-op handler, one event, per call";
    report.judged("W1", what, "ns", &samples[1], Target::AtMost(500.0));
    Ok(())
}

/// W2, W3: sandboxed against native.
fn against_native(
    bench: &Bench,
    report: &mut Report,
    finder: &Guest,
    parser: &Guest,
) -> Result<()> {
    let (text, json) = (
        load::batch(EVENTS, Body::Text),
        load::batch(EVENTS, Body::Json),
    );
    let all = (EVENTS * CALLS) as u64;
    let samples = bench.interleave(
        "handler",
        &mut [
            ("JSON", &mut || Ok(rate(all, parser.run(&json, CALLS)?))),
            ("JSON, native", &mut || {
                Ok(rate(all, native(&json, CALLS, parse_and_drop)))
            }),
            ("find and add", &mut || {
                Ok(rate(all, finder.run(&text, CALLS)?))
            }),
            ("find and add, native", &mut || {
                Ok(rate(all, native(&text, CALLS, find_and_add)))
            }),
        ],
    )?;
    let [json, json_native, found, found_native] = &samples[..] else {
        unreachable!("as many figures as candidates")
    };
    let (what, target) = ("JSON handler, batch 100", Target::RatioAtLeast(0.42));
    report.against("W2", what, "ev/s", json, ("native", json_native), target);
    let (what, target) = (
        "find-and-add handler, batch 100",
        Target::RatioAtLeast(0.35),
    );
    report.against("W3", what, "ev/s", found, ("native", found_native), target);
    Ok(())
}

/// W5, W6: what the typed form costs, and an instance for every call.
fn forms(bench: &Bench, report: &mut Report, typed: &Guest, fresh: &Guest) -> Result<()> {
    let text = load::batch(EVENTS, Body::Text);
    let long = load::batch(EVENTS_FRESH, Body::Text);
    let samples = bench.interleave(
        "forms",
        &mut [
            ("typed", &mut || {
                Ok(each(typed.run(&text, CALLS)?, EVENTS * CALLS))
            }),
            ("fresh", &mut || {
                let took = fresh.run(&long, CALLS_FRESH)?;
                Ok(each(took, EVENTS_FRESH * CALLS_FRESH))
            }),
        ],
    )?;
    let what = "typed find-and-add handler, batch 100, per event";
    report.judged("W5", what, "ns", &samples[0], Target::AtMost(800.0));
    let what = "no-op handler, an instance per batch of 1000, per event";
    report.judged("W6", what, "ns", &samples[1], Target::AtMost(250.0));
    Ok(())
}
