//! The cases that describe the packed form, from both ends: what the host gives is read as it was
//! meant, and what the SDK says for the examples of `wit/packed.md` is what is written there.

#![expect(clippy::unwrap_used, reason = "a test fails so")]

use std::{fs, path::Path, time::Duration};

use levada_sdk::{NewEvent, Outcome, Patch, Verdict, testing::Input};
use serde_json::Value;

/// The cases that the host's own tests use too.
fn cases() -> Vec<Value> {
    cases_in("vectors.json")
}

fn cases_in(file: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/packed");
    serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
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
    for case in cases().into_iter().chain(cases_in("sinks.json")) {
        let (index, events) = (bytes(&case, "index_hex"), bytes(&case, "events_hex"));
        let read = Input::read(&index, &events).unwrap();
        assert_eq!(read.packed(), (index, events), "{}", case["name"]);
    }
}

#[test]
fn the_ids_are_those_of_the_case() {
    for case in cases_in("sinks.json") {
        let (index, events) = (bytes(&case, "index_hex"), bytes(&case, "events_hex"));
        let mut ids = Vec::new();
        let input = Input::read(&index, &events).unwrap();
        let delivered = input.deliver(|event| {
            ids.extend(event.id().map(|id| id.to_string()));
        });
        assert!(delivered.is_ok());
        assert_eq!(serde_json::json!(ids), case["ids"], "{}", case["name"]);
    }
}

#[test]
fn a_sink_says_what_is_written_in_the_example() {
    let cases = cases_in("sinks.json");
    let name = "seven done, two again, one rejected";
    let case = cases.iter().find(|case| case["name"] == name).unwrap();
    let input = Input::read(&bytes(case, "index_hex"), &bytes(case, "events_hex")).unwrap();
    let said = input.deliveries(|batch, outcomes| {
        for n in 0..batch.len() {
            outcomes.push(match n {
                0..7 => Outcome::done(),
                7 | 8 => Outcome::retry("429").after(Duration::from_secs(30)),
                _ => Outcome::reject("400 mapping"),
            });
        }
        Ok(())
    });
    assert_eq!(said.unwrap(), bytes(case, "answer_hex"));
}
