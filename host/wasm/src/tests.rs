//! Handlers as a whole, with small guests written in text.

mod bench;
mod faults;
mod grants;
mod guests;
mod imports;
mod limits;
mod load;
mod rerun;
mod sink;
pub(crate) mod sinks;
mod source;
pub(crate) mod vectors;
mod verdicts;

use std::{path::PathBuf, sync::Arc, time::Duration};

use levada_core::{
    Batch, BatchBuilder, Chance, Clock, Counter, Effects, InterceptError, Interceptor, PartId,
    States, interceptor::Call, state::Stateless,
};
use levada_telemetry::Registry;
use tempfile::TempDir;

use crate::*;

const PUPPET: &str = include_str!("tests/puppet.wat");
const TYPED: &str = include_str!("tests/typed.wat");

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_123
    }
}

/// A sandbox in a folder of its own.
struct House {
    dir: TempDir,
    handlers: Handlers,
    registry: Registry,
}

fn config(dir: &TempDir, registry: &Registry) -> HandlersConfig {
    HandlersConfig {
        cache_dir: Some(dir.path().join("cache")),
        compiler: Compiler::InProcess,
        memory_reservation: MemoryReservation::Full,
        recordings: Some(dir.path().join("recordings")),
        registry: registry.clone(),
        clock: Arc::new(Stopped),
        chance: Chance::seeded(7),
    }
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let handlers = Handlers::open(config(&dir, &registry)).unwrap();
    House {
        dir,
        handlers,
        registry,
    }
}

fn part(text: &str) -> PartId {
    PartId::parse(text).unwrap()
}

impl House {
    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("guest.wasm");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn spec(&self, wat: &str) -> HandlerSpec {
        let mut spec = HandlerSpec::new(self.file(&wat::parse_str(wat).unwrap()));
        // Wall time says nothing on a machine that runs other tests.
        spec.limits.deadline = Duration::from_secs(60);
        spec
    }

    async fn try_load(&self, spec: &HandlerSpec) -> Result<Arc<dyn Interceptor>, LoadError> {
        let loaded = self.handlers.load(&part("handlers.test"), spec).await?;
        Ok(loaded.interceptor.expect("an interceptor"))
    }

    async fn load(&self, spec: &HandlerSpec) -> Arc<dyn Interceptor> {
        self.try_load(spec).await.unwrap()
    }

    /// The metrics, without the digests of what wasm text becomes.
    fn metrics(&self) -> String {
        let mut text = self.registry.render();
        while let Some(from) = text.find(",digest=\"") {
            let rest = &text[from + 9..];
            let to = from + 9 + rest.find('"').unwrap() + 1;
            text.replace_range(from..to, "");
        }
        text
    }

    /// Whether the metrics have this line.
    fn shows(&self, line: &str) -> bool {
        self.metrics().lines().any(|shown| shown == line)
    }
}

/// Events without headers, one for each body.
fn bodies<'a>(bodies: impl IntoIterator<Item = &'a str>) -> Batch {
    let mut builder = BatchBuilder::default();
    for body in bodies {
        builder.push(std::iter::empty::<(&str, &str)>(), body.as_bytes());
    }
    builder.finish()
}

fn texts(batch: &Batch) -> Vec<String> {
    batch
        .iter()
        .map(|event| String::from_utf8(event.body().to_vec()).unwrap())
        .collect()
}

async fn call(
    handler: &dyn Interceptor,
    batch: &Batch,
) -> Result<(Batch, Effects), InterceptError> {
    call_on(handler, batch, &Stateless).await
}

/// A call of a handler whose state is there.
async fn call_on(
    handler: &dyn Interceptor,
    batch: &Batch,
    states: &dyn States,
) -> Result<(Batch, Effects), InterceptError> {
    let part = part("sources.plant");
    let call = Call {
        part: &part,
        attempt: 1,
        received_ms: 1_700_000_000_000,
        states,
    };
    let mut effects = Effects::default();
    let out = handler
        .intercept(batch.clone(), &call, &mut effects)
        .await?;
    // The identity of every source: what goes in comes out, is counted, or is kept.
    let sum = |counter: Counter| -> u64 {
        let of = effects
            .counts
            .iter()
            .filter(|count| count.counter == counter);
        of.map(|count| count.amount).sum()
    };
    let gone = sum(Counter::Discarded) + sum(Counter::DeadLettered);
    assert_eq!(
        batch.len() as u64 + sum(Counter::Made),
        out.len() as u64 + gone
    );
    assert_eq!(
        sum(Counter::DeadLettered),
        effects.dead_letters.len() as u64
    );
    Ok((out, effects))
}
