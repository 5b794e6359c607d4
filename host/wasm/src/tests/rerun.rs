//! Calls that are recorded and run again, and calls that are looked at.

use levada_core::{ByteSize, Secret};

use super::{
    grants::counter,
    imports::{caller, own_memory},
    *,
};
use crate::When;

/// A guest that asks for one number and traps if it is even.
fn gambler(import: &str, function: &str) -> String {
    caller(
        &format!(
            r#"(import "{import}@0.2.6" (instance $it (export "{function}" (func (result u64)))))"#
        ),
        &format!(
            r#"(core func $ask (canon lower (func $it "{function}")))
               (core instance $host (export "ask" (func $ask)))"#
        ),
        r#"(import "host" "ask" (func $ask (result i64)))"#,
        "(if (i64.eqz (i64.and (call $ask) (i64.const 1))) (then unreachable))",
    )
}

const RANDOM: (&str, &str) = ("wasi:random/random", "get-random-u64");

pub(super) async fn record(house: &House, spec: &HandlerSpec, batch: &Batch) -> Recorded {
    let on = part("sources.plant");
    let call = Call {
        part: &on,
        attempt: 1,
        received_ms: 1_700_000_000_000,
        states: &Stateless,
    };
    let part = part("handlers.test");
    let recorded = house.handlers.record(&part, spec, batch, &call);
    recorded.await.unwrap()
}

fn verdicts(sights: &[Sight]) -> Vec<&'static str> {
    let word = |sight: &Sight| match sight {
        Sight::Event(event) => event.verdict,
        Sight::Batch(_) => "unhandled",
    };
    sights.iter().map(word).collect()
}

#[tokio::test]
async fn a_call_that_hangs_on_chance_ends_the_same_whenever_it_is_replayed() {
    let house = house();
    let mut spec = house.spec(&gambler(RANDOM.0, RANDOM.1));
    spec.grants.random = true;
    let batch = bodies(["a"]);
    let (mut passed, mut failed) = (None, None);
    while passed.is_none() || failed.is_none() {
        let Recorded { recording, sights } = record(&house, &spec, &batch).await;
        match verdicts(&sights)[..] {
            ["pass"] => passed = recording,
            ["failed"] => failed = recording,
            ref other => panic!("{other:?}"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.jsonl");
    for (recording, verdict) in [(passed, "pass"), (failed, "failed")] {
        let recording = recording.unwrap();
        recording.write(&path).unwrap();
        let recording = Recording::read(&path).unwrap();
        assert_eq!((recording.events(), recording.questions()), (1, 1));
        for _ in 0..20 {
            let replayed = house.handlers.replay(&spec, &recording).await.unwrap();
            assert!(
                replayed.differences.is_empty(),
                "{:?}",
                replayed.differences
            );
            assert_eq!(verdicts(&replayed.sights), [verdict]);
            assert_eq!(replayed.digest, recording.digest());
        }
    }
}

#[tokio::test]
async fn a_guest_that_asks_something_else_is_told_apart() {
    let house = house();
    let mut spec = house.spec(&gambler(RANDOM.0, RANDOM.1));
    spec.grants.random = true;
    let recorded = record(&house, &spec, &bodies(["a"])).await;
    let recording = recorded.recording.unwrap();
    let other = house.spec(&gambler("wasi:clocks/monotonic-clock", "now"));
    let replayed = house.handlers.replay(&other, &recording).await.unwrap();
    let words = "question 1: `random.u64(null)` was recorded, `monotonic-clock.now(null)` is asked \
                 now";
    assert_eq!(replayed.differences, [words]);
    assert_ne!(replayed.digest, recording.digest());
    let none = house.spec(PUPPET);
    let replayed = house.handlers.replay(&none, &recording).await.unwrap();
    assert!(
        replayed.differences[0].contains("is not asked now"),
        "{:?}",
        replayed.differences
    );
    // What it is called as is part of what it is.
    let typed = house.spec(TYPED);
    let refused = house.handlers.replay(&typed, &recording).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("it is no `packed-interceptor`"),
        "{refused}"
    );
}

#[tokio::test]
async fn every_end_of_a_call_is_replayed() {
    let house = house();
    let mut spec = house.spec(PUPPET);
    spec.limits.cpu = Duration::from_millis(30);
    // Passed, discarded, rejected; traps, limits, a void answer; asked for time.
    for body in ["a", "x", "j", "U", "L", "G", "S", "O", "D", "W", "R", "F"] {
        let recorded = record(&house, &spec, &bodies(["one", body])).await;
        let recording = recorded.recording.unwrap();
        let replayed = house.handlers.replay(&spec, &recording).await.unwrap();
        assert!(
            replayed.differences.is_empty(),
            "{body}: {:?}",
            replayed.differences
        );
        assert_eq!(replayed.sights, recorded.sights, "{body}");
    }
    for body in ["a", "U", "t", "w"] {
        let spec = house.spec(TYPED);
        let recording = record(&house, &spec, &bodies([body]))
            .await
            .recording
            .unwrap();
        let replayed = house.handlers.replay(&spec, &recording).await.unwrap();
        assert!(
            replayed.differences.is_empty(),
            "{body}: {:?}",
            replayed.differences
        );
    }
}

#[tokio::test]
async fn a_replay_needs_no_grant_and_touches_no_state() {
    let house = house();
    let mut spec = house.spec(&counter());
    spec.grants.state = Some(ByteSize::mib(1));
    let recorded = record(&house, &spec, &bodies(["a"])).await;
    let recording = recorded.recording.unwrap();
    let bare = HandlerSpec::new(&spec.component);
    let replayed = house.handlers.replay(&bare, &recording).await.unwrap();
    assert!(
        replayed.differences.is_empty(),
        "{:?}",
        replayed.differences
    );
    // The guest traps when it is refused, and it was not.
    assert_eq!(verdicts(&replayed.sights), ["pass"]);
}

/// A guest that reads its secret and traps if that begins with `s`.
fn secretive() -> String {
    let wat = caller(
        r#"(import "levada:handler/secrets@0.1.0" (instance $secrets
             (export "get" (func (param "name" string) (result (option string))))))"#,
        r#"(core func $get (canon lower (func $secrets "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
           (core instance $host (export "get" (func $get)))"#,
        r#"(import "host" "get" (func $get (param i32 i32 i32)))
           (import "libc" "memory" (memory $shared 2))"#,
        r#"(i32.store8 $shared (i32.const 16) (i32.const 110))
           (call $get (i32.const 16) (i32.const 1) (i32.const 32))
           (if (i32.ne (i32.load $shared (i32.const 40)) (i32.const 6)) (then unreachable))"#,
    );
    own_memory(&wat)
}

