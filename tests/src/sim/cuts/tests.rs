//! Power cuts that every change must pass, and the controls that show they can see.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{Finding, Honesty, Plan, Plant, Report, Totals, run};

/// How many cuts there are in every test run.
const CUTS: u64 = 3000;

#[test]
fn three_thousand_power_cuts_lose_nothing_that_was_acknowledged() {
    let totals = Mutex::new(Totals::default());
    let findings = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    let work = || {
        while totals.lock().unwrap().cuts < CUTS {
            let report = run(next.fetch_add(1, Ordering::Relaxed), &Plan::default());
            totals.lock().unwrap().add(&report.totals);
            findings.lock().unwrap().extend(described(&report));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (totals, findings) = (totals.into_inner().unwrap(), findings.into_inner().unwrap());
    assert!(findings.is_empty(), "{findings:#?}");
    // It was what it says.
    assert!(totals.cuts_in_recovery * 6 > totals.cuts, "{totals:?}");
    assert!(
        totals.kills > 100 && totals.in_flight_kept > 100,
        "{totals:?}"
    );
    assert!(
        totals.put > 100_000 && totals.settled > 50_000,
        "{totals:?}"
    );
}

fn described(report: &Report) -> Option<String> {
    let finding = report.finding.as_ref()?;
    let seed = report.seed;
    Some(format!(
        "{finding}\nreplay: cargo x chaos --cuts 1 --seed {seed}"
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
