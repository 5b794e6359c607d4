//! Gets events from any server over HTTP that can be told where one left off.
//!
//! A request says where to go on, `GET url?cursor=...`, and its answer has the events after that and
//! where to go on then. That is the cursor of this source: it is committed together with the events,
//! so each event arrives once if the server gives the same events for the same cursor. An answer with
//! events is followed by the next request at once, one without by a wait of `interval-ms`.
//!
//! What the server answers decides: 2xx has events or, if it is empty, none; 408, 425, 429 and 5xx are
//! asked again, not before the server's `retry-after`; anything else needs a human, as does an answer
//! that is not what the settings say. The settings are described in `levada.toml`.

use std::{sync::OnceLock, time::Duration};

use endpoint::Endpoint;
use levada_sdk::{Failure, NewEvent, Polled, http::Response, json, settings, source};

struct Poller {
    endpoint: Endpoint,
    format: Format,
    items: String,
    parameter: String,
    start: String,
    next_header: Option<String>,
    next: String,
    interval: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Json,
}

#[source]
fn poll(cursor: Option<&[u8]>) -> Result<Polled, Failure> {
    static POLLER: OnceLock<Result<Poller, Failure>> = OnceLock::new();
    let poller = POLLER.get_or_init(Poller::read).as_ref();
    poller.map_err(Clone::clone)?.poll(cursor)
}

impl Poller {
    fn read() -> Result<Self, Failure> {
        let text = |key, default: &str| settings::get(key).unwrap_or_else(|| default.into());
        let formats = [("lines", Format::Lines), ("json", Format::Json)];
        Ok(Self {
            endpoint: Endpoint::read()?,
            format: endpoint::word("format", &formats)?,
            items: text("items", "items"),
            parameter: text("cursor-parameter", "cursor"),
            start: text("start", ""),
            next_header: settings::get("next-header").map(|name| name.to_ascii_lowercase()),
            next: text("next", "next"),
            interval: Duration::from_millis(settings::parsed("interval-ms", 10_000)?),
        })
    }

    fn poll(&self, cursor: Option<&[u8]>) -> Result<Polled, Failure> {
        // It was text when it was given.
        let from = cursor.map_or(self.start.clone().into(), String::from_utf8_lossy);
        let answer = self.ask(&from)?;
        let text = answer.text().unwrap_or_default();
        if text.len() < answer.body.len() {
            return Err(Failure::fatal("the answer is not text in UTF-8"));
        }
        let events = self.events(text)?;
        if events.is_empty() {
            // The server may have moved on over what it does not give.
            let next = self.next_of(&answer, text, None);
            let cursor = next.unwrap_or_else(|| from.into_owned());
            return Ok(Polled::new(cursor).wait(self.interval));
        }
        let next = self.next_of(&answer, text, events.last().copied());
        let next = next.ok_or_else(|| self.no_next())?;
        if next == from {
            let what = format!("the answer has events, and says to go on where it began: `{from}`");
            return Err(Failure::fatal(what));
        }
        let mut polled = Polled::new(next).more();
        polled.events = events.into_iter().map(NewEvent::new).collect();
        Ok(polled)
    }

    fn ask(&self, from: &str) -> Result<Response, Failure> {
        let pair = (self.parameter.as_str(), from);
        let mut query = endpoint::query((!from.is_empty()).then_some(pair));
        if self.endpoint.url.contains('?') {
            query = query.replacen('?', "&", 1);
        }
        let answer = self.endpoint.send("GET", &query, &[], "")?;
        match (answer.is_success(), answer.is_temporary()) {
            (true, _) => Ok(answer),
            (false, true) => {
                let failure = Failure::retry(answer.reason());
                Err(match answer.retry_after() {
                    Some(wait) => failure.after(wait),
                    None => failure,
                })
            }
            (false, false) => Err(Failure::fatal(answer.reason())),
        }
    }

    /// The texts of the events of an answer.
    fn events<'a>(&self, text: &'a str) -> Result<Vec<&'a str>, Failure> {
        if self.format == Format::Lines {
            return Ok(text.lines().filter(|line| !line.is_empty()).collect());
        }
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let array = json::member(text, &self.items).unwrap_or(text);
        json::elements(array).ok_or_else(|| {
            let items = &self.items;
            Failure::fatal(format!(
                "the answer is neither a JSON array nor an object with one under `{items}`"
            ))
        })
    }

    /// Where the answer says to go on.
    fn next_of(&self, answer: &Response, text: &str, last: Option<&str>) -> Option<String> {
        if let Some(name) = &self.next_header {
            return answer.header(name).map(str::to_owned);
        }
        let whole = (self.format == Format::Json).then_some(text);
        let mut places = [whole, last].into_iter().flatten();
        places.find_map(|object| {
            let value = json::member(object, &self.next)?;
            match json::unquote(value) {
                Some(text) => Some(text.into_owned()),
                None => (value != "null").then(|| value.to_owned()),
            }
        })
    }

    fn no_next(&self) -> Failure {
        let next = &self.next;
        Failure::fatal(match &self.next_header {
            Some(name) => format!("setting `next-header`: the answer has no header `{name}`"),
            None => format!("setting `next`: neither the answer nor its last event has `{next}`"),
        })
    }
}

#[cfg(test)]
mod tests;