#[tokio::test]
async fn a_secret_is_in_no_recording_and_the_call_runs_again_without_it() {
    let house = house();
    let mut spec = house.spec(&secretive());
    spec.grants.secrets = [("n".to_owned(), Secret::new("s3cret"))].into();
    let Recorded { recording, sights } = record(&house, &spec, &bodies(["a"])).await;
    assert_eq!(verdicts(&sights), ["pass"]);
    let recording = recording.unwrap();
    assert_eq!(recording.masked(), ["grants.secrets.n"]);
    let path = house.dir.path().join("call.jsonl");
    recording.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("s3cret") && text.contains("******"),
        "{text}"
    );
    let bare = HandlerSpec::new(&spec.component);
    let replayed = house.handlers.replay(&bare, &recording).await.unwrap();
    assert!(
        replayed.differences.is_empty(),
        "{:?}",
        replayed.differences
    );
}

fn kept(house: &House) -> usize {
    let folder = house.dir.path().join("recordings/handlers.test");
    folder.read_dir().map_or(0, Iterator::count)
}

#[tokio::test]
async fn the_latest_calls_that_failed_are_kept_and_replay_alone() {
    let house = house();
    let mut spec = house.spec(PUPPET);
    spec.record_failures = 2;
    let handler = house.load(&spec).await;
    let (out, effects) = call(&*handler, &bodies(["a", "U", "b", "c"]))
        .await
        .unwrap();
    assert_eq!(texts(&out), ["a", "b", "c"]);
    let path = effects.dead_letters[0].recording.clone().unwrap();
    assert_eq!(kept(&house), 1, "of a search only what it found");
    let recording = Recording::read(path.as_ref()).unwrap();
    assert_eq!((recording.events(), recording.handler()), (1, "test"));
    let replayed = house.handlers.replay(&spec, &recording).await.unwrap();
    assert!(
        replayed.differences.is_empty(),
        "{:?}",
        replayed.differences
    );
    let Sight::Event(sight) = &replayed.sights[0] else {
        panic!("one event")
    };
    assert_eq!(
        (sight.verdict, sight.before.body.as_deref()),
        ("failed", Some("U"))
    );
    // A known one is not tried again: its letter names the recording that there is.
    let (_, effects) = call(&*handler, &bodies(["U"])).await.unwrap();
    assert_eq!(effects.dead_letters[0].recording.as_ref(), Some(&path));
    let mut latest = Vec::new();
    for body in ["U2", "O", "W"] {
        let (_, effects) = call(&*handler, &bodies(["a", body, "b", "c"]))
            .await
            .unwrap();
        latest.push(effects.dead_letters[0].recording.clone().unwrap());
    }
    assert_eq!(kept(&house), 2);
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn nothing_is_kept_unless_it_is_asked_for() {
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    let (_, effects) = call(&*handler, &bodies(["a", "U"])).await.unwrap();
    assert_eq!(
        (effects.dead_letters[0].recording.as_ref(), kept(&house)),
        (None, 0)
    );
}

async fn tapped(house: &House, params: TapParams) -> (Arc<dyn Interceptor>, Loaded, Tap) {
    let spec = house.spec(PUPPET);
    let loaded = house
        .handlers
        .load(&part("handlers.test"), &spec)
        .await
        .unwrap();
    let tap = loaded.tap(params).unwrap();
    (loaded.interceptor.clone().unwrap(), loaded, tap)
}

fn all(tap: &mut Tap) -> Vec<Sight> {
    std::iter::from_fn(|| tap.try_next()).collect()
}

#[tokio::test]
async fn a_tap_shows_each_event_with_what_was_said_of_it() {
    let house = house();
    let (handler, _loaded, mut tap) = tapped(&house, TapParams::default()).await;
    call(&*handler, &bodies(["a", "x", "U", "j", "b"]))
        .await
        .unwrap();
    let sights = all(&mut tap);
    let words = ["pass", "discard", "failed", "reject", "pass"];
    assert_eq!(verdicts(&sights), words);
    let of = |n: usize| match &sights[n] {
        Sight::Event(sight) => sight,
        Sight::Batch(_) => panic!("an event"),
    };
    for (n, body) in ["a", "x", "U", "j", "b"].into_iter().enumerate() {
        assert_eq!(of(n).before.body.as_deref(), Some(body));
        assert_eq!(of(n).on, "sources.plant");
    }
    assert_eq!(of(1).reason.as_deref(), Some("no"));
    assert_eq!(of(3).reason.as_deref(), Some("no"));
    assert!(of(2).reason.as_ref().unwrap().contains("unreachable"));
    assert!(of(2).backtrace.is_some());
    // The whole batch is to come again.
    call(&*handler, &bodies(["a", "R"])).await.unwrap_err();
    let [Sight::Batch(batch)] = &all(&mut tap)[..] else {
        panic!("a batch")
    };
    assert_eq!((batch.events, batch.unhandled.as_str()), (2, "busy"));
    assert_eq!(tap.missed(), 0);
}

#[tokio::test]
async fn a_full_tap_counts_and_holds_nobody_up() {
    let house = house();
    let params = TapParams {
        room: 10,
        ..TapParams::default()
    };
    let (handler, _loaded, mut tap) = tapped(&house, params).await;
    for _ in 0..5 {
        let (out, _) = call(&*handler, &bodies(["a", "b", "c", "d", "e", "f"]))
            .await
            .unwrap();
        assert_eq!(out.len(), 6);
    }
    assert_eq!(all(&mut tap).len(), 10);
    assert_eq!((tap.missed(), tap.missed()), (20, 0));
}

#[tokio::test]
async fn a_tap_is_bounded_and_ends_with_its_reader_or_its_handler() {
    let house = house();
    let params = TapParams {
        when: Some(When::parse(r#"header("type") == "log""#).unwrap()),
        excerpt: 8,
        ..TapParams::default()
    };
    let (handler, loaded, mut tap) = tapped(&house, params.clone()).await;
    let mut builder = BatchBuilder::default();
    builder.push([("type", "log"), ("long", "0123456789")], b"0123456789");
    builder.push([("type", "other")], b"a");
    call(&*handler, &builder.finish()).await.unwrap();
    let sights = all(&mut tap);
    let [Sight::Event(sight)] = &sights[..] else {
        panic!("one event is a log")
    };
    assert_eq!(sight.before.body.as_deref(), Some("01234567"));
    assert_eq!(sight.before.headers[1].1, "01");
    assert!(sight.cut);
    // So many at once, and each that has gone leaves its place.
    let others: Vec<_> = (0..3)
        .map(|_| loaded.tap(params.clone()).unwrap())
        .collect();
    assert!(loaded.tap(params.clone()).is_err());
    drop(others);
    assert!(loaded.tap(params).is_ok());
    drop((handler, loaded));
    assert!(tap.next().await.is_none());
}
