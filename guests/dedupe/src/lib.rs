//! Lets each event pass once: events with a value of a header that was seen before are discarded
//! as `seen before`.
//!
//! What was seen is kept in `state`, in the same transaction as the events, so that neither a crash
//! nor a retry lets an event pass twice or none. A value is remembered for a while, counted from
//! its first event. Each takes its own length and 32 bytes of the grant: when that is used up the
//! batch waits until the oldest values are forgotten.
//!
//! Settings: `header`, the header's name; `for-seconds`, how long a value is remembered (3600);
//! `without`, what becomes of an event without the header: `pass` (default) or `reject`.

use std::{sync::OnceLock, time::Duration};

use levada_sdk::{Event, Failure, Verdict, interceptor, settings, state};

/// Bytes of a value that can be a key.
const LONGEST: usize = 1024;

struct Settings {
    header: String,
    remember: Duration,
    reject_without: bool,
}

#[interceptor]
fn dedupe(event: &Event<'_>) -> Result<Verdict, Failure> {
    static SETTINGS: OnceLock<Result<Settings, Failure>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(Settings::read).as_ref();
    settings.map_err(Clone::clone)?.judge(event)
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let reject_without = match settings::get("without").as_deref() {
            None | Some("pass") => false,
            Some("reject") => true,
            Some(other) => {
                let text = format!("setting `without`: `{other}` is neither `pass` nor `reject`");
                return Err(Failure::fatal(text));
            }
        };
        let header = settings::get("header").ok_or_else(|| {
            Failure::fatal("setting `header`: by which header to tell events apart is not set")
        })?;
        Ok(Self {
            header,
            remember: Duration::from_secs(settings::parsed("for-seconds", 3600)?),
            reject_without,
        })
    }

    fn judge(&self, event: &Event<'_>) -> Result<Verdict, Failure> {
        let value = match event.header(&self.header).filter(|value| !value.is_empty()) {
            Some(value) if value.len() <= LONGEST => value,
            Some(_) => return Ok(Verdict::reject("header longer than 1 KiB")),
            None if self.reject_without => return Ok(Verdict::reject("header missing")),
            None => return Ok(Verdict::pass()),
        };
        if state::get(value).is_some() {
            return Ok(Verdict::discard("seen before"));
        }
        state::set_for(value, [], self.remember)?;
        Ok(Verdict::pass())
    }
}

#[cfg(test)]
mod tests;
