use std::sync::Mutex as StdMutex;

use levada_core::state::SavedState;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::*;

/// A store that keeps the state of one handler.
#[derive(Debug, Default)]
struct Disk(StdMutex<SavedState>);

impl States for Disk {
    fn state(&self, _: &Name) -> Result<SavedState, TakeError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

impl Disk {
    /// Commits a change, if it was made from what is there.
    fn commit(&self, change: StateChange) -> bool {
        let mut saved = self.0.lock().unwrap();
        if saved.version != change.from {
            return false;
        }
        saved.version = change.to();
        for (key, value) in change.writes {
            match value {
                Some(value) => drop(saved.values.insert(key, value)),
                None => drop(saved.values.remove(&key)),
            }
        }
        change.ticket.committed();
        true
    }
}

fn state(cap: u64) -> State {
    State::new(Name::new("h").unwrap(), ByteSize(cap))
}

fn fresh() -> State {
    state(1 << 20)
}

/// Begins a batch; nobody else has the state.
fn begin(state: &State, disk: &Disk, now_ms: u64) -> Box<Session> {
    let mut future = std::pin::pin!(state.begin(disk, now_ms));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(session) => session.unwrap(),
        std::task::Poll::Pending => panic!("another batch has the state"),
    }
}

fn set(session: &mut Session, key: &str, value: &str) {
    session.set(key.into(), value.into(), None).unwrap();
    session.keep();
}

