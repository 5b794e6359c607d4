//! Events from standard input through a handler, and what it says of them.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, bail};
use levada_core::{
    Batch, Chance, Effects, Interceptor, Lease, PartId, Peer, RunContext, Sink, Stopper,
    SystemClock, interceptor::Call, state::Stateless,
};
use levada_wasm::{EventText, Tap, TapParams};

use super::{Wanted, helped, sandbox, show, stdin_part};
use crate::exit::Exit;

/// The longest line: an event of 16 MiB in base64, with room for headers.
const LONGEST: u64 = 32 << 20;

/// Events, some at a time.
pub(super) struct Feed {
    lines: Box<dyn BufRead>,
    at: usize,
    /// Most events at a time.
    most: usize,
}

impl Feed {
    pub(super) fn stdin(most: usize) -> Self {
        Self {
            lines: Box::new(BufReader::new(io::stdin())),
            at: 0,
            most,
        }
    }

    /// The next events; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<EventText>>> {
        let mut events = Vec::new();
        while events.len() < self.most {
            let mut line = Vec::new();
            let mut bounded = self.lines.by_ref().take(LONGEST);
            let read = bounded.read_until(b'\n', &mut line);
            if read.context("cannot read standard input")? == 0 {
                break;
            }
            self.at += 1;
            let at = self.at;
            if line.len() as u64 == LONGEST {
                bail!("line {at} is longer than {LONGEST} bytes");
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let event = serde_json::from_slice(&line).with_context(|| {
                format!("line {at} is no event; write {{\"headers\":{{}},\"body\":\"...\"}}")
            })?;
            events.push(event);
        }
        Ok((!events.is_empty()).then_some(events))
    }
}

/// What a component is here.
enum Work {
    Interceptor(std::sync::Arc<dyn Interceptor>),
    Sink(Box<dyn Sink>, RunContext),
}

/// Feeds a handler all events.
pub(super) async fn all(wanted: &Wanted, mut feed: Feed) -> Result<Exit> {
    let handlers = sandbox(Some(wanted))?;
    let loaded = handlers.load(&wanted.part, &wanted.spec).await;
    let loaded = loaded.map_err(helped)?;
    let mut tap = loaded.tap(TapParams {
        when: None,
        // Each event, and what becomes of the whole call.
        room: feed.most + 1,
        excerpt: usize::MAX,
        after: usize::MAX,
    })?;
    let work = match (loaded.interceptor.clone(), &loaded.sink) {
        (Some(interceptor), _) => Work::Interceptor(interceptor),
        (None, Some(sink)) => Work::Sink(sink.sink(), context()),
        (None, None) => bail!("the component has no role that takes events"),
    };
    let mut well = true;
    while let Some(events) = feed.next()? {
        let batch = EventText::batch(&events)?;
        well &= call(&work, &wanted.spec, batch, &mut tap).await?;
    }
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

/// One batch; whether all of it was handled.
async fn call(
    work: &Work,
    spec: &levada_wasm::HandlerSpec,
    batch: Batch,
    tap: &mut Tap,
) -> Result<bool> {
    // What the handler is not called for is not seen by a tap.
    let wanted = |event| spec.when.as_ref().is_none_or(|when| when.holds(event));
    let called = batch.iter().filter(|event| wanted(*event)).count();
    let ended = match work {
        Work::Interceptor(interceptor) => {
            let part = stdin_part();
            let call = Call {
                part: &part,
                attempt: 1,
                received_ms: levada_core::Clock::wall_ms(&SystemClock),
                states: &Stateless,
            };
            let mut effects = Effects::default();
            let ended = interceptor.intercept(batch, &call, &mut effects).await;
            if ended.is_ok() {
                for change in &effects.states {
                    change.ticket.pass_on();
                    change.ticket.committed();
                }
            }
            ended.map(|_| ()).map_err(|error| error.to_string())
        }
        Work::Sink(sink, cx) => {
            let delivered = sink.deliver(&Lease::loose(batch), cx).await;
            delivered.map(|_| ()).map_err(|error| error.to_string())
        }
    };
    let sights: Vec<_> = std::iter::from_fn(|| tap.try_next()).collect();
    let well = show(&sights)?;
    if let (Err(error), true) = (&ended, sights.is_empty()) {
        bail!("the call failed: {error}");
    }
    if ended.is_ok() && sights.len() != called {
        bail!(
            "{} of {called} events were seen: this is a bug",
            sights.len()
        );
    }
    Ok(well && ended.is_ok())
}

fn context() -> RunContext {
    RunContext {
        part: PartId::parse("sinks.stdout").expect("a kind and a name"),
        stop: Stopper::new().1,
        clock: std::sync::Arc::new(SystemClock),
        chance: Chance::system(),
        peer: Peer::default(),
    }
}
