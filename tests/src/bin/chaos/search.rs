//! Seeds by the thousand, on all cores.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    kinds::Kind,
    summary::{self, Summary},
};

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) least: u64,
    /// The first seed; without it, the one after those that were saved.
    pub(crate) from: Option<u64>,
    /// Whether the totals are added to those that were saved.
    pub(crate) saves: bool,
}

/// Seeds between two looks at the goal, at most; what is saved is saved after each.
const BLOCK: u64 = 256;

/// How much of a finding is shown while others are looked for.
const SHOWN: usize = 300;

/// One seed, twice: it must do the same again. Whether nothing was found.
pub(crate) fn replay<K: Kind>(kind: &K, seed: u64) -> bool {
    let outcome = kind.tell(seed);
    println!("{}", summary::table(&outcome.totals));
    match &outcome.finding {
        Some(finding) => println!("seed {seed}: {finding}"),
        None => println!("seed {seed}: nothing was found"),
    }
    let again = kind.run(seed);
    if (outcome.trace, &outcome.totals) != (again.trace, &again.totals) {
        println!("seed {seed} did something else the second time: that is a bug of the simulation");
        return false;
    }
    outcome.finding.is_none()
}

/// Runs seeds until the goal is reached. Whether nothing was found.
pub(crate) fn search<K: Kind>(kind: &K, goal: Goal) -> Result<bool> {
    let mut summary = Summary::read()?;
    let known = kind.account(&mut summary).next;
    let mut next = goal.from.unwrap_or(known);
    if goal.saves && next < known {
        bail!("the seeds below {known} are counted already: leave out `--from`, or `--save`");
    }
    if goal.saves && next > known {
        bail!("the seeds from {known} on are not counted yet: leave out `--from`, or `--save`");
    }
    let bar = ProgressBar::new(goal.least).with_style(style(K::UNIT));
    let start = Instant::now();
    let mut totals = K::Totals::default();
    while K::done(&totals) < goal.least {
        let left = goal.least - K::done(&totals);
        let seeds = BLOCK.min(left.div_ceil(K::PER_SEED));
        let block = run_block(kind, next..next + seeds, &bar);
        next += seeds;
        K::add(&mut totals, &block);
        if goal.saves {
            let account = kind.account(&mut summary);
            K::add(&mut account.totals, &block);
            account.next = next;
            summary.write()?;
        }
    }
    bar.finish_and_clear();
    println!("{}", summary::table(&totals));
    let pace = pace(K::done(&totals), start.elapsed(), K::UNIT);
    println!("seeds up to {}, {pace}", next - 1);
    Ok(K::findings(&totals) == 0)
}

/// Runs a block of seeds on all cores.
fn run_block<K: Kind>(kind: &K, seeds: std::ops::Range<u64>, bar: &ProgressBar) -> K::Totals {
    let totals = Mutex::new(K::Totals::default());
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = kind.run(seed);
            bar.inc(K::done(&outcome.totals));
            if let Some(finding) = &outcome.finding {
                let shown: String = finding.chars().take(SHOWN).collect();
                let replay = kind.replay(seed);
                bar.suspend(|| println!("seed {seed}: {shown}\n  {replay}"));
            }
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            K::add(&mut totals, &outcome.totals);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn style(unit: &str) -> ProgressStyle {
    let template = format!(
        "  {{bar:44.cyan/238}} {{human_pos:>7}} of {{human_len}} {unit}  {{per_sec}}  {{eta}}"
    );
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━╌")
}

fn pace(done: u64, took: Duration, unit: &str) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = done as f64 / seconds;
    format!("{rate:.1} {unit} a second for {seconds:.1} s")
}
