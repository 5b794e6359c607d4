//! The cases that describe the packed form, from both ends: what the host gives is read as it was
//! meant, and what the SDK says for the examples of `wit/packed.md` is what is written there.

#![expect(clippy::unwrap_used, reason = "a test fails so")]

use std::{fs, path::Path};

use levada_sdk::{NewEvent, Patch, Verdict, testing::Input};
use serde_json::Value;

/// The cases that the host's own tests use too.
fn cases() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/packed/vectors.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The bytes of a field of a case.
fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex(case[field].as_str().unwrap())
}

/// The batch of the examples.
fn examples() -> Input {
    Input::new().event([("host", "a")], "ok").event([], "hi")
}

#[test]
fn the_examples_batch_is_packed_and_read_as_written() {
    let (index, events) = examples().packed();
    let case = &cases()[0];
    assert_eq!(index, bytes(case, "index_hex"));
    assert_eq!(events, bytes(case, "events_hex"));
}

#[test]
fn the_examples_answers_are_what_the_sdk_says() {
    let check = |name: &str, verdicts: [Verdict; 2]| {
        let cases = cases();
        let case = cases.iter().find(|case| case["name"] == name).unwrap();
        let mut verdicts = verdicts.into_iter();
        let said = examples().answer(|_, answer| {
            verdicts.by_ref().for_each(|verdict| answer.push(verdict));
            Ok(())
        });
        assert_eq!(said.unwrap(), bytes(case, "answer_hex"), "{name}");
    };
    check("pass both at once", [Verdict::pass(), Verdict::pass()]);
    check(
        "set sev, remove host; pass",
        [
            Patch::new().set("sev", "info").remove("host").into(),
            Verdict::pass(),
        ],
    );
    check(
        "replace by two; discard",
        [
            Verdict::replace([NewEvent::new("x"), NewEvent::new("y").set("k", "v")]),
            Verdict::discard("debug"),
        ],
    );
    check(
        "new body, headers kept; reject",
        [Patch::new().body("né").into(), Verdict::reject("bad json")],
    );
}

/// Reading a batch and packing it again gives the same bytes.
#[test]
fn every_batch_reads_as_it_is() {
    for case in cases() {
        let (index, events) = (bytes(&case, "index_hex"), bytes(&case, "events_hex"));
        let read = Input::read(&index, &events).unwrap();
        assert_eq!(read.packed(), (index, events), "{}", case["name"]);
    }
}
