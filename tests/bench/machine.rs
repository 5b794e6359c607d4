//! What is read from the machine: load, memory and processor time of a process.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// The load average of the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(f64::NAN)
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("cannot read the memory of process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kib: f64 = kib
        .and_then(|kib| kib.parse().ok())
        .context("no VmRSS in the status")?;
    Ok(kib / 1024.0)
}

/// Processor time that a process has used, user and system.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("cannot read the times of process {pid}"))?;
    // The name, in parentheses, may hold anything; the numbers follow it.
    let rest = text.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| {
        rest.split_whitespace()
            .nth(at)
            .and_then(|word| word.parse::<u64>().ok())
    };
    let (user, system) = ticks(11).zip(ticks(12)).context("no times in the status")?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis((user + system) * 1000 / per_second))
}

/// Lets a process and all its threads run on the first core only.
pub(crate) fn pin_to_one_core(pid: u32) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(0);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("cannot list its threads")?;
    for task in tasks {
        let name = task?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok());
        let Some(id) = id.and_then(rustix::process::Pid::from_raw) else {
            continue;
        };
        // A thread that has ended meanwhile needs no pinning.
        let _gone = rustix::thread::sched_setaffinity(Some(id), &set).is_err();
    }
    Ok(())
}

/// What this machine is: processor, kernel, file system's kind unknown.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| {
        rest.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}
