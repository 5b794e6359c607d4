//! Hides the values of named fields: each becomes `***`.
//!
//! A field is a member of a JSON object in the body, at any depth, and a header of that name. The
//! whole value is hidden, whatever its type; all else in the body stays byte for byte. A body that
//! is not JSON could hide anything anywhere, so such an event is rejected; with the setting
//! `not-json = "pass"` it goes on and only its headers are looked at.
//!
//! Settings: `fields`, a list of names; `not-json`, `reject` (default) or `pass`.

use std::{ops::Range, sync::OnceLock};

use levada_sdk::{Event, Failure, Patch, Verdict, interceptor, json, settings};

/// What a value becomes, as a header and as JSON.
const HIDDEN: (&str, &str) = ("***", "\"***\"");

struct Settings {
    fields: Vec<String>,
    pass_not_json: bool,
}

#[interceptor]
fn redact(event: &Event<'_>) -> Result<Verdict, Failure> {
    static SETTINGS: OnceLock<Result<Settings, Failure>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(Settings::read).as_ref();
    settings
        .map(|settings| settings.redact(event))
        .map_err(Clone::clone)
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let pass_not_json = match settings::get("not-json").as_deref() {
            None | Some("reject") => false,
            Some("pass") => true,
            Some(other) => {
                let text = format!("setting `not-json`: `{other}` is neither `reject` nor `pass`");
                return Err(Failure::fatal(text));
            }
        };
        let fields = settings::texts("fields")?
            .ok_or_else(|| Failure::fatal("setting `fields`: which fields to hide is not set"))?;
        Ok(Self {
            fields,
            pass_not_json,
        })
    }

    fn redact(&self, event: &Event<'_>) -> Verdict {
        let mut patch = Patch::new();
        for (name, _) in event.headers().filter(|(name, _)| self.hides(name)) {
            patch = patch.set(name, HIDDEN.0);
        }
        let text = event.text();
        match text
            .and_then(|text| Some((text, json::values_of(text, |name| self.hides(name)).ok()?)))
        {
            Some((text, values)) if !values.is_empty() => patch.body(hide(text, &values)).into(),
            None if !self.pass_not_json => Verdict::reject("not JSON"),
            _ => patch.into(),
        }
    }

    fn hides(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field == name)
    }
}

/// The text with other values at these places, which rise and do not overlap.
fn hide(text: &str, values: &[Range<usize>]) -> String {
    let mut hidden = String::with_capacity(text.len() + values.len() * HIDDEN.1.len());
    let mut from = 0;
    for value in values {
        hidden.push_str(text.get(from..value.start).unwrap_or_default());
        hidden.push_str(HIDDEN.1);
        from = value.end;
    }
    hidden.push_str(text.get(from..).unwrap_or_default());
    hidden
}

#[cfg(test)]
mod tests;
