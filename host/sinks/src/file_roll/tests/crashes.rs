//! The sink on a file system that dies at random steps, beside a store that does not.

use std::collections::BTreeMap;

use levada_core::{Incarnation, OriginId, Origins};
use proptest::prelude::*;

use super::{world::World, *};

/// A channel and its store: what is queued, and the marks, which change together.
struct Channel {
    next: u64,
    last: u64,
    marks: Marks,
    origins: bool,
}

impl Channel {
    fn lease(&self, most: u64) -> Batch {
        let end = self.last.min(self.next + most);
        let mut builder = BatchBuilder::default();
        for n in self.next..end {
            let body = format!("event {n:04} of several");
            builder.push([("h", if n % 3 == 0 { "a" } else { "b" })], body.as_bytes());
        }
        let batch = builder.finish();
        if !self.origins {
            return batch;
        }
        let id = |sequence| OriginId {
            incarnation: Incarnation([7; 16]),
            sequence,
            child: 0,
        };
        batch.with_origins(Origins::from_ids((self.next..end).map(id)))
    }

    /// The settlement of a lease of so many events.
    fn settle(&mut self, events: u64, writes: Vec<MarkWrite>) {
        self.next += events;
        self.marks = apply(&self.marks, writes);
    }
}

fn settings(roll_events: u64, roll_bytes: u64, max_open: usize) -> Arc<Settings> {
    Arc::new(Settings {
        folder: "/out".into(),
        pattern: Pattern::parse("d/%{h}", TimeZone::UTC, EventTime::Wall).unwrap(),
        format: Format::Text,
        ids: false,
        extension: "log".into(),
        sink: "files".into(),
        every: None,
        bytes: Some(roll_bytes),
        events: Some(roll_events),
        idle: Some(Duration::from_secs(60)),
        max_open,
    })
}

fn now(second: u64) -> Now {
    // The first `Instant` of a test is as good as any.
    thread_local!(static START: Instant = Instant::now());
    let start = START.with(|start| *start);
    Now {
        wall_ms: 1_000 + second * 1_000,
        instant: start + Duration::from_secs(second),
    }
}

/// What an outer hand does between two deliveries.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    /// The process dies after so many steps of the file system.
    Kill {
        steps: u64,
        power_cut: bool,
    },
    /// The process dies between the settlement and its confirmation.
    KillUnconfirmed,
    /// The settlement does not happen, and the sink lives on.
    Unsettled,
    /// The settlement happens, and the sink is not told.
    Untold,
    /// A step fails, as on a full disk.
    Fail {
        steps: u64,
    },
    /// Time goes by and the sink is ticked.
    Tick {
        told: bool,
    },
    /// The agent is stopped in order and started again.
    Restart,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        3 => Just(Trouble::None),
        6 => (0..40_u64, any::<bool>())
            .prop_map(|(steps, power_cut)| Trouble::Kill { steps, power_cut }),
        2 => Just(Trouble::KillUnconfirmed),
        2 => Just(Trouble::Unsettled),
        2 => Just(Trouble::Untold),
        3 => (0..30_u64).prop_map(|steps| Trouble::Fail { steps }),
        2 => any::<bool>().prop_map(|told| Trouble::Tick { told }),
        1 => Just(Trouble::Restart),
    ]
}

