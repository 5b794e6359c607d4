//! Splunk's HTTP Event Collector, `/services/collector/event`
//! (<https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/format-events-for-http-event-collector>).

use anyhow::{Result, ensure};
use async_trait::async_trait;
use serde_json::{Deserializer, Value, json};

use super::{
    Protocol,
    request::{Answer, Request, only},
};

/// A collector with one token.
#[derive(Debug)]
pub struct Splunk {
    pub token: String,
    /// What was taken, in order.
    pub events: Vec<Value>,
}

/// What may stand in an event.
const MEMBERS: [&str; 7] = [
    "time",
    "host",
    "source",
    "sourcetype",
    "index",
    "event",
    "fields",
];

#[async_trait]
impl Protocol for Splunk {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        request.posts("/services/collector/event", "application/json")?;
        ensure!(request.query.is_empty(), "a query");
        match request.header("authorization") {
            "" => return Ok(says(401, 2, "Token is required", None)),
            token if token == format!("Splunk {}", self.token) => {}
            _ => return Ok(says(403, 4, "Invalid token", None)),
        }
        let mut events = Vec::new();
        for event in Deserializer::from_str(request.text()?).into_iter::<Value>() {
            let at = Some(events.len());
            let Ok(event) = event else {
                return Ok(says(400, 6, "Invalid data format", at));
            };
            only(&event, &MEMBERS)?;
            ensure!(event["time"].is_f64(), "no time with a fraction: {event}");
            let text = |name: &str| event.get(name).is_none_or(Value::is_string);
            let texts = ["host", "source", "sourcetype", "index"];
            ensure!(texts.iter().all(|name| text(name)), "not texts: {event}");
            match event.get("event") {
                None => return Ok(says(400, 12, "Event field is required", at)),
                Some(Value::String(text)) if text.is_empty() => {
                    return Ok(says(400, 13, "Event field cannot be blank", at));
                }
                Some(_) => {}
            }
            let fields = event["fields"].as_object();
            let is_flat = fields.is_none_or(|fields| fields.values().all(Value::is_string));
            if !is_flat {
                return Ok(says(400, 15, "Error in handling indexed fields", at));
            }
            events.push(event);
        }
        if events.is_empty() {
            return Ok(says(400, 5, "No data", None));
        }
        self.events.extend(events);
        Ok(says(200, 0, "Success", None))
    }
}

fn says(status: u16, code: u8, text: &str, at: Option<usize>) -> Answer {
    let mut body = json!({ "text": text, "code": code });
    if let Some(at) = at {
        body["invalid-event-number"] = at.into();
    }
    Answer::json(status, &body)
}
