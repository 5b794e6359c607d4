//! Finds a text in the body and adds a header where it is found: as `find-add`, but written against
//! the WIT alone, in typed form. What the benchmarks measure of that form.

#![expect(unsafe_code, reason = "the bindings are generated")]

#[path = "../../find-add/src/logic.rs"]
mod logic;

wit_bindgen::generate!({
    path: "../../../wit",
    world: "interceptor-handler",
});

use exports::levada::handler::interceptor::{Event, Failure, Guest, Verdict};
use levada::handler::types::{Header, Patch};

struct FindAdd;

impl Guest for FindAdd {
    fn intercept(batch: Vec<Event>) -> Result<Vec<Verdict>, Failure> {
        Ok(batch.iter().map(verdict).collect())
    }
}

fn verdict(event: &Event) -> Verdict {
    if !logic::found(&event.body) {
        return Verdict::Pass;
    }
    let (name, value) = logic::HEADER;
    Verdict::Patch(Patch {
        set: vec![Header {
            name: name.to_owned(),
            value: value.to_owned(),
        }],
        remove: vec![],
        body: None,
    })
}

export!(FindAdd);
