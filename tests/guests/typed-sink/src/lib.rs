//! A sink written against the WIT alone, in typed form; `../README.md` describes what it does.

#![expect(unsafe_code, reason = "the bindings are generated")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sink-handler",
});

use exports::levada::handler::sink::{Event, Failure, Guest, Outcomes};
use levada::handler::{call, logging, outcomes::Outcome, types::Later};

struct Typed;

impl Guest for Typed {
    fn deliver(batch: Vec<Event>, ids: Vec<String>) -> Result<Outcomes, Failure> {
        let says = |body: &[u8]| batch.iter().any(|event| event.body == body);
        if says(b"all retry") {
            return Err(Failure::Retry(Later {
                reason: "asked to".to_owned(),
                after_ms: Some(250),
            }));
        }
        if says(b"all fatal") {
            return Err(Failure::Fatal("asked to".to_owned()));
        }
        let mut each: Vec<_> = batch
            .iter()
            .enumerate()
            .map(|(n, event)| outcome(event, ids.get(n)))
            .collect();
        if says(b"one too few") {
            each.pop();
            return Ok(Outcomes::Each(each));
        }
        let line = format!("{} got {} events", call::handler(), batch.len());
        logging::write(logging::Level::Info, &line);
        if each.iter().all(|outcome| matches!(outcome, Outcome::Done)) {
            return Ok(Outcomes::AllDone);
        }
        Ok(Outcomes::Each(each))
    }
}

fn outcome(event: &Event, id: Option<&String>) -> Outcome {
    match event.body.as_slice() {
        b"reject" => Outcome::Reject("asked to".to_owned()),
        b"retry" => Outcome::Retry(Later {
            reason: "asked to".to_owned(),
            after_ms: Some(1500),
        }),
        b"id" => Outcome::Reject(id.cloned().unwrap_or_else(|| "no id".to_owned())),
        b"header" => {
            let header = event.headers.iter().find(|header| header.name == "say");
            Outcome::Reject(
                header
                    .map(|header| header.value.clone())
                    .unwrap_or_default(),
            )
        }
        _ => Outcome::Done,
    }
}

export!(Typed);
