//! What is seen while it runs.

use std::{
    io::{self, IsTerminal},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use levada_tests::{load::Load, outputs::Watch};

use crate::report::thousands;

/// Two bars: what was acknowledged to the producers, and what lies in the output files.
pub(crate) struct Show {
    bars: MultiProgress,
    produced: ProgressBar,
    delivered: ProgressBar,
    watch: Mutex<Watch>,
    on_terminal: bool,
}

impl Show {
    /// Bars for so many events; drawn only on a terminal. `output` is the folder
    /// of output files.
    pub(crate) fn new(total: u64, output: &Path) -> Self {
        let bars = MultiProgress::new();
        let bar = |name: &'static str, color: &str| {
            let template = format!(
                "  {{prefix:9}} {{bar:44.{color}/238}} {{human_pos:>7}} of {{human_len}}  {{msg}}"
            );
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━━╌");
            bars.add(ProgressBar::new(total).with_style(style).with_prefix(name))
        };
        let (produced, delivered) = (bar("produced", "cyan"), bar("delivered", "green"));
        let on_terminal = io::stderr().is_terminal();
        Self {
            bars,
            produced,
            delivered,
            watch: Mutex::new(Watch::new(output)),
            on_terminal,
        }
    }

    /// Moves the bars; gives the number of lines in the output files.
    pub(crate) fn update(&self, load: &Load) -> Result<u64> {
        self.produced.set_position(load.acknowledged());
        let delivered = self
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines()?;
        self.delivered.set_position(delivered.min(load.total()));
        Ok(delivered)
    }

    /// Says that an agent was killed and runs again.
    pub(crate) fn killed(&self, name: &str, at: u64, took: Duration) {
        let (at, ms) = (thousands(at), took.as_millis());
        self.say(format!(
            "  kill -9   {name:<10} after {at:>7} events, ready again in {ms} ms"
        ));
    }

    /// Says that the cable above an agent was cut after so many events.
    pub(crate) fn cut(&self, (name, at): (&str, u64), took: Duration) {
        let (at, s) = (thousands(at), took.as_secs());
        self.say(format!(
            "  cut       {name:<10} after {at:>7} events: nothing passed above it for {s} s"
        ));
    }

    fn say(&self, line: String) {
        if self.on_terminal {
            // A line that cannot be shown is no reason to stop.
            self.bars.println(line).ok();
        } else {
            println!("{line}");
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(&self) {
        self.produced.abandon();
        self.delivered.abandon();
        if self.on_terminal {
            println!();
        }
    }
}
