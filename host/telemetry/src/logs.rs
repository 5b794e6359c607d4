//! Log set-up: text for people, JSON for programs, both on standard error.
//!
//! Log lines carry text from peers, events and guests. None of it reaches the terminal raw: control
//! characters and those that reorder text are escaped, so nothing can forge a line, move the cursor
//! or hide what was written.

mod escape;

use std::io::{self, IsTerminal};

use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt,
    fmt::{self, format},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use escape::{EscapedJson, escaped};

levada_core::choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

/// What to log and how.
#[derive(Debug, Clone)]
pub struct LogSetup {
    pub format: LogFormat,
    /// As in `RUST_LOG`: `info`, `levada_store=debug,info`.
    pub filter: String,
}

/// Installs the process's logger. A second call changes nothing.
///
/// # Errors
/// The text of what is wrong with the filter.
pub fn init_logs(setup: &LogSetup) -> Result<(), String> {
    let filter = EnvFilter::try_new(&setup.filter)
        .map_err(|error| format!("`{}` is no log filter: {error}", setup.filter))?;
    let colours = if io::stderr().is_terminal() {
        Colours::On
    } else {
        Colours::Off
    };
    let layer = layer(setup.format, colours, io::stderr);
    // The only error is that a logger is there already.
    let _installed = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .is_ok();
    Ok(())
}

/// Whether lines for people are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

/// What formats and writes each line; a line is one write.
fn layer<S, W>(
    lines: LogFormat,
    colours: Colours,
    out: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: io::Write + 'static,
{
    match lines {
        LogFormat::Human => fmt::layer()
            .with_writer(out)
            .with_ansi(colours == Colours::On)
            .with_target(false)
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .with_span_list(false)
            .with_writer(move || EscapedJson(out()))
            .boxed(),
    }
}

/// The message as it is, any other field as `name=value`.
fn write_field(
    out: &mut format::Writer<'_>,
    field: &Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    if field.name() != "message" {
        write!(out, "{}=", field.name())?;
    }
    write!(out, "{}", escaped(value))
}

#[cfg(test)]
mod tests;
