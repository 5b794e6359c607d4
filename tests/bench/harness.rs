//! Interleaved rounds: every candidate once a round, so that what the machine does to one it does
//! to all.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

/// What all groups share.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) rounds: usize,
    /// A folder on the disk that is measured; gone at the end.
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new(rounds: usize, dir: Option<&Path>) -> Result<Self> {
        let here = levada_tests::place::root().join("target");
        let below = dir.unwrap_or(&here);
        let dir = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(below)
            .with_context(|| format!("cannot make a folder in `{}`", below.display()))?;
        Ok(Self {
            rounds: rounds.max(1),
            dir,
        })
    }

    /// Runs every candidate once a round; the figures of each, in the order of the candidates.
    pub(crate) fn interleave(
        &self,
        title: &str,
        candidates: &mut [(&str, &mut dyn FnMut() -> Result<f64>)],
    ) -> Result<Vec<Samples>> {
        let steps = self.rounds * candidates.len();
        let bar = ProgressBar::new(steps as u64).with_style(style());
        let mut figures = vec![Vec::with_capacity(self.rounds); candidates.len()];
        for _ in 0..self.rounds {
            for (place, (name, run)) in candidates.iter_mut().enumerate() {
                bar.set_message(format!("{title}: {name}"));
                let figure = run().with_context(|| format!("{title}: {name}"))?;
                figures[place].push(figure);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(figures.into_iter().map(Samples).collect())
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The figures of one candidate, one a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn one(figure: f64) -> Self {
        Self(vec![figure])
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted.remove(middle - 1), sorted[middle - 1]),
        }
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (
            sorted.first().copied().unwrap_or(f64::NAN),
            sorted.last().copied().unwrap_or(f64::NAN),
        )
    }

    /// Round by round, this over the other.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|figure| change(*figure)).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// A percentile of durations, in microseconds.
pub(crate) fn percentile_us(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times
        .get(place)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// Events a second.
pub(crate) fn rate(events: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let events = events as f64;
    events / took.as_secs_f64()
}
