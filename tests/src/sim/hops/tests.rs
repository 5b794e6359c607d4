//! Seeds that every change must pass, and the controls that show they can see.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Finding, HopTotals, Kind, Plan, Plant, Report, in_simulated_time, run,
    world::{RELAYS, World},
};
use crate::sim::disk::{EIO, Fault, On};

/// How many seeds there are in every test run.
const SEEDS: u64 = 300;

/// Runs seeds on all cores, and gives what they came to in any order.
fn run_all(seeds: std::ops::Range<u64>, plan: &Plan) -> Vec<Report> {
    let reports = Mutex::new(Vec::new());
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let report = run(seed, plan);
            reports.lock().unwrap().push(report);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    reports.into_inner().unwrap()
}

fn described(report: &Report) -> Option<String> {
    let finding = report.finding.as_ref()?;
    let seed = report.seed;
    Some(format!(
        "{finding}\nreplay: cargo x chaos --hop-seed {seed}"
    ))
}

#[test]
fn three_hundred_seeds_of_a_lying_network_lose_nothing_and_repeat_nothing() {
    let reports = run_all(0..SEEDS, &Plan::default());
    let findings: Vec<_> = reports.iter().filter_map(described).collect();
    assert!(findings.is_empty(), "{findings:#?}");
    let mut totals = HopTotals::default();
    reports.iter().for_each(|report| totals.add(&report.totals));
    println!("{totals:#?}");
    // It was what it says.
    assert_eq!(totals.seeds, SEEDS);
    let kinds = [totals.plaintext, totals.restored, totals.receivers];
    assert!(
        totals.exact > 150 && kinds.iter().all(|of| *of > 15),
        "{totals:?}"
    );
    assert!(totals.virtual_seconds > 300 * 3600, "{totals:?}");
    let machines = [
        totals.cuts,
        totals.kills,
        totals.restores,
        totals.cuts_in_recovery,
    ];
    assert!(machines.iter().all(|count| *count > 50), "{totals:?}");
    let links = [
        totals.partitions,
        totals.one_way,
        totals.resets,
        totals.hangs,
        totals.replays,
    ];
    assert!(links.iter().all(|count| *count > 300), "{totals:?}");
    assert!(
        totals.acked > 50_000 && totals.delivered >= totals.acked - totals.gone_with_a_store,
        "{totals:?}"
    );
}

#[test]
fn a_seed_of_hops_does_the_same_again() {
    let seeds = 0..12;
    for seed in seeds {
        let plan = Plan::default();
        assert_eq!(run(seed, &plan), run(seed, &plan), "seed {seed}");
    }
}

/// What is found in forty seeds with something wrong.
fn found(kind: Kind, plant: Plant) -> Vec<Finding> {
    let plan = Plan {
        kind: Some(kind),
        plant,
        ..Plan::default()
    };
    let reports = run_all(0..40, &plan);
    reports
        .into_iter()
        .filter_map(|report| report.finding)
        .collect()
}

fn are_losses(found: &[Finding]) -> bool {
    found
        .iter()
        .all(|finding| matches!(finding, Finding::Lost(_)))
}

#[test]
fn a_receiver_that_acknowledges_before_its_commit_is_found_out() {
    let found = found(Kind::Exact, Plant::EarlyAck);
    assert!(found.len() >= 10 && are_losses(&found), "{found:?}");
}

#[test]
fn a_receiver_that_writes_a_mark_over_another_is_found_out() {
    let found = found(Kind::Exact, Plant::AnyMark);
    assert!(found.len() >= 4, "{found:?}");
}

/// It shows seldom: a batch must arrive in the moment after those before it have failed.
#[test]
fn a_receiver_that_does_not_look_at_prev_is_found_out() {
    let found = found(Kind::Exact, Plant::NoPrev);
    assert!(!found.is_empty() && are_losses(&found), "{found:?}");
}

#[test]
fn a_sender_that_takes_any_mark_for_its_own_is_found_out() {
    let found = found(Kind::Restored, Plant::NoGuard);
    assert!(found.len() >= 4, "{found:?}");
}

/// A commit of the relay fails twice within a minute, so that the store gives up and whoever waits
/// hears an error. The commit may be on the disk for all that. Gives how many events the relay then
/// had when they were sent again.
async fn fail_twice(world: &mut World) -> Result<u64, Finding> {
    world.begin().await?;
    world.around.net.heal();
    let relay = world.at(RELAYS[0]).expect("there is a relay");
    for _ in 0..2 {
        world.agents[relay].disk.plan(Fault {
            after: 0,
            on: On::Sync,
            errno: EIO,
            sticky: false,
        });
        while !world.agents[relay].disk.take_failed() {
            for edge in 0..world.agents.len() {
                world.around.book.allow(world.agents[edge].host, 1);
            }
            world.pass(Duration::from_millis(300)).await?;
        }
    }
    world.pass(Duration::from_secs(120)).await?;
    let known = world.agents.iter().map(|agent| {
        agent.metric("levada_hop_known_events_total")
            + agent.metric("levada_hop_repeated_events_total")
    });
    let known = known.sum();
    world.end().await?;
    Ok(known)
}

#[test]
fn a_commit_that_reported_an_error_and_is_on_the_disk_is_not_stored_again() {
    let plan = Plan {
        kind: Some(Kind::Exact),
        ..Plan::default()
    };
    let mut were_there = 0;
    for seed in 0..40 {
        let known = in_simulated_time(async {
            let mut world = World::new(seed, plan);
            fail_twice(&mut world).await
        });
        let known = known.unwrap_or_else(|finding| unreachable!("seed {seed}: {finding}"));
        were_there += u64::from(known > 0);
    }
    assert!(
        were_there > 3,
        "in {were_there} of 40 the commit was on the disk"
    );
}
