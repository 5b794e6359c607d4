//! A1: from a frame's bytes to a batch, against a generic Avro decoder.

use std::{hint::black_box, time::Instant};

use anyhow::{Context, Result};
use apache_avro::{Schema, reader::datum::GenericDatumReader};
use levada_core::{Batch, Limits};
use levada_rpc::{
    Meta, Method,
    call::CallHead,
    codec,
    frame::{self, Decoder},
    message::Reader,
};

use crate::{
    harness::{Bench, rate},
    load::{self, Body},
    report::{Report, Target},
};

const EVENTS: usize = 1000;

/// The parameters of `appendBatch`.
const SCHEMA: &str = r#"{"type":"array","items":{"type":"record","name":"AvroFlumeEvent","fields":[
    {"name":"headers","type":{"type":"map","values":"string"}},{"name":"body","type":"bytes"}]}}"#;

/// The frame of one `appendBatch` on a connection that has made its handshake.
fn framed(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_head(&mut out, 7, 1);
    frame::write_buffer(&mut out, |out| {
        CallHead::write(out, &Meta::new(), Method::AppendBatch);
        codec::write_events(out, Method::AppendBatch, batch);
    });
    out
}

/// What the source does with a frame before the put.
fn receive(mut frame: &[u8], limits: &Limits) -> Result<usize> {
    let mut decoder = Decoder::new(16 << 20);
    let frame = decoder.decode(&mut frame)?.context("a whole frame")?;
    let head = CallHead::read(&mut Reader::new(&frame.message, 0))?;
    let method = head.method.ok().context("a known method")?;
    let checked = codec::read_events(frame.message.clone(), head.params_at, method, limits)?;
    Ok(black_box(checked.batch).len())
}

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let batch = load::batch(EVENTS, Body::Text);
    let frame = framed(&batch);
    let array = load::array(&batch);
    let schema = Schema::parse_str(SCHEMA).context("the schema of the protocol")?;
    let reader = GenericDatumReader::builder(&schema).build()?;
    let limits = Limits::default();
    let samples = bench.interleave(
        "codec",
        &mut [
            ("receive", &mut || {
                let begin = Instant::now();
                for _ in 0..1000 {
                    anyhow::ensure!(
                        receive(&frame, &limits)? == EVENTS,
                        "every event is received"
                    );
                }
                Ok(rate(1000 * EVENTS as u64, begin.elapsed()))
            }),
            ("apache-avro", &mut || {
                let begin = Instant::now();
                for _ in 0..40 {
                    black_box(reader.read_value(&mut &array[..])?);
                }
                Ok(rate(40 * EVENTS as u64, begin.elapsed()))
            }),
        ],
    )?;
    let yardstick = ("apache-avro", &samples[1]);
    let what = "receiving: frame to batch, batch 1000";
    report.against(
        "A1",
        what,
        "ev/s",
        &samples[0],
        yardstick,
        Target::RatioAtLeast(15.0),
    );
    report.figure(
        "A1",
        "the same per event",
        "ns",
        &samples[0].map(|rate| 1e9 / rate),
    );
    Ok(())
}
