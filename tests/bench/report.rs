//! The table that is printed, and the file that is kept.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use levada_tests::place;
use serde::{Deserialize, Serialize};

use crate::{harness::Samples, machine};

/// All rows of a run.
#[derive(Debug)]
pub(crate) struct Report {
    machine: String,
    load_before: f64,
    rows: Vec<Row>,
}

/// One figure beside its yardstick.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The row of the performance plan, or what a limit is called.
    id: String,
    what: String,
    unit: String,
    figure: f64,
    range: (f64, f64),
    yardstick: Option<Yardstick>,
    target: Option<Judged>,
    /// Load average of the last minute when the row was measured.
    load: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Yardstick {
    what: String,
    figure: f64,
    ratio: f64,
    ratio_range: (f64, f64),
}

/// A target and whether it is met.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Judged {
    text: String,
    met: bool,
}

/// What a row must show.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
}

/// The saved form.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    machine: String,
    load_before: f64,
    load_after: f64,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn begin() -> Result<Self> {
        let report = Self {
            machine: machine::describe(),
            load_before: machine::load_average(),
            rows: Vec::new(),
        };
        say(&format!(
            "{}; load average {:.2}",
            report.machine, report.load_before
        ));
        if cfg!(debug_assertions) {
            say("note: built without optimisation; use `cargo x bench`");
        }
        Ok(report)
    }

    /// A figure that stands alone.
    pub(crate) fn figure(&mut self, id: &str, what: &str, unit: &str, figure: &Samples) {
        self.push(id, what, unit, figure, None, None);
    }

    /// A figure with a target of its own.
    pub(crate) fn judged(
        &mut self,
        id: &str,
        what: &str,
        unit: &str,
        figure: &Samples,
        target: Target,
    ) {
        self.push(id, what, unit, figure, None, Some(target));
    }

    /// A figure against a yardstick of the same run.
    pub(crate) fn against(
        &mut self,
        id: &str,
        what: &str,
        unit: &str,
        figure: &Samples,
        yardstick: (&str, &Samples),
        target: Target,
    ) {
        self.push(id, what, unit, figure, Some(yardstick), Some(target));
    }

    /// A figure beside a yardstick of the same run, without a target.
    pub(crate) fn beside(
        &mut self,
        id: &str,
        what: &str,
        unit: &str,
        figure: &Samples,
        yardstick: (&str, &Samples),
    ) {
        self.push(id, what, unit, figure, Some(yardstick), None);
    }

    fn push(
        &mut self,
        id: &str,
        what: &str,
        unit: &str,
        figure: &Samples,
        yardstick: Option<(&str, &Samples)>,
        target: Option<Target>,
    ) {
        let yardstick = yardstick.map(|(what, samples)| {
            let ratio = figure.over(samples);
            Yardstick {
                what: what.into(),
                figure: samples.median(),
                ratio: ratio.median(),
                ratio_range: ratio.range(),
            }
        });
        let ratio = yardstick
            .as_ref()
            .map_or(f64::NAN, |yardstick| yardstick.ratio);
        let median = figure.median();
        let target = target.map(|target| match target {
            Target::RatioAtLeast(least) => judged(format!("ratio >= {least}"), ratio >= least),
            Target::RatioAtMost(most) => judged(format!("ratio <= {most}"), ratio <= most),
            Target::AtLeast(least) => judged(format!(">= {}", short(least)), median >= least),
            Target::AtMost(most) => judged(format!("<= {}", short(most)), median <= most),
        });
        let row = Row {
            id: id.into(),
            what: what.into(),
            unit: unit.into(),
            figure: median,
            range: figure.range(),
            yardstick,
            target,
            load: machine::load_average(),
        };
        say(&row.line());
        self.rows.push(row);
    }

    /// Prints what was missed, and the difference to what was saved; saves.
    pub(crate) fn end(self, name: Option<&str>) -> Result<()> {
        let missed = |row: &&Row| row.target.as_ref().is_some_and(|target| !target.met);
        let missed: Vec<_> = self
            .rows
            .iter()
            .filter(missed)
            .map(|row| row.id.as_str())
            .collect();
        let judged = self.rows.iter().filter(|row| row.target.is_some()).count();
        say(&format!(
            "{} of {judged} targets met{}{}; load average {:.2}",
            judged - missed.len(),
            if missed.is_empty() { "" } else { ", missed: " },
            missed.join(", "),
            machine::load_average()
        ));
        let Some(name) = name else { return Ok(()) };
        let path = place::root()
            .join("tests/bench/results")
            .join(format!("{name}.json"));
        if let Ok(text) = fs::read_to_string(&path) {
            let before: Saved = serde_json::from_str(&text)
                .with_context(|| format!("`{}` holds no results", path.display()))?;
            self.compare(&before);
        }
        let saved = Saved {
            machine: self.machine,
            load_before: self.load_before,
            load_after: machine::load_average(),
            rows: self.rows,
        };
        let text = serde_json::to_string_pretty(&saved)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        say(&format!("saved as {}", path.display()));
        Ok(())
    }

    fn compare(&self, before: &Saved) {
        let key = |row: &Row| (row.id.clone(), row.what.clone());
        let old: BTreeMap<_, _> = before.rows.iter().map(|row| (key(row), row)).collect();
        say(&format!(
            "against the saved run (load average {:.2}):",
            before.load_before
        ));
        for row in &self.rows {
            if let Some(old) = old.get(&key(row)) {
                let (what, now, then) = match (&row.yardstick, &old.yardstick) {
                    (Some(now), Some(then)) => ("ratio", now.ratio, then.ratio),
                    _ => ("figure", row.figure, old.figure),
                };
                let change = (now / then - 1.0) * 100.0;
                say(&format!(
                    "  {:4} {:48} {what} {change:+6.1} %",
                    row.id, row.what
                ));
            }
        }
    }
}

impl Row {
    fn line(&self) -> String {
        let mut line = format!(
            "{:4} {:48} {:>9} {:7} [{} .. {}]",
            self.id,
            self.what,
            short(self.figure),
            self.unit,
            short(self.range.0),
            short(self.range.1)
        );
        if let Some(yardstick) = &self.yardstick {
            line += &format!(
                "  {:.2}x of {} {} [{:.2} .. {:.2}]",
                yardstick.ratio,
                yardstick.what,
                short(yardstick.figure),
                yardstick.ratio_range.0,
                yardstick.ratio_range.1
            );
        }
        if let Some(target) = &self.target {
            line += &format!(
                "  {} {}",
                if target.met { "ok:" } else { "MISSED:" },
                target.text
            );
        }
        line
    }
}

fn judged(text: String, met: bool) -> Judged {
    Judged { text, met }
}

/// Three digits that count, with k and M.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        size if size >= 1e4 => format!("{:.1}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    #[expect(clippy::print_stdout, reason = "a program that prints a table")]
    {
        println!("{line}");
    }
}
