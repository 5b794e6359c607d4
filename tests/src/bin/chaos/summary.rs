//! What all runs so far have added up to.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use levada_tests::{
    place,
    sim::totals::{FlipTotals, HopTotals, Totals},
};
use serde::{Deserialize, Serialize};

/// The file of the saved totals.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Summary {
    /// Losses of power alone.
    pub(crate) cuts: Account<Totals>,
    /// Errors of the disk beside them.
    pub(crate) faults: Account<Totals>,
    /// Three tiers over a network that lies.
    pub(crate) hops: Account<HopTotals>,
    /// Bits that change in a closed file.
    pub(crate) flips: Account<FlipTotals>,
}

/// One kind of simulation.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Account<T> {
    /// The first seed that was not run yet.
    pub(crate) next: u64,
    pub(crate) totals: T,
}

impl Summary {
    /// What was saved; nothing if there is no file.
    pub(crate) fn read() -> Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let wrong = || format!("`{}` is no summary: move it away", path.display());
        serde_json::from_slice(&text).with_context(wrong)
    }

    pub(crate) fn write(&self) -> Result<()> {
        let path = path();
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }
}

fn path() -> PathBuf {
    place::root().join("tests/bench/results/chaos.json")
}

/// Totals as lines for people.
pub(crate) fn table(totals: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(counts)) = serde_json::to_value(totals) else {
        return String::new();
    };
    let lines: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("  {:<20} {count:>12}", name.replace('-', " ")))
        .collect();
    lines.join("\n")
}
