//! What stands in a recording where a secret was: as many asterisks as it has bytes.
//!
//! Known secrets are those that are granted and those among the settings. Asterisks of the same
//! number keep every length and offset, so that a guest which only passes a secret on does the same
//! with them when it is replayed. Headers of requests that carry credentials are masked whatever
//! is in them, since a guest may have encoded a secret there. What servers answered, and the events,
//! are written as they were.

use base64::{Engine, engine::general_purpose::STANDARD};
use levada_core::Secret;
use serde_json::{Map, Value};

use crate::{event::coded, http::Header};

/// The secrets of one handler, with where they come from.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    /// The longest first, since one may be part of another.
    secrets: Vec<Secret>,
    /// Where each is configured, such as `grants.secrets.token`.
    pub(crate) names: Vec<String>,
}

/// Headers that carry credentials.
const CREDENTIALS: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
];

impl Masks {
    /// Takes secrets by the names of their keys.
    pub(crate) fn new(named: impl IntoIterator<Item = (String, Secret)>) -> Self {
        let (mut secrets, mut names) = (Vec::new(), Vec::new());
        for (name, secret) in named {
            let plain = secret.reveal().trim_end_matches(['\r', '\n']).to_owned();
            if plain.is_empty() {
                continue;
            }
            // As it stands within JSON.
            let quoted = Value::from(plain.as_str()).to_string();
            secrets.push(quoted[1..quoted.len() - 1].to_owned());
            secrets.push(plain);
            names.push(name);
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self {
            secrets: secrets.into_iter().map(Secret::new).collect(),
            names,
        }
    }

    /// A value without any secret.
    pub(crate) fn mask(&self, value: Value) -> Value {
        if self.secrets.is_empty() {
            return value;
        }
        if let Some(bytes) = coded(&value) {
            let key = "base64".to_owned();
            return Value::Object(Map::from_iter([(
                key,
                STANDARD.encode(self.bytes(bytes)).into(),
            )]));
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
            Value::String(text) => self.text(text).into(),
            Value::Array(values) => values.into_iter().map(|value| self.mask(value)).collect(),
            Value::Object(members) => {
                let members = members.into_iter();
                let masked = members.map(|(name, value)| (self.text(name), self.mask(value)));
                Value::Object(masked.collect())
            }
        }
    }

    /// A text without any secret.
    pub(crate) fn text(&self, mut text: String) -> String {
        for secret in self.secrets.iter().map(Secret::reveal) {
            if text.contains(secret) {
                text = text.replace(secret, &stars(secret));
            }
        }
        text
    }

    fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for secret in self.secrets.iter().map(|secret| secret.reveal().as_bytes()) {
            let mut at = 0;
            while let Some(part) = bytes.get_mut(at..at + secret.len()) {
                if part == secret {
                    part.fill(b'*');
                }
                at += 1;
            }
        }
        bytes
    }
}

fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

/// The headers of a request, with the values of those that carry credentials masked.
pub(crate) fn header_mask(headers: &[Header]) -> Vec<Header> {
    let masked = |header: &Header| {
        let mut masked = header.clone();
        let mut known = CREDENTIALS.iter();
        if known.any(|name| header.name.eq_ignore_ascii_case(name)) {
            masked.value = stars(&header.value);
        }
        masked
    };
    headers.iter().map(masked).collect()
}