fn text(session: &mut Session, key: &str) -> Option<String> {
    let bytes = session.get(key)?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn the_next_batch_sees_what_is_not_committed_yet() {
    let (disk, state) = (Disk::default(), state(1000));
    let mut first = begin(&state, &disk, 0);
    set(&mut first, "a", "1");
    let first = first.finish().unwrap();
    first.ticket.pass_on();
    let mut second = begin(&state, &disk, 0);
    assert_eq!(text(&mut second, "a").as_deref(), Some("1"));
    set(&mut second, "b", "2");
    let second = second.finish().unwrap();
    assert_eq!((first.from, second.from), (0, 1));
    assert!(disk.commit(first));
    assert!(disk.commit(second));
    let mut third = begin(&state, &disk, 0);
    assert_eq!(third.keys("", None, 10), ["a", "b"]);
    assert!(
        third.finish().is_none(),
        "all is committed, and nothing was written"
    );
}

#[test]
fn what_was_built_on_something_void_is_refused_and_built_again() {
    let (disk, state) = (Disk::default(), state(1000));
    let mut first = begin(&state, &disk, 0);
    set(&mut first, "a", "1");
    let first = first.finish().unwrap();
    first.ticket.pass_on();
    // It writes nothing, and still says what it does because of `a`.
    let mut reader = begin(&state, &disk, 0);
    assert!(reader.get("a").is_some());
    let reader = reader.finish().unwrap();
    reader.ticket.pass_on();
    let mut second = begin(&state, &disk, 0);
    set(&mut second, "b", "2");
    let second = second.finish().unwrap();
    second.ticket.pass_on();
    drop(first);
    assert!(reader.writes.is_empty());
    assert!(!disk.commit(reader));
    assert!(!disk.commit(second));
    let mut again = begin(&state, &disk, 0);
    assert_eq!(again.get("a"), None);
    set(&mut again, "b", "2");
    assert!(disk.commit(again.finish().unwrap()));
}

#[test]
fn the_turn_is_held_until_the_change_has_its_place() {
    let (disk, state) = (Disk::default(), state(1000));
    let mut first = begin(&state, &disk, 0);
    set(&mut first, "a", "1");
    let change = first.finish().unwrap();
    let mut next = Box::pin(state.begin(&disk, 0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(next.as_mut().poll(&mut cx).is_pending());
    change.ticket.pass_on();
    assert!(next.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a_call_that_fails_has_written_nothing() {
    let (disk, state) = (Disk::default(), state(1000));
    let mut session = begin(&state, &disk, 0);
    set(&mut session, "a", "1");
    session.set("a".into(), b"2".to_vec(), None).unwrap();
    session.set("b".into(), b"2".to_vec(), None).unwrap();
    session.remove("a".into());
    session.take_back();
    assert_eq!(text(&mut session, "a").as_deref(), Some("1"));
    session.set("c".into(), b"3".to_vec(), None).unwrap();
    let change = session.finish().unwrap();
    assert_eq!(change.writes.keys().collect::<Vec<_>>(), ["a"]);
    change.ticket.pass_on();
    // A batch that is dropped has written nothing either.
    let mut dropped = begin(&state, &disk, 0);
    set(&mut dropped, "a", "9");
    drop(dropped);
    assert_eq!(
        text(&mut begin(&state, &disk, 0), "a").as_deref(),
        Some("1")
    );
}

#[test]
fn the_cap_is_named_and_the_old_value_stays() {
    let (disk, state) = (Disk::default(), state(100));
    let mut session = begin(&state, &disk, 0);
    set(&mut session, "a", "1");
    let long = vec![b'x'; 68];
    let refused = session.set("b".into(), long.clone(), None).unwrap_err();
    assert_eq!(refused, "the limit `state-bytes` of 100B was reached");
    assert!(session.set("a".into(), long.clone(), None).is_err());
    assert_eq!(text(&mut session, "a").as_deref(), Some("1"));
    // Exactly what fits, once the other is gone.
    session.remove("a".into());
    session.set("b".into(), long[1..].to_vec(), None).unwrap();
    assert!(session.increment("n".into(), 1.0, None).is_err());
    for key in [String::new(), "k".repeat(1025)] {
        let refused = session.set(key, Vec::new(), None).unwrap_err();
        assert!(refused.contains("1 to 1024"), "{refused}");
    }
}

#[test]
fn numbers_add_up_and_are_text() {
    let (disk, state) = (Disk::default(), state(1000));
    let mut session = begin(&state, &disk, 0);
    assert_eq!(session.increment("n".into(), 0.1, None), Ok(0.1));
    assert_eq!(session.increment("n".into(), 0.2, None), Ok(0.1 + 0.2));
    assert_eq!(text(&mut session, "n").unwrap(), (0.1 + 0.2).to_string());
    set(&mut session, "t", "many");
    assert!(
        session
            .increment("t".into(), 1.0, None)
            .unwrap_err()
            .contains("no number")
    );
    let huge = session.increment("h".into(), f64::MAX, None).unwrap();
    assert!(session.increment("h".into(), huge, None).is_err());
    assert!(session.increment("i".into(), f64::NAN, None).is_err());
}

#[test]
fn values_go_when_their_time_is_over() {
    let (disk, state) = (Disk::default(), state(1000));
    let mut session = begin(&state, &disk, 1_000);
    session.set("a".into(), b"1".to_vec(), Some(2)).unwrap();
    session.increment("n".into(), 1.0, Some(2)).unwrap();
    session.set("stays".into(), b"1".to_vec(), None).unwrap();
    session.keep();
    assert!(disk.commit(session.finish().unwrap()));
    let mut session = begin(&state, &disk, 2_999);
    assert!(session.get("a").is_some());
    // It goes on with the time it has.
    session.increment("n".into(), 1.0, None).unwrap();
    session.keep();
    assert!(disk.commit(session.finish().unwrap()));
    let mut session = begin(&state, &disk, 3_000);
    assert_eq!((session.get("a"), session.get("n")), (None, None));
    assert_eq!(session.keys("", None, 10), ["stays"]);
    let change = session.finish().unwrap();
    assert_eq!(change.writes["a"], None);
    assert!(disk.commit(change));
    assert_eq!(disk.0.lock().unwrap().values.len(), 1);
}

#[test]
fn keys_are_listed_in_pages() {
    let (disk, state) = (Disk::default(), state(100_000));
    let mut session = begin(&state, &disk, 0);
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        set(&mut session, key, "");
    }
    assert_eq!(session.keys("b/", None, 2), ["b/1", "b/2"]);
    assert_eq!(session.keys("b/", Some("b/2"), 2), ["b/3"]);
    assert_eq!(session.keys("b/", Some("a"), 1), ["b/1"]);
    assert!(session.keys("b/", Some("c"), 9).is_empty());
    assert!(session.keys("", None, 0).is_empty());
}

#[derive(Debug, Clone)]
enum Op {
    Set(u8, u8, Option<u8>),
    Remove(u8),
    Increment(u8, i8),
    /// The call ends well, or not.
    Ends(bool),
    /// The batch ends; its commit is the oldest that waits.
    Finish,
    /// The batch is dropped.
    Drop,
    /// The oldest commit that waits goes through.
    Commit,
    /// It fails.
    Fail,
    Later(u8),
    /// Another instance of the agent goes on with what is on disk.
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..6_u8, any::<u8>(), proptest::option::of(1..5_u8)).prop_map(|(k, v, t)| Op::Set(k, v, t)),
        2 => (0..6_u8).prop_map(Op::Remove),
        3 => (6..9_u8, any::<i8>()).prop_map(|(k, by)| Op::Increment(k, by)),
        4 => any::<bool>().prop_map(Op::Ends),
        4 => Just(Op::Finish),
        1 => Just(Op::Drop),
        4 => Just(Op::Commit),
        1 => Just(Op::Fail),
        2 => (1..30_u8).prop_map(Op::Later),
        1 => Just(Op::Reopen),
    ]
}

type Model = BTreeMap<String, (Vec<u8>, Option<u64>)>;

fn alive(model: &mut Model, now_ms: u64) {
    model.retain(|_, (_, until)| until.is_none_or(|until| until > now_ms));
}

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 256,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..Default::default()
    })]

    /// Batches one after the other, each on the state before: a map tells what each must see.
    #[test]
    fn state_is_a_map_that_commits_or_does_not(ops in proptest::collection::vec(op(), 1..120)) {
        let disk = Disk::default();
        let mut state = fresh();
        let (mut saved, mut ahead) = (Model::new(), Model::new());
        // What waits for its commit, with the model after it.
        let mut waiting: VecDeque<(StateChange, Model)> = VecDeque::new();
        let mut now_ms = 0;
        // The time of the batch that runs.
        let mut began_ms = now_ms;
        let mut at_begin = ahead.clone();
        let mut kept = ahead.clone();
        let mut session = begin(&state, &disk, now_ms);
        for op in ops {
            let key = |k: u8| format!("key-{k}");
            let over = match op {
                Op::Set(k, v, ttl) => {
                    session.set(key(k), vec![v; 3], ttl.map(u32::from)).unwrap();
                    let until = ttl.map(|ttl| began_ms + u64::from(ttl) * 1000);
                    ahead.insert(key(k), (vec![v; 3], until));
                    false
                }
                Op::Remove(k) => {
                    session.remove(key(k));
                    ahead.remove(&key(k));
                    false
                }
                Op::Increment(k, by) => {
                    let entry = ahead.entry(key(k)).or_insert((b"0".to_vec(), None));
                    let before: f64 = std::str::from_utf8(&entry.0).unwrap().parse().unwrap();
                    entry.0 = (before + f64::from(by)).to_string().into_bytes();
                    session.increment(key(k), f64::from(by), None).unwrap();
                    false
                }
                Op::Ends(true) => { session.keep(); kept = ahead.clone(); false }
                Op::Ends(false) => { session.take_back(); ahead = kept.clone(); false }
                Op::Finish | Op::Drop => true,
                Op::Commit => {
                    if let Some((change, model)) = waiting.pop_front() {
                        assert!(disk.commit(change));
                        saved = model;
                    }
                    false
                }
                Op::Fail => {
                    // What was built on it fails, too, and so does the batch that runs.
                    let failed = !waiting.is_empty();
                    waiting.clear();
                    if failed { at_begin = saved.clone(); }
                    failed
                }
                Op::Later(seconds) => { now_ms += u64::from(seconds) * 100; false }
                Op::Reopen => { waiting.clear(); at_begin = saved.clone(); true }
            };
            if over {
                match op {
                    Op::Finish => {
                        ahead = kept.clone();
                        if let Some(change) = session.finish() {
                            change.ticket.pass_on();
                            waiting.push_back((change, ahead.clone()));
                        }
                    }
                    Op::Reopen => {
                        drop(session);
                        state = fresh();
                        ahead = at_begin.clone();
                    }
                    _ => {
                        drop(session);
                        ahead = at_begin.clone();
                    }
                }
                session = begin(&state, &disk, now_ms);
                began_ms = now_ms;
                alive(&mut ahead, now_ms);
                at_begin = ahead.clone();
                kept = ahead.clone();
            }
            let seen: Model = session.kept().values.map.iter()
                .map(|(key, value)| (key.clone(), (value.bytes.to_vec(), value.expires_ms)))
                .collect();
            prop_assert_eq!(&seen, &ahead);
        }
    }
}
