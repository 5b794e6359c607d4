//! Writes events to the log at INFO, as Flume's logger sink does: for looking at a flow while it is
//! built, not for keeping anything.

use std::sync::Arc;

use async_trait::async_trait;
use levada_core::{
    Delivery, EventRef, Hop, Lease, Marks, OpenError, PartId, RunContext, Sink, SinkError,
    factory::SinkFactory, params,
};
use tracing::info;

params! {
    /// Settings of the `logger` sink.
    pub(crate) struct Params {
        /// Most bytes of a body, and of the headers together, that are shown.
        pub max_bytes: usize = 256,
    }
}

/// Builds [`LoggerSink`]s.
pub(crate) struct Factory;

impl SinkFactory for Factory {
    const NAME: &'static str = "logger";
    type Params = Params;

    fn build(&self, _part: &PartId, params: &Params) -> Box<dyn Sink> {
        Box::new(LoggerSink {
            max_bytes: params.max_bytes,
        })
    }
}

/// The sink that writes events to the log.
#[derive(Debug)]
struct LoggerSink {
    max_bytes: usize,
}

#[async_trait]
impl Sink for LoggerSink {
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        Ok(())
    }

    async fn deliver(&self, lease: &Lease, cx: &RunContext) -> Result<Delivery, SinkError> {
        for event in lease.batch.iter() {
            let headers = headers_text(event, self.max_bytes);
            let body = shown(event.body(), self.max_bytes);
            info!(sink = %cx.part, headers, body, bytes = event.body().len(), "event");
        }
        Ok(Delivery::done())
    }
}

/// The headers as `name=value` pairs, escaped and cut.
fn headers_text(event: EventRef<'_>, max_bytes: usize) -> String {
    let mut out = String::new();
    for (name, value) in event.headers() {
        if !out.is_empty() {
            out.push(' ');
        }
        let room = max_bytes.saturating_sub(out.len());
        out.push_str(&shown(format!("{name}={value}").as_bytes(), room));
        if out.len() >= max_bytes {
            break;
        }
    }
    out
}

/// Bytes as text in which nothing can break a log line or a terminal: text as it is, control
/// characters and what is no UTF-8 escaped, cut after `most` bytes with `...`.
fn shown(bytes: &[u8], most: usize) -> String {
    let cut = &bytes[..bytes.len().min(most)];
    let mut out = String::with_capacity(cut.len() + 3);
    for chunk in cut.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_direction(c) {
                out.extend(c.escape_unicode());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if cut.len() < bytes.len() {
        out.push_str("...");
    }
    out
}

/// Characters that turn the direction of text round, which hides what a line says.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
