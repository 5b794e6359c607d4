//! W1 to W3: calls of sandboxed handlers against native code that does the same.

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
use levada_wasm::{Compiler, HandlerSpec, Handlers, HandlersConfig, MemoryReservation};
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
    fn load(runtime: &Arc<Runtime>, name: &str) -> Result<Self> {
        let handlers = Handlers::open(HandlersConfig {
            cache_dir: None,
            compiler: Compiler::InProcess,
            memory_reservation: MemoryReservation::Full,
            registry: levada_telemetry::Registry::new(),
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
        })?;
        let part = PartId::parse("handlers.bench").context("a part's name")?;
        let spec = HandlerSpec::new(place::guest(name)?);
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

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let runtime = Arc::new(runtime);
    let noop = Guest::load(&runtime, "noop")?;
    let finder = Guest::load(&runtime, "find-add")?;
    let parser = Guest::load(&runtime, "json-drop")?;
    let (text, json) = (
        load::batch(EVENTS, Body::Text),
        load::batch(EVENTS, Body::Json),
    );
    let one = text.slice(0..1);
    let all = (EVENTS * CALLS) as u64;
    let samples = bench.interleave(
        "handler",
        &mut [
            ("no-op", &mut || {
                Ok(noop.run(&text, CALLS)?.as_secs_f64() * 1e9 / all as f64)
            }),
            ("no-op, 1 event", &mut || {
                Ok(noop.run(&one, CALLS * 10)?.as_secs_f64() * 1e9 / (CALLS * 10) as f64)
            }),
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
    let at_most = Target::AtMost;
    report.judged(
        "W1",
        "no-op handler, batch 100, per event",
        "ns",
        &samples[0],
        at_most(20.0),
    );
    report.judged(
        "W1",
        "no-op handler, one event, per call",
        "ns",
        &samples[1],
        at_most(500.0),
    );
    let native = ("native", &samples[3]);
    let what = "JSON handler, batch 100";
    report.against(
        "W2",
        what,
        "ev/s",
        &samples[2],
        native,
        Target::RatioAtLeast(0.42),
    );
    let native = ("native", &samples[5]);
    let what = "find-and-add handler, batch 100";
    report.against(
        "W3",
        what,
        "ev/s",
        &samples[4],
        native,
        Target::RatioAtLeast(0.35),
    );
    Ok(())
}
