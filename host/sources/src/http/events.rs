//! Events out of a body, straight into a batch: no tree is built on the way.

use std::{borrow::Cow, fmt};

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use levada_core::{Batch, BatchBuilder, Limits, batch::FaultKind};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use url::form_urlencoded;

use super::answer::Refusal;

/// Most events of a request.
const MAX_EVENTS: usize = 100_000;

/// How deep JSON may be nested.
const MAX_DEPTH: usize = 64;

/// Headers that only the agent itself writes.
const RESERVED: &str = "levada.";

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Flume's array of events.
    Array,
    /// A JSON value a line.
    Lines,
    /// One event.
    Raw,
}

impl Kind {
    /// What the head says.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(CONTENT_TYPE) else {
            return Ok(Self::Raw);
        };
        let text = value.to_str().unwrap_or("");
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let kind = match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" => Self::Array,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Lines,
            _ => return Ok(Self::Raw),
        };
        let charset = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("charset")
                .then(|| value.trim().trim_matches('"'))
        });
        match charset {
            Some(other)
                if !["utf-8", "utf8"]
                    .iter()
                    .any(|c| other.eq_ignore_ascii_case(c)) =>
            {
                let error = "JSON is understood in UTF-8 only";
                Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
            }
            _ => Ok(kind),
        }
    }
}

/// The query's parameters: headers of every event.
pub(crate) fn common_headers(
    query: &str,
    limits: &Limits,
) -> Result<Vec<(String, String)>, Refusal> {
    let bad = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let mut headers = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        check_header(&name, &value, limits).map_err(|problem| bad(problem.reason))?;
        headers.push((name.into_owned(), value.into_owned()));
    }
    Ok(headers)
}

/// The events of a body. `common` are headers of each, which its own replace.
pub(crate) fn read(
    data: &[u8],
    kind: Kind,
    common: &[(String, String)],
    limits: &Limits,
) -> Result<Batch, Refusal> {
    let mut collector = Collector {
        builder: BatchBuilder::default(),
        common,
        limits,
        bad: None,
    };
    let done = match kind {
        Kind::Raw => collector.push(&[], data),
        Kind::Lines => lines(data, &mut collector),
        Kind::Array => array(data, &mut collector),
    };
    match done {
        Ok(()) => Ok(collector.builder.finish()),
        Err(bad) => {
            let index = bad
                .index
                .or((kind != Kind::Array).then_some(collector.builder.len()));
            let mut refusal = Refusal::new(bad.status, bad.reason);
            refusal.index = index;
            Err(refusal)
        }
    }
}

/// Why a body is refused.
#[derive(Debug)]
struct Bad {
    status: StatusCode,
    reason: String,
    index: Option<usize>,
}

impl Bad {
    fn new(reason: impl fmt::Display) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason: reason.to_string(),
            index: None,
        }
    }

    fn too_large(reason: impl fmt::Display) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            ..Self::new(reason)
        }
    }
}

/// Gathers events and checks each against the limits.
struct Collector<'a> {
    builder: BatchBuilder,
    common: &'a [(String, String)],
    limits: &'a Limits,
    /// What `serde` cannot carry through its own errors.
    bad: Option<Bad>,
}

impl Collector<'_> {
    fn push(&mut self, own: &[(Text<'_>, Text<'_>)], body: &[u8]) -> Result<(), Bad> {
        if self.builder.len() >= MAX_EVENTS {
            return Err(Bad::too_large(format!(
                "more than {MAX_EVENTS} events in a request"
            )));
        }
        for (name, value) in own {
            check_header(&name.0, &value.0, self.limits)?;
        }
        let allowed = self.limits.headers;
        if own.len() + self.common.len() > allowed {
            return Err(Bad::new(FaultKind::Headers { allowed }));
        }
        let before = self.builder.bytes();
        let common = self
            .common
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let own = own.iter().map(|(name, value)| (&*name.0, &*value.0));
        let headers = common.chain(own);
        let rough: usize = headers
            .clone()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let allowed = self.limits.event;
        if rough + body.len() > allowed {
            let bytes = rough + body.len();
            return Err(Bad::too_large(FaultKind::EventSize { bytes, allowed }));
        }
        self.builder.push(headers, body);
        let bytes = self.builder.bytes() - before;
        if bytes > allowed {
            return Err(Bad::too_large(FaultKind::EventSize { bytes, allowed }));
        }
        Ok(())
    }
}

