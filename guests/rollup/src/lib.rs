//! Rolls up numbers: for each window of time and each value of a header one event with count, sum,
//! mean, least and greatest value.
//!
//! An event belongs to the window in which it was received. When a window is over, the timer gives
//! its events, and forgets it in the same transaction: every number is in exactly one of them. What
//! is handled after that (a batch that had to wait) makes a further event of the same window, with
//! what was not in the first. The configuration says how often to look (`every`).
//!
//! The event's body: `{"key":"a","from-ms":0,"to-ms":60000,"count":2,"sum":3,"mean":1.5,"min":1,
//! "max":2}`; the key is its header `key`, too.
//!
//! Settings: `value`, the JSON member to add up; `key`, the header to group by; `window-seconds`
//! (60); `keep`, whether the events themselves go on, too (no: they are discarded as `rolled up`).

use std::{fmt::Write, sync::OnceLock};

use levada_sdk::{
    Event, Failure, NewEvent, Verdict, call, clock, interceptor, json, settings, state, timer,
};

struct Settings {
    value: String,
    key: Option<String>,
    window_ms: u64,
    keep: bool,
}

/// What is known of one window and key.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sums {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

fn settings() -> Result<&'static Settings, Failure> {
    static SETTINGS: OnceLock<Result<Settings, Failure>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(Settings::read).as_ref();
    settings.map_err(Clone::clone)
}

#[interceptor]
fn rollup(event: &Event<'_>) -> Result<Verdict, Failure> {
    settings()?.add(event)
}

#[timer]
fn close() -> Result<Vec<NewEvent>, Failure> {
    settings()?.close()
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let value = settings::get("value")
            .ok_or_else(|| Failure::fatal("setting `value`: what to add up is not set"))?;
        let seconds: u64 = settings::parsed("window-seconds", 60)?;
        if seconds == 0 {
            return Err(Failure::fatal(
                "setting `window-seconds`: a window takes time",
            ));
        }
        Ok(Self {
            value,
            key: settings::get("key"),
            window_ms: seconds.saturating_mul(1000),
            keep: settings::parsed("keep", false)?,
        })
    }

    fn add(&self, event: &Event<'_>) -> Result<Verdict, Failure> {
        let Some(number) = event.text().and_then(|text| self.number(text)) else {
            return Ok(Verdict::reject("no number to add up"));
        };
        let header = self.key.as_ref().and_then(|name| event.header(name));
        let key = header.unwrap_or_default();
        if key.len() > 1000 {
            return Ok(Verdict::reject("key longer than 1000 bytes"));
        }
        // Whole milliseconds, and never before 1970.
        let window = call::received_ms() as u64 / self.window_ms;
        let name = format!("{window:016x}/{key}");
        let before = state::text(&name).and_then(|text| Sums::parse(&text));
        let sums = before.map_or(Sums::of(number), |sums| sums.with(number));
        state::set(&name, sums.text())?;
        Ok(match self.keep {
            true => Verdict::pass(),
            false => Verdict::discard("rolled up"),
        })
    }

    /// The first member of that name that is a number.
    fn number(&self, text: &str) -> Option<f64> {
        let found = json::values_of(text, |name| name == self.value).ok()?;
        let number: f64 = text.get(found.first()?.clone())?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// Gives the windows that are over.
    fn close(&self) -> Result<Vec<NewEvent>, Failure> {
        let current = clock::now_ms() / self.window_ms;
        let mut events = Vec::new();
        for name in state::all_keys("") {
            let parsed = name
                .split_once('/')
                .and_then(|(window, key)| Some((u64::from_str_radix(window, 16).ok()?, key)));
            let Some((window, key)) = parsed.filter(|(window, _)| *window < current) else {
                continue;
            };
            if let Some(sums) = state::text(&name).and_then(|text| Sums::parse(&text)) {
                let from = window * self.window_ms;
                let body = sums.json(key, from, from + self.window_ms);
                events.push(NewEvent::new(body).set("key", key));
            }
            state::remove(&name);
        }
        Ok(events)
    }
}

impl Sums {
    fn of(number: f64) -> Self {
        let (count, sum, min, max) = (1, number, number, number);
        Self {
            count,
            sum,
            min,
            max,
        }
    }

    fn with(self, number: f64) -> Self {
        Self {
            count: self.count + 1,
            sum: self.sum + number,
            min: self.min.min(number),
            max: self.max.max(number),
        }
    }

    fn text(self) -> String {
        let Self {
            count,
            sum,
            min,
            max,
        } = self;
        format!("{count} {sum} {min} {max}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let count = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse().ok();
        let (sum, min, max) = (number()?, number()?, number()?);
        Some(Self {
            count,
            sum,
            min,
            max,
        })
    }

    fn json(self, key: &str, from: u64, to: u64) -> String {
        let Self {
            count,
            sum,
            min,
            max,
        } = self;
        let mean = sum / count as f64;
        format!(
            "{{\"key\":{},\"from-ms\":{from},\"to-ms\":{to},\"count\":{count},\"sum\":{sum},\
             \"mean\":{mean},\"min\":{min},\"max\":{max}}}",
            quoted(key)
        )
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\u{1f}' => {
                // Writing to a string does not fail.
                let _written = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
