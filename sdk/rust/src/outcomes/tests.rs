use super::*;
use crate::testing::{Delivered, Input};

fn three() -> Input {
    let input = Input::new().event([], "a").event([], "b");
    input.event([], "c").with_ids()
}

#[test]
fn each_event_has_its_outcome() {
    let delivered = three().deliver(|event| match event.body() {
        b"a" => Outcome::done(),
        b"b" => Outcome::retry("busy").after(Duration::from_secs(30)),
        _ => Outcome::reject("no such index"),
    });
    let busy = Delivered::Retry {
        reason: "busy".into(),
        after: Some(Duration::from_secs(30)),
    };
    let rejected = Delivered::Rejected("no such index".into());
    assert_eq!(delivered.unwrap(), [Delivered::Done, busy, rejected]);
}

#[test]
fn what_is_said_of_many_is_one_operation() {
    let mut outcomes = Outcomes::default();
    outcomes.begin();
    (0..1000).for_each(|_| outcomes.done());
    (0..500).for_each(|_| outcomes.retry("429", None));
    outcomes.retry("429", Some(Duration::ZERO));
    assert_eq!(outcomes.finish().len(), 4 + 8 + (8 + 4 + 3) * 2);
}

#[test]
fn a_failure_after_the_first_event_is_said_of_the_rest() {
    let fails_at = |at: &'static [u8], failure: Failure| {
        three().deliver(move |event| match event.body() == at {
            true => Err(failure.clone()),
            false => Ok(Outcome::Done),
        })
    };
    let again = Delivered::Retry {
        reason: "gone".into(),
        after: None,
    };
    let expected = [Delivered::Done, again.clone(), again.clone()];
    assert_eq!(fails_at(b"b", Failure::retry("gone")).unwrap(), expected);
    assert_eq!(fails_at(b"b", Failure::fatal("gone")).unwrap(), expected);
    assert!(fails_at(b"a", Failure::fatal("gone")).is_err());
}

#[test]
fn an_event_knows_its_id_where_it_has_one() {
    let mut ids = Vec::new();
    three()
        .deliver(|event| ids.push(event.id().unwrap().to_string()))
        .unwrap();
    let first = "000102030405060708090a0b0c0d0e0f-1.0";
    assert_eq!(ids[0], first);
    assert!(ids[2].ends_with("-3.0"));
    let none = Input::new().event([], "a");
    none.deliver(|event| assert_eq!(event.id(), None)).unwrap();
}

#[test]
fn an_event_that_is_left_out_breaks_the_contract() {
    let left_out = three().deliver_batch(|_, outcomes| {
        outcomes.done();
        Ok(())
    });
    assert!(left_out.unwrap_err().to_string().contains("event 1"));
}