fn check_header(name: &str, value: &str, limits: &Limits) -> Result<(), Bad> {
    if name.is_empty() || name.len() > limits.name {
        return Err(Bad::new(FaultKind::Name {
            bytes: name.len(),
            allowed: limits.name,
        }));
    }
    if value.len() > limits.value {
        return Err(Bad::new(FaultKind::Value {
            bytes: value.len(),
            allowed: limits.value,
        }));
    }
    if name.starts_with(RESERVED) {
        return Err(Bad::new(format!(
            "the header `{name}` is reserved for the agent"
        )));
    }
    Ok(())
}

fn lines(data: &[u8], collector: &mut Collector<'_>) -> Result<(), Bad> {
    for line in data.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        check_depth(line)?;
        serde_json::from_slice::<IgnoredAny>(line)
            .map_err(|error| Bad::new(format!("the line is no JSON: {error}")))?;
        std::str::from_utf8(line).map_err(|_| Bad::new("the line is no UTF-8"))?;
        collector.push(&[], line)?;
    }
    Ok(())
}

fn array(data: &[u8], collector: &mut Collector<'_>) -> Result<(), Bad> {
    check_depth(data)?;
    let mut json = serde_json::Deserializer::from_slice(data);
    let read = Events(collector)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    match (read, collector.bad.take()) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(bad)) => Err(bad),
        (Err(error), None) => Err(Bad::new(error)),
    }
}

/// Refuses nesting that is only there to be deep, before a parser sees it.
fn check_depth(json: &[u8]) -> Result<(), Bad> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Bad::new(format!(
                "JSON that is nested deeper than {MAX_DEPTH}"
            )));
        }
    }
    Ok(())
}

/// The array.
struct Events<'a, 'c>(&'a mut Collector<'c>);

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        loop {
            let index = self.0.builder.len();
            let bad = match events.next_element::<Event<'de>>() {
                Ok(None) => return Ok(()),
                Ok(Some(event)) => match self.0.push(&event.headers, event.body.0.as_bytes()) {
                    Ok(()) => continue,
                    Err(bad) => bad,
                },
                Err(error) => Bad::new(error),
            };
            let error = A::Error::custom(&bad.reason);
            self.0.bad = Some(Bad {
                index: Some(index),
                ..bad
            });
            return Err(error);
        }
    }
}

/// One event of the array.
struct Event<'de> {
    headers: Vec<(Text<'de>, Text<'de>)>,
    body: Text<'de>,
}

impl<'de> Deserialize<'de> for Event<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: {\"headers\": {...}, \"body\": \"...\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event<'de>, A::Error> {
        let mut event = Event {
            headers: Vec::new(),
            body: Text(Cow::Borrowed("")),
        };
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key.0 {
                "headers" => {
                    let headers = map.next_value::<Option<Headers<'de>>>()?;
                    event.headers = headers.map(|headers| headers.0).unwrap_or_default();
                }
                "body" => {
                    let body = map.next_value::<Option<Text<'de>>>()?;
                    event.body = body.unwrap_or(Text(Cow::Borrowed("")));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(event)
    }
}

/// The headers of an event: text, or a number or truth value as its text, as Flume's parser has it.
struct Headers<'de>(Vec<(Text<'de>, Text<'de>)>);

impl<'de> Deserialize<'de> for Headers<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headers: {\"name\": \"value\", ...}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers<'de>, A::Error> {
        let mut headers = Vec::new();
        while let Some(name) = map.next_key::<Text<'de>>()? {
            headers.push((name, map.next_value::<Scalar<'de>>()?.0));
        }
        Ok(Headers(headers))
    }
}

/// A text, borrowed from the body where it has no escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_str(TextVisitor).map(Text)
    }
}

/// A text, a number, or a truth value.
struct Scalar<'de>(Text<'de>);

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(ScalarVisitor)
            .map(|text| Self(Text(text)))
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or a truth value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(if value { "true" } else { "false" }))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }
}
