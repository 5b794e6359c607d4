//! F1 to F3: how soon it is there, how large it is, and what it takes while nothing happens.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use levada_tests::place;

use crate::{
    harness::{Bench, Samples},
    hop::{self, Hop},
    machine,
    report::{Report, Target},
};

/// The rows of this group.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut round = 0;
    let samples = bench.interleave(
        "idle",
        &mut [("start", &mut || {
            round += 1;
            Ok(hop::first_ack(bench, &runtime, round)?.as_secs_f64() * 1e3)
        })],
    )?;
    let what = "exec to first event handled and acked, precompiled";
    report.judged("F1", what, "ms", &samples[0], Target::AtMost(30.0));

    let stripped = bench.dir.path().join("levada-stripped");
    let mut strip = Command::new("strip");
    strip
        .arg("-s")
        .arg("-o")
        .arg(&stripped)
        .arg(place::levada()?);
    let status = strip
        .status()
        .context("cannot start `strip`, which comes with the C compiler")?;
    ensure!(status.success(), "`strip` failed");
    let size = Samples::one(fs::metadata(&stripped)?.len() as f64 / 1e6);
    report.judged(
        "F2",
        "stripped binary, default build",
        "MB",
        &size,
        Target::AtMost(25.0),
    );

    let hop = Hop::start(bench, &runtime, ("idle", "durable", Some("noop")))?;
    // What the start needed is given back within moments; this is no condition to wait for.
    thread::sleep(Duration::from_secs(3));
    let (before, resident) = (
        machine::processor_time(hop.pid)?,
        machine::resident_mib(hop.pid)?,
    );
    thread::sleep(Duration::from_secs(5));
    let used = machine::processor_time(hop.pid)?.saturating_sub(before);
    let what = "resident memory, idle, one handler";
    report.judged(
        "F3",
        what,
        "MiB",
        &Samples::one(resident),
        Target::AtMost(15.0),
    );
    let percent = Samples::one(used.as_secs_f64() / 5.0 * 100.0);
    report.figure("F3", "processor while idle", "%", &percent);
    Ok(())
}
