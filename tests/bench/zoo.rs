//! What hostile guests cost their neighbours: the slowest calls of a harmless handler while an
//! animal of the zoo is called again and again beside it, against the same with a harmless one.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use levada_core::{
    Batch, BatchBuilder, Chance, Effects, Interceptor, PartId, SystemClock, interceptor::Call,
    state::Stateless,
};
use levada_wasm::{
    Compiler, HandlerSpec, Handlers, HandlersConfig, MemoryReservation,
    zoo::{self, Ends, POISON},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    harness::{Bench, percentile_us},
    load::{self, Body},
    report::Report,
};

/// The neighbour's batch, and how often it is called in a round.
const EVENTS: usize = 100;
const CALLS: usize = 40_000;

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let house = House::open(bench)?;
    let neighbour = house.load("neighbour", zoo::HARMLESS)?;
    let harmless = house.load("harmless", zoo::HARMLESS)?;
    let mut animals = Vec::new();
    for animal in zoo::animals() {
        // What is not loaded is beside nobody; what needs a grant does no harm with it.
        if !matches!(animal.ends, Ends::Refused(_)) && animal.granted.is_empty() {
            let loaded = house.load(animal.name, &(animal.component)())?;
            animals.push((animal, loaded));
        }
    }
    let beside = |other| p99_us(&*neighbour, other);
    let mut runs: Vec<(&str, Run<'_>)> = Vec::new();
    runs.push(("harmless", Box::new(|| beside(&*harmless))));
    for (animal, loaded) in &animals {
        runs.push((animal.name, Box::new(|| beside(&**loaded))));
    }
    let mut candidates: Vec<(&str, &mut dyn FnMut() -> Result<f64>)> = Vec::new();
    for (name, run) in &mut runs {
        candidates.push((name, &mut **run));
    }
    let samples = bench.interleave("zoo", &mut candidates)?;
    report.figure(
        "zoo",
        "neighbour's p99, `harmless` beside it",
        "us",
        &samples[0],
    );
    for ((animal, _), figures) in animals.iter().zip(&samples[1..]) {
        let what = format!("neighbour's p99, `{}` beside it", animal.name);
        let yardstick = ("harmless", &samples[0]);
        report.beside(animal.row, &what, "us", figures, yardstick);
    }
    Ok(())
}

/// One figure of one candidate.
type Run<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// One sandbox for all.
struct House<'a> {
    handlers: Handlers,
    runtime: Runtime,
    bench: &'a Bench,
}

impl<'a> House<'a> {
    fn open(bench: &'a Bench) -> Result<Self> {
        let handlers = Handlers::open(HandlersConfig {
            cache_dir: None,
            compiler: Compiler::InProcess,
            memory_reservation: MemoryReservation::Full,
            recordings: None,
            registry: levada_telemetry::Registry::new(),
            clock: std::sync::Arc::new(SystemClock),
            chance: Chance::seeded(1),
        })?;
        Ok(Self {
            handlers,
            runtime: runtime()?,
            bench,
        })
    }

    fn load(&self, name: &str, component: &[u8]) -> Result<std::sync::Arc<dyn Interceptor>> {
        let path = self.bench.dir.path().join(format!("{name}.wasm"));
        fs::write(&path, component)?;
        let part = PartId::parse(&format!("handlers.{name}")).context("a part's name")?;
        let mut spec = HandlerSpec::new(path);
        // Wall time says nothing on a machine that is loaded on purpose.
        spec.limits.deadline = Duration::from_secs(60);
        let loaded = self.runtime.block_on(self.handlers.load(&part, &spec))?;
        loaded.interceptor.context("the guest is an interceptor")
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// The neighbour's 99th percentile, in microseconds a call, while the other one is called on a
/// thread of its own.
fn p99_us(neighbour: &dyn Interceptor, other: &dyn Interceptor) -> Result<f64> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let prey = scope.spawn(|| hunt(other, &stop));
        let times = serve(neighbour);
        stop.store(true, Ordering::Relaxed);
        match prey.join() {
            Ok(hunted) => hunted?,
            Err(_) => bail!("the thread beside the neighbour panicked"),
        }
        Ok(percentile_us(&mut times?, 99))
    })
}

fn serve(neighbour: &dyn Interceptor) -> Result<Vec<Duration>> {
    let runtime = runtime()?;
    let batch = load::batch(EVENTS, Body::Text);
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begin = Instant::now();
        runtime.block_on(call(neighbour, &batch))?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// Calls an animal with new prey, since what it failed on before is not tried again, and with
/// enough that it lets go, so that its breaker stays closed.
fn hunt(animal: &dyn Interceptor, stop: &AtomicBool) -> Result<()> {
    let runtime = runtime()?;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let bodies = [
            "a".into(),
            format!("{POISON} {number}"),
            "b".into(),
            "c".into(),
        ];
        let mut builder = BatchBuilder::default();
        for body in &bodies {
            builder.push(std::iter::empty::<(&str, &str)>(), body.as_bytes());
        }
        runtime.block_on(call(animal, &builder.finish()))?;
    }
    Ok(())
}

async fn call(handler: &dyn Interceptor, batch: &Batch) -> Result<()> {
    let part = PartId::parse("sources.bench").context("a part's name")?;
    let call = Call {
        part: &part,
        attempt: 1,
        received_ms: 0,
        states: &Stateless,
    };
    let mut effects = Effects::default();
    handler
        .intercept(batch.clone(), &call, &mut effects)
        .await?;
    Ok(())
}
