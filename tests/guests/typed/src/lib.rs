//! Written against the WIT alone, in typed form: what an author without our SDK would write.
//!
//! The same behaviour in Python and JavaScript lies in `../python` and `../js`; `../README.md`
//! describes it.

#![expect(unsafe_code, reason = "the bindings are generated")]

use serde_json::Value;

wit_bindgen::generate!({
    path: "../../../wit",
    world: "interceptor-handler",
});

use exports::levada::handler::interceptor::{Event, Failure, Guest, Verdict};
use levada::handler::{
    call, logging, metrics, settings, text,
    types::{Header, Later, Patch},
};

struct Typed;

impl Guest for Typed {
    fn intercept(batch: Vec<Event>) -> Result<Vec<Verdict>, Failure> {
        let unwanted = settings::get("drop-level").unwrap_or_else(|| "debug".to_owned());
        for event in &batch {
            match event.body.as_slice() {
                b"retry" => {
                    return Err(Failure::Retry(Later {
                        reason: "asked to".to_owned(),
                        after_ms: Some(250),
                    }));
                }
                b"fatal" => return Err(Failure::Fatal("asked to".to_owned())),
                _ => {}
            }
        }
        let verdicts: Vec<_> = batch
            .into_iter()
            .map(|event| verdict(event, &unwanted))
            .collect();
        let line = format!("{} got {} events", call::handler(), verdicts.len());
        logging::write(logging::Level::Info, &line);
        metrics::add("handled", verdicts.len() as f64);
        Ok(verdicts)
    }
}

fn verdict(event: Event, unwanted: &str) -> Verdict {
    let record = text::decode(&event.body).and_then(|text| serde_json::from_str(&text).ok());
    let Some(Value::Object(record)) = record else {
        return Verdict::Reject("not a JSON object".to_owned());
    };
    let Some(Value::String(level)) = record.get("level") else {
        return Verdict::Pass;
    };
    match level.as_str() {
        level if level == unwanted => Verdict::Discard("level".to_owned()),
        "split" => Verdict::Replace(vec![part(&event.body, "1"), part(&event.body, "2")]),
        "mask" => Verdict::Patch(Patch {
            set: vec![],
            remove: vec![],
            body: Some(br#"{"level":"mask"}"#.to_vec()),
        }),
        level => Verdict::Patch(Patch {
            set: vec![header("severity", level)],
            remove: vec!["tmp".to_owned()],
            body: None,
        }),
    }
}

fn part(body: &[u8], number: &str) -> Event {
    Event {
        headers: vec![header("part", number)],
        body: body.to_vec(),
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

export!(Typed);
