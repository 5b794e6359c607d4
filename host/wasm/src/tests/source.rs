//! Guests as sources: what is polled is put together with its cursor, or polled again.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{
    Contact, Ingest, Marks, Needs, Peer, Put, PutError, RunContext, Source, SourceError, Stopper,
    marks::Expect,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::*;

/// What stands behind a source: it keeps the cursor, as a store would.
#[derive(Debug, Default)]
struct Door {
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    cursor: Option<Bytes>,
    /// When each put came, and the bodies of its events.
    puts: Vec<(Option<Instant>, Vec<String>)>,
    /// Marks that were committed.
    commits: usize,
    /// What the next puts are answered.
    refuses: VecDeque<PutError>,
}

impl Door {
    /// A store that has this cursor.
    fn at(cursor: &str) -> Arc<Self> {
        let door = Arc::new(Self::default());
        door.set(cursor);
        door
    }

    fn set(&self, cursor: &str) {
        self.kept().cursor = Some(Bytes::copy_from_slice(cursor.as_bytes()));
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self) -> String {
        let kept = self.kept();
        String::from_utf8(kept.cursor.as_deref().unwrap_or_default().to_vec()).unwrap()
    }

    /// The bodies of all that was put.
    fn bodies(&self) -> Vec<String> {
        let kept = self.kept();
        kept.puts
            .iter()
            .flat_map(|(_, bodies)| bodies.clone())
            .collect()
    }

    /// Waits until this holds.
    async fn until(&self, holds: impl Fn(&Kept) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(&self.kept()) {
                return;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl Ingest for Door {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        let mut kept = self.kept();
        self.changed.notify_waiters();
        if let Some(refused) = kept.refuses.pop_front() {
            return Err(refused);
        }
        for mark in put.marks {
            assert_eq!(mark.key, "cursor");
            if mark.expect != Expect::Exactly(kept.cursor.clone()) {
                return Err(PutError::Conflict { key: mark.key });
            }
            kept.cursor = mark.value;
            kept.commits += 1;
        }
        kept.puts.push((Some(Instant::now()), texts(&put.batch)));
        Ok(())
    }

    fn marks(&self) -> Marks {
        let cursor = self.kept().cursor.clone();
        Marks::new(cursor.map(|cursor| ("cursor".to_owned(), cursor)))
    }
}

/// A puppet as a source, with `max-wait` 5 s. Time is virtual: what is measured is exact.
struct Stage {
    house: House,
    source: Box<dyn Source>,
    cx: RunContext,
    stopper: Stopper,
}

impl Stage {
    async fn set() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut HandlerSpec)) -> Self {
        let house = house();
        let mut spec = house.spec(include_str!("source.wat"));
        spec.limits.delivery_deadline = Duration::from_secs(3600);
        spec.limits.cpu = Duration::from_millis(20);
        spec.limits.batch_events = 1;
        change(&mut spec);
        let loaded = house.handlers.load(&part("handlers.test"), &spec).await;
        let loaded = loaded.unwrap();
        assert!(loaded.interceptor.is_none() && loaded.sink.is_none());
        let (stopper, stop) = Stopper::new();
        let cx = RunContext {
            part: part("sources.feed"),
            stop,
            clock: Arc::new(Stopped),
            chance: Chance::seeded(7),
            peer: Peer::default(),
        };
        Self {
            house,
            source: loaded.source.unwrap().source(Duration::from_secs(5)),
            cx,
            stopper,
        }
    }

    async fn run(&mut self, door: &Arc<Door>) -> Result<(), SourceError> {
        self.source.run(Arc::clone(door) as _, &self.cx).await
    }

    /// Runs until this holds of what was put.
    async fn run_until(&mut self, door: &Arc<Door>, holds: impl Fn(&Kept) -> bool) {
        tokio::select! {
            ended = self.source.run(Arc::clone(door) as _, &self.cx) => panic!("{ended:?}"),
            () = door.until(holds) => {}
        }
    }

