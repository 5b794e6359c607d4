//! Runs the simulations for as long as one wants: losses of power under the store.
//!
//! A seed that finds something is printed with the command that replays it. With `--save` the
//! totals are added to those of earlier runs, and the next run goes on with the seeds after them.
#![expect(clippy::print_stdout, reason = "the report is its purpose")]

mod summary;

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use levada_tests::sim::{
    cuts::{self, Faults, Plan},
    totals::Totals,
};
use summary::Summary;

/// Looks for what a disk that lies can do to the store.
#[derive(Debug, Parser)]
#[command(name = "chaos", bin_name = "cargo x chaos", max_term_width = 100)]
struct Arguments {
    /// At least so many losses of power.
    #[arg(long, default_value_t = 3000)]
    cuts: u64,
    /// Lets operations of the disk fail, too: errors of the device and lacks of space.
    #[arg(long)]
    faults: bool,
    /// Runs this seed alone, and shows all that was found.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed; without it, the one after those that were saved.
    #[arg(long)]
    from: Option<u64>,
    /// Adds what was done to `tests/bench/results/chaos.json`.
    #[arg(long)]
    save: bool,
}

impl Arguments {
    fn plan(&self) -> Plan {
        let faults = if self.faults {
            Faults::Planned
        } else {
            Faults::None
        };
        Plan {
            faults,
            ..Plan::default()
        }
    }
}

/// Seeds between two looks at the goal; what is saved is saved after each.
const BLOCK: u64 = 256;

/// How much of a finding is shown while others are looked for.
const SHOWN: usize = 300;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let clean = match arguments.seed {
        Some(seed) => replay(seed, &arguments.plan()),
        None => search(&arguments)?,
    };
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One seed, twice: it must do the same again.
fn replay(seed: u64, plan: &Plan) -> bool {
    let report = cuts::run(seed, plan);
    println!("{}", summary::table(&report.totals));
    if report != cuts::run(seed, plan) {
        println!("seed {seed} did something else the second time: that is a bug of the simulation");
        return false;
    }
    match report.finding {
        Some(finding) => {
            println!("seed {seed}: {finding}");
            false
        }
        None => true,
    }
}

fn search(arguments: &Arguments) -> Result<bool> {
    let plan = arguments.plan();
    let mut summary = Summary::read()?;
    let known = summary.account(&plan).next;
    let mut next = arguments.from.unwrap_or(known);
    if arguments.save && next < known {
        bail!("the seeds below {known} are counted already: leave out `--from`, or `--save`");
    }
    if arguments.save && next > known {
        bail!("the seeds from {known} on are not counted yet: leave out `--from`, or `--save`");
    }
    let bar = ProgressBar::new(arguments.cuts).with_style(style());
    let start = Instant::now();
    let mut totals = Totals::default();
    while totals.cuts < arguments.cuts {
        let block = run_block(next, &plan, &bar);
        next += BLOCK;
        totals.add(&block);
        if arguments.save {
            let account = summary.account(&plan);
            account.totals.add(&block);
            account.next = next;
            summary.write()?;
        }
    }
    bar.finish_and_clear();
    println!("{}", summary::table(&totals));
    println!(
        "seeds up to {}, {}",
        next - 1,
        pace(&totals, start.elapsed())
    );
    Ok(totals.findings == 0)
}

/// Runs a block of seeds on all cores.
fn run_block(first: u64, plan: &Plan, bar: &ProgressBar) -> Totals {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + BLOCK {
                return;
            }
            let report = cuts::run(seed, plan);
            bar.inc(report.totals.cuts);
            if let Some(finding) = &report.finding {
                let text = finding.to_string();
                let shown: String = text.chars().take(SHOWN).collect();
                let faults = match plan.faults {
                    Faults::None => "",
                    Faults::Planned => " --faults",
                };
                bar.suspend(|| {
                    println!("seed {seed}: {shown}\n  cargo x chaos --seed {seed}{faults}");
                });
            }
            totals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(&report.totals);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn style() -> ProgressStyle {
    let template = "  {bar:44.cyan/238} {human_pos:>7} of {human_len} cuts  {per_sec}  {eta}";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━╌")
}

fn pace(totals: &Totals, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = totals.cuts as f64 / seconds;
    format!("{rate:.0} cuts a second for {seconds:.1} s")
}
