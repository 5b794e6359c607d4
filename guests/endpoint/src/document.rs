//! Events as JSON objects, one line each.

use levada_sdk::{Event, Failure, json, settings};

use crate::{millis, word};

/// What of an event becomes its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The body, which is a JSON object.
    Body,
    /// The headers, the body as text, and the time.
    Event,
}

/// How events become JSON objects, by the settings `document` and `time-field`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    pub form: Form,
    /// The member with the time in milliseconds since 1970, where the body is not all; none if it is
    /// empty.
    pub time_field: String,
    /// The member with the event's id; none if it is empty.
    pub id_field: String,
}

impl Documents {
    /// Reads the settings; `document` is `body` if it is not set. There is no member with the id.
    ///
    /// # Errors
    /// [`Failure::Fatal`] that names the setting which is wrong.
    pub fn read(time_field: &str) -> Result<Self, Failure> {
        Ok(Self {
            form: word("document", &[("body", Form::Body), ("event", Form::Event)])?,
            time_field: settings::get("time-field").unwrap_or_else(|| time_field.to_owned()),
            id_field: String::new(),
        })
    }

    /// The document of an event, without line breaks.
    ///
    /// # Errors
    /// The body is not what the form wants.
    pub fn write(&self, event: &Event<'_>) -> Result<String, String> {
        let text = event.text().ok_or("the body is not text")?;
        let mut out = String::with_capacity(text.len() + 64);
        out.push('{');
        if let (false, Some(id)) = (self.id_field.is_empty(), event.id()) {
            json::quote(&self.id_field, &mut out);
            out.push_str(&format!(":\"{id}\","));
        }
        match self.form {
            Form::Body => {
                let members = json::members(text).ok_or("the body is not a JSON object")?;
                let inside = text.trim().strip_prefix('{').unwrap_or_default();
                if members.is_empty() && out.ends_with(',') {
                    out.pop();
                }
                // In JSON a line break stands between values only.
                out.extend(inside.chars().map(|c| match c {
                    '\n' | '\r' => ' ',
                    other => other,
                }));
            }
            Form::Event => {
                if !self.time_field.is_empty() {
                    json::quote(&self.time_field, &mut out);
                    out.push_str(&format!(":{},", millis(event)));
                }
                write_members(event, text, &mut out);
                out.push('}');
            }
        }
        Ok(out)
    }
}

/// Writes an event as Levada's own HTTP source takes it: `{"headers": {...}, "body": "..."}`.
pub fn write_event(event: &Event<'_>, text: &str, out: &mut String) {
    out.push('{');
    write_members(event, text, out);
    out.push('}');
}

fn write_members(event: &Event<'_>, text: &str, out: &mut String) {
    out.push_str("\"headers\":");
    json::write_pairs(event.headers(), out);
    out.push_str(",\"body\":");
    json::quote(text, out);
}

#[cfg(test)]
mod tests;