    /// How much time is between the puts of so many polls.
    async fn waits(&mut self, door: &Arc<Door>, polls: usize) -> Vec<Duration> {
        self.run_until(door, |kept| kept.puts.len() == polls).await;
        let times: Vec<_> = door.kept().puts.iter().filter_map(|(at, _)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_polled_is_put_together_with_its_cursor() {
    let mut stage = Stage::set().await;
    let door = Arc::new(Door::default());
    stage.run_until(&door, |kept| kept.puts.len() == 6).await;
    assert_eq!(door.bodies(), ["a", "b", "c", "d"]);
    assert_eq!(door.cursor(), "e");
    // A poll that gave nothing new is no commit, and shows that all is well.
    assert_eq!(door.kept().commits, 4);
    // Another run goes on where this one was.
    let door = Door::at("c");
    stage.run_until(&door, |kept| kept.puts.len() == 3).await;
    assert_eq!(door.bodies(), ["c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_poll_waits_as_long_as_it_is_told_within_bounds() {
    let mut stage = Stage::set().await;
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    // More to get: at once. Nothing: as long as it says.
    let waits = stage.waits(&Door::at("b"), 6).await;
    assert_eq!(waits, [ms(0), ms(0), ms(0), seconds(3), seconds(3)]);
    // It says that there is more, and there is not.
    let waits = stage.waits(&Door::at("m"), 50).await;
    assert_eq!(waits, [ms(100); 49]);
    // It wants to be left alone for weeks.
    let waits = stage.waits(&Door::at("w"), 4).await;
    assert_eq!(waits, [seconds(5); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_for_time_gets_it_and_is_not_broken() {
    let mut stage = Stage::set().await;
    let door = Door::at("R");
    let began = Instant::now();
    let calls = |n| format!("levada_handler_poll_failures_total{{part=\"handlers.test\"}} {n}");
    tokio::select! {
        ended = stage.source.run(Arc::clone(&door) as _, &stage.cx) => panic!("{ended:?}"),
        () = async {
            while !stage.house.shows(&calls(8)) {
                time::sleep(Duration::from_millis(50)).await;
            }
        } => {}
    }
    assert!(began.elapsed() >= Duration::from_millis(1500) * 7);
    match stage.cx.peer.contact() {
        Contact::Waiting { why, .. } => assert_eq!(why, "busy"),
        other => panic!("{other:?}"),
    }
    assert!(
        stage
            .house
            .shows("levada_handler_breaker_open{part=\"handlers.test\"} 0")
    );
    assert_eq!((door.bodies(), &*door.cursor()), (vec![], "R"));
    // When it gets what it waited for, the word is taken back.
    door.set("d");
    stage.run_until(&door, |kept| kept.puts.len() == 2).await;
    assert_eq!(stage.cx.peer.contact(), Contact::Connected);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_human_can_mend_ends_the_source() {
    let mut stage = Stage::set().await;
    let error = stage.run(&Door::at("F")).await.unwrap_err();
    assert_eq!(error.needs, Needs::Human);
    assert!(
        error.to_string().ends_with("has stopped the source: busy"),
        "{error}"
    );
    let mut stage = Stage::with(|spec| spec.on_trap = OnTrap::Stop).await;
    let error = stage.run(&Door::at("U")).await.unwrap_err();
    assert_eq!(error.needs, Needs::Human);
    assert!(error.to_string().contains("trap: "), "{error}");
    assert!(
        stage
            .house
            .shows("levada_handler_calls_total{part=\"handlers.test\"} 2")
    );
}

/// A poll on which the guest fails is made once more on a fresh instance, and then again after a
/// back-off; three in a row are too many. Nothing is put meanwhile.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_all_the_time_is_only_probed_and_goes_on_when_it_works() {
    for (bad, limit, words) in [
        ("U", "none, a trap", "unreachable"),
        ("L", "cpu", "`cpu` of 20ms"),
        (
            "C",
            "none, a broken contract",
            "a cursor of 65537 bytes, `cursor-bytes` allows 65536",
        ),
        (
            "E",
            "none, a broken contract",
            "10001 events out of a poll, `events-polled` allows 10000",
        ),
        ("B", "none, a broken contract", "1048"),
        ("G", "lifted-bytes", "`lifted-bytes`"),
        ("O", "none, a trap", "out of bounds"),
    ] {
        let mut stage = Stage::set().await;
        let door = Door::at(bad);
        let error = stage.run(&door).await.unwrap_err();
        assert_eq!(error.needs, Needs::Human, "{bad}");
        let text = error.to_string();
        assert!(
            text.starts_with("handler `test` fails: ") && text.contains(words),
            "{bad}: {text}"
        );
        let failures = format!("{{part=\"handlers.test\",limit=\"{limit}\"}} 6");
        let line = format!("levada_handler_failures_total{failures}");
        assert!(
            stage.house.shows(&line),
            "{bad}: {}",
            stage.house.registry.render()
        );
        assert!(
            stage
                .house
                .shows("levada_handler_breaker_open{part=\"handlers.test\"} 1")
        );
        // It is opened again, and only probed: a probe that fails ends it again.
        let began = Instant::now();
        let error = stage.run(&door).await.unwrap_err();
        assert!(error.to_string().contains(words), "{bad}: {error}");
        assert!(began.elapsed() >= Duration::from_secs(1), "{bad}");
        assert!(
            stage
                .house
                .shows("levada_handler_calls_total{part=\"handlers.test\"} 8"),
            "{bad}"
        );
        assert_eq!((door.bodies(), &*door.cursor()), (vec![], bad));
        door.set("c");
        stage.run_until(&door, |kept| kept.puts.len() == 3).await;
        assert_eq!(door.bodies(), ["c", "d"], "{bad}");
        assert!(
            stage
                .house
                .shows("levada_handler_breaker_open{part=\"handlers.test\"} 0")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_put_is_put_again_and_not_polled_again() {
    let mut stage = Stage::set().await;
    let door = Door::at("d");
    let (part, reason) = ("handlers.other".to_owned(), "busy".to_owned());
    let after = Some(Duration::from_secs(2));
    door.kept().refuses = [
        PutError::Deadline,
        PutError::Later {
            part,
            reason,
            after,
        },
    ]
    .into();
    let began = Instant::now();
    stage.run_until(&door, |kept| kept.puts.len() == 2).await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(
        (door.bodies(), &*door.cursor()),
        (vec!["d".to_owned()], "e")
    );
    // One poll for `d`, one for nothing.
    assert!(
        stage
            .house
            .shows("levada_handler_calls_total{part=\"handlers.test\"} 2")
    );
}

/// A run that was cut off in a put does not know whether that was committed. If it is after all,
/// what the next run has polled from the older cursor would be there twice.
#[tokio::test(start_paused = true)]
async fn a_cursor_that_has_moved_voids_what_was_polled_from_the_old_one() {
    let mut stage = Stage::set().await;
    let door = Door::at("b");
    door.kept().refuses = [PutError::Deadline].into();
    let moved = async {
        // `b` is polled, and its put comes again.
        door.until(|kept| kept.refuses.is_empty()).await;
        door.set("d");
        door.until(|kept| kept.puts.len() == 2).await;
    };
    tokio::select! {
        ended = stage.source.run(Arc::clone(&door) as _, &stage.cx) => panic!("{ended:?}"),
        () = moved => {}
    }
    assert_eq!(door.bodies(), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_ends_when_it_is_told_to_wherever_it_is() {
    let mut stage = Stage::set().await;
    let door = Door::at("w");
    stage.waits(&door, 1).await;
    // A run that is dropped while the guest computes leaves nothing that the next one meets.
    for polls in 0..20 {
        let mut run = std::pin::pin!(stage.source.run(Arc::clone(&door) as _, &stage.cx));
        door.set("L");
        for _ in 0..polls {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if run.as_mut().poll(&mut cx).is_ready() {
                break;
            }
        }
    }
    let full = PutError::TooLarge {
        channel: "main".into(),
        bytes: 1,
    };
    let door = Door::at("d");
    door.kept().refuses = [full].into();
    let error = stage.run(&door).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("give the channel more `capacity`"),
        "{error}"
    );
    door.kept().refuses = [PutError::Stopping].into();
    stage.run(&door).await.unwrap();
    stage.stopper.drain();
    stage.run(&Door::at("w")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_is_not_given_what_it_cannot_have() {
    let house = house();
    for (key, change) in [
        (
            "grants.state",
            (|spec| spec.grants.state = Some(levada_core::ByteSize::mib(1)))
                as fn(&mut HandlerSpec),
        ),
        ("every", |spec| spec.every = Some(Duration::from_secs(1))),
    ] {
        let mut spec = house.spec(include_str!("source.wat"));
        change(&mut spec);
        let error = house
            .handlers
            .load(&part("handlers.test"), &spec)
            .await
            .unwrap_err();
        let words = format!("`{key}` is not for sources in this version: remove it");
        assert_eq!(error.to_string(), words);
    }
    let seen = inspect(&wat::parse_str(include_str!("source.wat")).unwrap()).unwrap();
    assert_eq!(seen.roles, [Role::Source]);
}
