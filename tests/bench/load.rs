//! The events that are measured with: about 272 bytes, three headers.

use bytes::Bytes;
use levada_core::{Batch, BatchBuilder, avro};

/// What the body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Text without structure; half of the events hold what `find-add` looks for.
    Text,
    /// JSON records; a quarter of them has the level that `json-drop` drops.
    Json,
}

/// The text that the guest `find-add` looks for.
const NEEDLE: &str = "temperature_alarm";

/// A batch of so many events.
pub(crate) fn batch(events: usize, body: Body) -> Batch {
    let mut builder = BatchBuilder::default();
    for n in 0..events {
        let headers = [
            ("host", "gw-17.plant.example".to_owned()),
            ("topic", "plant/7/telemetry".to_owned()),
            ("timestamp", format!("17{:011}", n * 37)),
        ];
        let body = match body {
            Body::Text => text(n),
            Body::Json => json(n),
        };
        builder.push(
            headers.iter().map(|(name, value)| (*name, value.as_str())),
            body.as_bytes(),
        );
    }
    builder.finish()
}

/// The batch as the parameters of `appendBatch`.
pub(crate) fn array(batch: &Batch) -> Bytes {
    let mut out = Vec::with_capacity(batch.bytes() + 16);
    avro::write_length(&mut out, batch.len());
    batch.runs().for_each(|run| out.extend_from_slice(run));
    out.push(0);
    out.into()
}

fn text(n: usize) -> String {
    let needle = if n.is_multiple_of(2) {
        NEEDLE
    } else {
        "temperature_normal"
    };
    let mut text = format!("reading {n} of line {}: ", n % 7);
    while text.len() < 150 {
        text.push_str("pressure 1.013 bar, flow 17 l/s, ");
    }
    text.truncate(150);
    text + needle + " valve open, pump at 1480 rpm."
}

fn json(n: usize) -> String {
    let level = ["debug", "info", "info", "warn"][n % 4];
    format!(
        r#"{{"level":"{level}","device":"press-{}","seq":{n},"temperature":{}.5,"pressure":1.013,"tags":["hall-3","line-{}"],"message":"cycle finished without remarks","operator":null,"ok":true}}"#,
        n % 50,
        20 + n % 15,
        n % 7
    )
}
