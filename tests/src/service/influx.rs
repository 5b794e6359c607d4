//! The write API of InfluxDB 2 (<https://docs.influxdata.com/influxdb/v2/api/v2/#operation/PostWrite>)
//! with its line protocol (<https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>).

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use serde_json::json;

use super::{
    Protocol,
    request::{Answer, Request},
};

/// A server with one bucket, whose field `n` is a float.
#[derive(Debug, Default)]
pub struct Influx {
    /// Fields as they were written, by series (measurement and tags) and time.
    pub points: BTreeMap<(String, u64), BTreeMap<String, String>>,
    /// How many points came that were there.
    pub repeated: usize,
}

/// One line: its series, its fields and its time.
type Point = (String, BTreeMap<String, String>, u64);

#[async_trait]
impl Protocol for Influx {
    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        request.posts("/api/v2/write", "text/plain; charset=utf-8")?;
        let query = |name: &str| request.query.get(name).map_or("", String::as_str);
        if request.header("authorization") != "Token s3cret" {
            return Ok(says(401, "unauthorized", "unauthorized access"));
        }
        if (query("org"), query("bucket")) != ("plant", "raw & fine") {
            return Ok(says(404, "not found", "bucket not found"));
        }
        anyhow::ensure!(query("precision") == "ns", "times of another precision");
        anyhow::ensure!(request.query.len() == 3, "unknown words in the query");
        let mut points = Vec::new();
        for line in request.lines()? {
            match point(line) {
                Some(point) => points.push(point),
                // Nothing of such a request is written.
                None => {
                    let why = format!("unable to parse '{line}': bad format");
                    return Ok(says(400, "invalid", &why));
                }
            }
        }
        let mut conflict = false;
        for (series, fields, time) in points {
            // The others are written nevertheless.
            if fields.get("n").is_some_and(|n| n.parse::<f64>().is_err()) {
                conflict = true;
            } else if self.points.insert((series, time), fields).is_some() {
                self.repeated += 1;
            }
        }
        Ok(match conflict {
            false => Answer::new(204),
            true => {
                let why = "partial write: field type conflict: input field \"n\" is type string, \
                           already exists as type float dropped=1";
                says(422, "unprocessable entity", why)
            }
        })
    }
}

fn says(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({ "code": code, "message": message }))
}

/// Reads `measurement,tag=value field=value,... time`.
fn point(line: &str) -> Option<Point> {
    if line.starts_with('#') {
        return None;
    }
    let [series, fields, time] = split(line, ' ').try_into().ok()?;
    let mut tags = split(series, ',').into_iter();
    let measurement = tags.next().filter(|name| !name.is_empty())?;
    let pairs: Option<Vec<_>> = tags.map(pair).collect();
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs? {
        if tags.insert(name.into(), value.into()).is_some() {
            return None;
        }
    }
    let fields: Option<BTreeMap<_, _>> = split(fields, ',').into_iter().map(pair).collect();
    let fields = fields?.into_iter().map(|(name, value)| {
        let is_text = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        let is_sound =
            is_text || value.parse::<f64>().is_ok() || ["true", "false"].contains(&value);
        is_sound.then(|| (name.to_owned(), value.to_owned()))
    });
    Some((
        format!("{measurement} {tags:?}"),
        fields.collect::<Option<_>>()?,
        time.parse().ok()?,
    ))
}

/// A name and a value, both of them not empty.
fn pair(text: &str) -> Option<(&str, &str)> {
    let [name, value] = split(text, '=').try_into().ok()?;
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

/// Splits at a character, but not where it is escaped or in a text.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut escaped, mut quoted) = (false, false);
    for (place, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if c == at && !quoted => {
                parts.push(&text[from..place]);
                from = place + at.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}