/// Opens until it works: a process that dies while it recovers is started again.
fn open(settings: &Arc<Settings>, world: &World, marks: &Marks, now: Now) -> Roller {
    Roller::open(Arc::clone(settings), Arc::new(world.clone()), marks, now)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

fn check(settings: &Arc<Settings>, troubles: &[Trouble], batch: u64, origins: bool, seed: u64) {
    let (world, chance) = (World::default(), Chance::seeded(seed));
    let mut channel = Channel {
        next: 0,
        last: 60,
        marks: Marks::default(),
        origins,
    };
    let mut second = 0;
    let mut roller = open(settings, &world, &channel.marks, now(0));
    let mut troubles = troubles.iter().copied();
    while channel.next < channel.last {
        second += 1;
        let trouble = troubles.next().unwrap_or(Trouble::None);
        let leased = channel.lease(batch);
        let events = leased.len() as u64;
        match trouble {
            Trouble::Kill { steps, .. } => world.die_after(steps),
            Trouble::Fail { steps } => world.fail_after(steps),
            Trouble::Tick { told } => {
                second += 100;
                if let Ok(writes) = roller.tick(now(second)) {
                    channel.settle(0, writes);
                    if told {
                        roller.confirm().unwrap();
                    }
                }
            }
            Trouble::Restart => {
                roller.close().unwrap();
                drop(roller);
                roller = open(settings, &world, &channel.marks, now(second));
            }
            _ => {}
        }
        let written = roller.write(&leased, now(second));
        match (trouble, written) {
            (Trouble::Unsettled, Ok(_)) | (_, Err(_)) => {}
            (Trouble::KillUnconfirmed, Ok(writes)) => {
                channel.settle(events, writes);
                world.die_after(0);
            }
            (Trouble::Untold, Ok(writes)) => channel.settle(events, writes),
            (_, Ok(writes)) => {
                channel.settle(events, writes);
                let _named = roller.confirm().is_ok();
            }
        }
        let power_cut = matches!(
            trouble,
            Trouble::Kill {
                power_cut: true,
                ..
            }
        );
        if world.is_dead() {
            drop(roller);
            world.revive(power_cut, &chance);
            // Sometimes the recovery is cut short, too.
            if chance.below(2) == 0 {
                world.die_after(chance.below(12));
                let again = Arc::new(world.clone());
                let _first = Roller::open(Arc::clone(settings), again, &channel.marks, now(second));
                world.revive(power_cut, &chance);
            }
            roller = open(settings, &world, &channel.marks, now(second));
        } else {
            world.revive(false, &chance);
        }
    }
    // Whatever is still staged is resolved by a start.
    drop(roller);
    let mut roller = open(settings, &world, &channel.marks, now(second));
    roller.close().unwrap();
    assert_exact(&world.texts(), channel.last);
}

/// Every event once, in order within its files, whole lines only, and nothing temporary left.
fn assert_exact(files: &BTreeMap<String, String>, last: u64) {
    let mut seen: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (name, text) in files.iter().filter(|(name, _)| !name.contains("/.levada-")) {
        assert!(name.ends_with(".log"), "{name} is left: {files:#?}");
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{name} is torn: {text:?}"
        );
        let bucket = name.rsplit_once('-').unwrap().0;
        for line in text.lines() {
            let number = line
                .strip_prefix("event ")
                .and_then(|rest| rest.strip_suffix(" of several"));
            let number = number.unwrap_or_else(|| panic!("{name} has the line {line:?}"));
            seen.entry(bucket)
                .or_default()
                .push(number.parse().unwrap());
        }
    }
    for (bucket, numbers) in &seen {
        assert!(numbers.is_sorted(), "{bucket}: {numbers:?}");
    }
    let mut all: Vec<_> = seen.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..last).collect::<Vec<_>>(), "{files:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_in_the_files_once_whatever_happens(
        troubles in prop::collection::vec(trouble(), 0..40),
        batch in 1..9_u64,
        roll_events in 1..12_u64,
        roll_bytes in 30..400_u64,
        max_open in 1..3_usize,
        origins in any::<bool>(),
        seed in any::<u64>(),
    ) {
        check(&settings(roll_events, roll_bytes, max_open), &troubles, batch, origins, seed);
    }
}

#[test]
fn every_single_step_can_be_the_last_one() {
    for power_cut in [false, true] {
        for steps in 0..120 {
            let kill = Trouble::Kill { steps, power_cut };
            check(
                &settings(4, 1_000, 2),
                &[Trouble::None, kill],
                10,
                true,
                steps,
            );
            check(&settings(4, 1_000, 2), &[kill], 10, true, steps);
        }
    }
}
