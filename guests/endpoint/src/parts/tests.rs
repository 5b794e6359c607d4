use std::cell::RefCell;

use super::*;
use levada_sdk::testing::{Delivered, Input};

fn input(bodies: &[&str]) -> Input {
    let event = |input: Input, body: &&str| input.event([], body);
    bodies.iter().fold(Input::new(), event)
}

/// What becomes of events, and what was sent: bodies, one word for each request.
fn delivered(
    bodies: &[&str],
    send: impl Fn(&[String]) -> Result<Reply, Failure>,
) -> (Result<Vec<Delivered>, String>, Vec<String>) {
    let sent = RefCell::new(Vec::new());
    let write = |_: usize, event: &Event<'_>| match event.text() {
        Some("?") => Err("not written".to_owned()),
        text => Ok(text.unwrap_or_default().to_owned()),
    };
    let delivered = input(bodies).deliver_batch(|batch, outcomes| {
        deliver(batch, outcomes, write, |part| {
            sent.borrow_mut().push(part.items.concat());
            send(part.items)
        })
    });
    let delivered = delivered.map_err(|failed| failed.to_string());
    (delivered, sent.into_inner())
}

fn rejected(reason: &str) -> Delivered {
    Delivered::Rejected(reason.into())
}

fn again(reason: &str) -> Delivered {
    Delivered::Retry {
        reason: reason.into(),
        after: None,
    }
}

/// Refuses requests with a bad event, and says which it is if `names`.
fn refuse_bad(items: &[String], names: bool) -> Result<Reply, Failure> {
    Ok(match items.iter().position(|item| item == "x") {
        Some(at) => Reply::Refused {
            reason: "bad".into(),
            at: names.then_some(at),
        },
        None => Reply::Done,
    })
}

#[test]
fn what_is_good_is_one_request() {
    let (outcomes, sent) = delivered(&["a", "b", "c"], |_| Ok(Reply::Done));
    assert_eq!(outcomes.unwrap(), [const { Delivered::Done }; 3]);
    assert_eq!(sent, ["abc"]);
}

#[test]
fn the_event_that_is_to_blame_is_found_by_halves() {
    let (outcomes, sent) = delivered(&["a", "b", "x", "d", "e"], |items| refuse_bad(items, false));
    let done = Delivered::Done;
    let expected = [
        done.clone(),
        done.clone(),
        rejected("bad"),
        done.clone(),
        done,
    ];
    assert_eq!(outcomes.unwrap(), expected);
    assert_eq!(sent, ["abxde", "ab", "xde", "x", "de"]);
}

#[test]
fn the_event_that_the_server_names_is_tried_alone() {
    let (outcomes, sent) = delivered(&["a", "b", "x", "d", "e"], |items| refuse_bad(items, true));
    assert_eq!(outcomes.unwrap()[2], rejected("bad"));
    assert_eq!(sent, ["abxde", "ab", "x", "de"]);
}

#[test]
fn a_server_that_names_the_wrong_event_hurts_nobody_else() {
    for off in [1, 2, 100] {
        let (outcomes, _) = delivered(&["a", "x", "c", "d"], |items| {
            Ok(match refuse_bad(items, true)? {
                Reply::Refused { reason, at } => Reply::Refused {
                    reason,
                    at: at.map(|at| at + off),
                },
                other => other,
            })
        });
        let done = Delivered::Done;
        let expected = [done.clone(), rejected("bad"), done.clone(), done];
        assert_eq!(outcomes.unwrap(), expected, "{off}");
    }
}

#[test]
fn no_batch_takes_more_requests_than_a_host_allows() {
    for n in [1, 2, 25, 26, 100, 1000] {
        for bad_every in [1, 2, 3, n] {
            for names in [false, true] {
                let bodies: Vec<_> = (1..=n)
                    .map(|k| if k % bad_every == 0 { "x" } else { "." })
                    .collect();
                let (outcomes, sent) = delivered(&bodies, |items| refuse_bad(items, names));
                let bad = outcomes.unwrap();
                let bad = bad.iter().filter(|outcome| **outcome == rejected("bad"));
                assert_eq!(bad.count(), n / bad_every);
                let allowed = (2 * n).max(50);
                assert!(sent.len() <= allowed, "{n}, {bad_every}: {}", sent.len());
            }
        }
    }
}

#[test]
fn an_event_that_cannot_be_written_is_rejected_and_not_sent() {
    let (outcomes, sent) = delivered(&["a", "?", "c"], |_| Ok(Reply::Done));
    let done = Delivered::Done;
    let expected = [done.clone(), rejected("not written"), done];
    assert_eq!(outcomes.unwrap(), expected);
    assert_eq!(sent, ["ac"]);
    let (outcomes, sent) = delivered(&["?"], |_| Ok(Reply::Done));
    assert_eq!(outcomes.unwrap(), [rejected("not written")]);
    assert!(sent.is_empty());
}

#[test]
fn what_is_said_of_each_is_what_becomes_of_it() {
    let each = |n: usize| {
        let outcomes = [Outcome::Done, Outcome::retry("busy"), Outcome::reject("no")];
        Ok(Reply::Each(outcomes[..n].to_vec()))
    };
    let (outcomes, _) = delivered(&["a", "b", "c"], |_| each(3));
    let expected = [Delivered::Done, again("busy"), rejected("no")];
    assert_eq!(outcomes.unwrap(), expected);
    let (outcomes, _) = delivered(&["a", "b", "c"], |_| each(2));
    let why = "to be tried again: the server says something of 2 events; 3 were sent";
    assert_eq!(outcomes.unwrap_err(), why);
}

#[test]
fn after_a_failure_nothing_is_sent_and_what_was_not_comes_again() {
    let (outcomes, sent) = delivered(&["a", "x", "c", "d"], |items| {
        match items.iter().any(|item| item == "c") && items.len() < 3 {
            true => Err(Failure::fatal("gone")),
            false => refuse_bad(items, false),
        }
    });
    let expected = [
        Delivered::Done,
        rejected("bad"),
        again("gone"),
        again("gone"),
    ];
    assert_eq!(outcomes.unwrap(), expected);
    assert_eq!(sent, ["axcd", "ax", "a", "x", "cd"]);
    let (outcomes, _) = delivered(&["a"], |_| Err(Failure::fatal("gone")));
    assert_eq!(outcomes.unwrap_err(), "fatal: gone");
}

#[test]
fn a_part_has_a_key_of_its_own() {
    let keys = RefCell::new(Vec::new());
    let delivered = input(&["a", "x", "c"]).deliver_batch(|batch, outcomes| {
        let write = |_: usize, event: &Event<'_>| Ok(event.text().unwrap_or_default().to_owned());
        deliver(batch, outcomes, write, |part| {
            keys.borrow_mut().push(part.key());
            refuse_bad(part.items, true)
        })
    });
    assert!(delivered.is_ok());
    let keys = keys.into_inner();
    assert_eq!(keys, ["test", "test.0-1", "test.1-2", "test.2-3"]);
}

#[test]
fn a_status_says_whose_fault_it_is() {
    let reply = |status| Reply::of(&Response::new(status));
    for status in [200, 201, 204] {
        assert_eq!(reply(status), Ok(Reply::Done));
    }
    for status in [400, 413, 422] {
        let refused = Reply::refused(format!("status {status}"));
        assert_eq!(reply(status), Ok(refused));
    }
    for status in [429, 500, 503] {
        assert!(matches!(reply(status), Err(Failure::Retry { .. })));
    }
    for status in [302, 401, 403, 404, 405] {
        assert!(matches!(reply(status), Err(Failure::Fatal(_))));
    }
}
