//! Power cuts that every change must pass, and the controls that show they can see.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{Faults, Finding, Honesty, Plan, Plant, Report, Totals, run};

/// How many cuts there are in every test run.
const CUTS: u64 = 3000;

#[test]
fn three_thousand_power_cuts_lose_nothing_that_was_acknowledged() {
    let totals = search(&Plan::default(), |totals| totals.cuts < CUTS);
    // It was what it says.
    assert!(totals.cuts_in_recovery * 5 > totals.cuts, "{totals:?}");
    assert!(
        totals.kills > 100 && totals.in_flight_kept > 50,
        "{totals:?}"
    );
    assert!(
        totals.put > 100_000 && totals.settled > 50_000,
        "{totals:?}"
    );
}

/// Runs seeds on all cores while there is more to do; none may find anything.
fn search(plan: &Plan, more: impl Fn(&Totals) -> bool + Sync) -> Totals {
    let totals = Mutex::new(Totals::default());
    let findings = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    let work = || {
        while more(&totals.lock().unwrap()) {
            let report = run(next.fetch_add(1, Ordering::Relaxed), plan);
            totals.lock().unwrap().add(&report.totals);
            findings.lock().unwrap().extend(described(&report, plan));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let findings = findings.into_inner().unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
    totals.into_inner().unwrap()
}

fn described(report: &Report, plan: &Plan) -> Option<String> {
    let finding = report.finding.as_ref()?;
    let seed = report.seed;
    let faults = match plan.faults {
        Faults::None => "",
        Faults::Planned => " --faults",
    };
    Some(format!(
        "{finding}\nreplay: cargo x chaos --seed {seed}{faults}"
    ))
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..8 {
        assert_eq!(run(seed, &Plan::default()), run(seed, &Plan::default()));
    }
}

/// The findings of forty seeds with something wrong.
fn findings(plan: Plan) -> Vec<Finding> {
    let reports = (0..40).map(|seed| run(seed, &plan));
    reports.filter_map(|report| report.finding).collect()
}

#[test]
fn a_disk_that_acknowledges_a_sync_without_writing_is_found_out() {
    let found = findings(Plan {
        honesty: Honesty::Lies,
        ..Plan::default()
    });
    assert!(found.len() >= 36, "{} of 40: {found:?}", found.len());
    // What it loses is lost: no bytes are passed off as an event.
    let wrong = |finding: &Finding| matches!(finding, Finding::Wrong(_) | Finding::Panicked(_));
    assert_eq!(found.iter().find(|finding| wrong(finding)), None);
}

#[test]
fn an_acknowledgement_before_the_commit_is_found_out() {
    let found = findings(Plan {
        plant: Plant::EarlyAck,
        ..Plan::default()
    });
    assert!(found.len() >= 36, "{} of 40: {found:?}", found.len());
    let lost = |finding: &Finding| matches!(finding, Finding::Lost(_));
    assert!(found.iter().all(lost), "{found:?}");
}

/// A store that failed over an unsynced write, and the process that was started after it, once
/// took for written what the system's cache alone had (seeds 75 and 97).
#[test]
fn errors_of_the_disk_lose_nothing_and_nobody_is_told_wrong() {
    let plan = Plan {
        faults: Faults::Planned,
        ..Plan::default()
    };
    let totals = search(&plan, |totals| totals.seeds < 300);
    assert!(totals.faults > 300 && totals.cuts > 300, "{totals:?}");
}
