use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{Batch, BatchBuilder, Marks};
use tokio::sync::Notify;

use super::*;

/// Keeps marks and bodies as a store does: on condition, and in order.
#[derive(Default)]
struct Kept {
    marks: Mutex<BTreeMap<String, Bytes>>,
    bodies: Mutex<Vec<String>>,
    fails: Mutex<Option<PutError>>,
    /// Puts of events say that they are there, and wait.
    gate: Option<(Notify, Notify)>,
}

#[async_trait]
impl Ingest for Kept {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        if let (false, Some((there, gate))) = (put.batch.is_empty(), &self.gate) {
            there.notify_one();
            gate.notified().await;
        }
        self.commit(put)
    }

    fn marks(&self) -> Marks {
        Marks::new(self.marks.lock().unwrap().clone())
    }
}

impl Kept {
    fn commit(&self, put: Put) -> Result<(), PutError> {
        if let Some(error) = self.fails.lock().unwrap().clone() {
            return Err(error);
        }
        let mut marks = self.marks.lock().unwrap();
        for mark in put.marks {
            if let Expect::Exactly(expected) = &mark.expect
                && marks.get(&mark.key) != expected.as_ref()
            {
                return Err(PutError::Conflict { key: mark.key });
            }
            marks.insert(mark.key, mark.value.unwrap());
        }
        let text = |event: levada_core::EventRef<'_>| String::from_utf8_lossy(event.body()).into();
        self.bodies
            .lock()
            .unwrap()
            .extend(put.batch.iter().map(text));
        Ok(())
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

fn batch(body: &str) -> Batch {
    let mut builder = BatchBuilder::default();
    builder.push([("k", "v")], body.as_bytes());
    builder.finish()
}

fn claim(key: &str, body: &str) -> Claim {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, key.try_into().unwrap());
    Claim::of(&headers, &[body.as_bytes()]).unwrap().unwrap()
}

async fn put(keys: &Keys, out: &Kept, key: &str, body: &str) -> Result<Taken, Refusal> {
    let put = Put::within(batch(body), Duration::from_secs(10));
    keys.put(out, claim(key, body), put).await
}

#[tokio::test]
async fn a_key_stores_once_also_after_a_restart() {
    let out = Kept::default();
    let keys = Keys::default();
    assert_eq!(put(&keys, &out, "a", "one").await.unwrap(), Taken::Stored);
    assert_eq!(
        put(&keys, &out, "\"a\"", "one").await.unwrap(),
        Taken::Before(1)
    );
    let restarted = Keys::default();
    assert_eq!(
        put(&restarted, &out, "a", "one").await.unwrap(),
        Taken::Before(1)
    );
    assert_eq!(
        put(&restarted, &out, "b", "two").await.unwrap(),
        Taken::Stored
    );
    let refusal = put(&restarted, &out, "a", "other").await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(out.bodies(), ["one", "two"]);
}

#[tokio::test]
async fn a_put_that_failed_claims_nothing() {
    let out = Kept::default();
    let keys = Keys::default();
    put(&keys, &out, "first", "x").await.unwrap();
    let full = PutError::Full {
        channel: "main".into(),
    };
    *out.fails.lock().unwrap() = Some(full);
    let refusal = put(&keys, &out, "a", "one").await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    *out.fails.lock().unwrap() = None;
    // Another body is as good: nothing stands for the key yet.
    assert_eq!(put(&keys, &out, "a", "two").await.unwrap(), Taken::Stored);
    assert_eq!(out.bodies(), ["x", "two"]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_key_is_under_way_waits() {
    let out = Arc::new(Kept {
        gate: Some((Notify::new(), Notify::new())),
        ..Kept::default()
    });
    let keys = Keys::default();
    let (there, gate) = out.gate.as_ref().unwrap();
    let first = put(&keys, &out, "a", "one");
    let second = async {
        there.notified().await;
        let other = put(&keys, &out, "a", "other").await.unwrap_err();
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
        // Nobody opens the gate for ten seconds.
        let late = put(&keys, &out, "a", "one").await.unwrap_err();
        assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
        let waiting = put(&keys, &out, "a", "one");
        let open = async {
            tokio::task::yield_now().await;
            gate.notify_one();
        };
        tokio::join!(waiting, open).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), Taken::Stored);
    assert_eq!(second.unwrap(), Taken::Before(1));
    assert_eq!(out.bodies(), ["one"]);
}

/// A client that hangs up drops its put; the store may have it or not.
#[tokio::test]
async fn a_put_that_was_dropped_is_stored_once_whatever_became_of_it() {
    for was_stored in [false, true] {
        let out = Kept {
            gate: Some((Notify::new(), Notify::new())),
            ..Kept::default()
        };
        let keys = Keys::default();
        let (there, gate) = out.gate.as_ref().unwrap();
        let dropped = put(&keys, &out, "a", "one");
        tokio::select! {
            _ = dropped => panic!("the gate is closed"),
            () = there.notified() => {}
        }
        if was_stored {
            // What the put left behind in the writer commits now.
            let known = Known {
                claim: claim("a", "one"),
                number: 0,
                events: 1,
            };
            let mark = MarkWrite {
                key: name(0),
                value: Some(known.write()),
                expect: Expect::Exactly(None),
            };
            let marks = vec![mark];
            out.commit(Put {
                batch: batch("one"),
                marks,
                ..Put::default()
            })
            .unwrap();
        }
        gate.notify_one();
        // Somebody else is not disturbed, and takes another number.
        put(&keys, &out, "b", "two").await.unwrap();
        gate.notify_one();
        let again = put(&keys, &out, "a", "one").await.unwrap();
        assert_eq!(again == Taken::Before(1), was_stored);
        let mut bodies = out.bodies();
        bodies.sort();
        assert_eq!(bodies, ["one", "two"], "stored before: {was_stored}");
    }
}

#[tokio::test]
async fn the_oldest_key_makes_room_for_the_newest() {
    let out = Kept::default();
    let keys = Keys::default();
    put(&keys, &out, "a", "one").await.unwrap();
    put(&keys, &out, "b", "two").await.unwrap();
    // As if all other numbers had been used.
    lock(keys.state.get().unwrap()).next = KEPT;
    assert_eq!(put(&keys, &out, "c", "three").await.unwrap(), Taken::Stored);
    assert_eq!(
        put(&keys, &out, "b", "two").await.unwrap(),
        Taken::Before(1)
    );
    // Forgotten, and so stored again: in the slot of the next oldest.
    assert_eq!(put(&keys, &out, "a", "one").await.unwrap(), Taken::Stored);
    assert_eq!(put(&keys, &out, "b", "two").await.unwrap(), Taken::Stored);
    let marks = out.marks.lock().unwrap();
    let slots = marks.keys().filter(|name| name.starts_with(PREFIX));
    assert_eq!(slots.count(), 3);
}

#[test]
fn keys_are_one_text_of_some_length() {
    let read = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        Claim::of(&headers, &[b"x"])
    };
    assert_eq!(read(&[]).unwrap(), None);
    assert_eq!(read(&["a"]).unwrap(), read(&["\"a\""]).unwrap());
    assert_ne!(read(&["a"]).unwrap(), read(&["b"]).unwrap());
    for wrong in [&[""][..], &["\"\""], &["a", "a"], &[&"x".repeat(256)]] {
        assert_eq!(read(wrong).unwrap_err().status, StatusCode::BAD_REQUEST);
    }
    // Where a part ends counts.
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
}
