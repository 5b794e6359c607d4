use super::*;
use crate::{
    answer::HEAD,
    testing::{Input, NotHandled},
};

fn answer(write: impl FnOnce(&mut Verdicts)) -> Vec<u8> {
    let mut verdicts = Verdicts::default();
    verdicts.begin();
    write(&mut verdicts);
    verdicts.finish().to_vec()
}

fn words(first: u32, second: u32) -> Vec<u8> {
    [first.to_le_bytes(), second.to_le_bytes()].concat()
}

#[test]
fn events_that_pass_are_one_operation() {
    let bytes = answer(|verdicts| (0..1000).for_each(|_| verdicts.pass()));
    assert_eq!(bytes, [&HEAD[..], &words(1000 << 8, 0)].concat());
}

#[test]
fn the_same_reason_is_written_once() {
    let bytes = answer(|verdicts| {
        verdicts.discard("debug");
        verdicts.discard("debug");
        verdicts.reject("debug");
        verdicts.pass();
        verdicts.reject("debug");
    });
    let expected = [
        &HEAD[..],
        &words(2 << 8 | DISCARD, 5),
        b"debug",
        &words(1 << 8 | REJECT, 5),
        b"debug",
        &words(1 << 8, 0),
        &words(1 << 8 | REJECT, 5),
        b"debug",
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn what_cannot_be_sent_is_rejected() {
    let long = "n".repeat(1025);
    let patches = [
        Patch::new().set("", "v"),
        Patch::new().remove(""),
        Patch::new().set(&long, "v"),
        Patch::new().set("n", &"v".repeat(64 * 1024 + 1)),
        (0..257).fold(Patch::new(), |patch, n| patch.remove(&n.to_string())),
    ];
    let events = (0..7).fold(Input::new(), |input, _| input.event([], "body"));
    let mut patches = patches.into_iter().map(Verdict::from).chain([
        Verdict::replace([]),
        Verdict::replace([NewEvent::new("x").set("", "v")]),
    ]);
    let outcomes = events.run(|_| patches.next().unwrap()).unwrap();
    for outcome in outcomes {
        assert!(outcome.rejected().is_some(), "{outcome:?}");
    }
}

#[test]
fn the_largest_patch_is_sent() {
    let patch = (0..256).fold(Patch::new(), |patch, n| patch.set(&n.to_string(), "v"));
    let outcomes = Input::new().event([], "").run(|_| patch.clone()).unwrap();
    assert_eq!(outcomes[0].events()[0].headers.len(), 256);
}

#[test]
fn an_event_without_a_verdict_breaks_the_contract() {
    let events = Input::new().event([], "1").event([], "2");
    let short = events.run_batch(|_, verdicts| {
        verdicts.pass();
        Ok(())
    });
    assert!(matches!(short, Err(NotHandled::Broken(broken)) if broken.event == 1));
    let long = events.run_batch(|_, verdicts| {
        (0..3).for_each(|_| verdicts.discard("much"));
        Ok(())
    });
    assert!(matches!(long, Err(NotHandled::Broken(_))));
    let failed = events.run(|_| Err::<Verdict, _>(Failure::retry("later")));
    assert_eq!(failed, Err(NotHandled::Failure(Failure::retry("later"))));
}
