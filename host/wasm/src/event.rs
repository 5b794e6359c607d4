//! Events as JSON, as authors and operators write and read them.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use levada_core::{Batch, BatchBuilder, EventRef, Incarnation, OriginId, Origins};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
    ser::SerializeMap,
};

/// One event: `{"headers":{"a":"b"},"body":"text"}`, with `body64` instead of a body that is no
/// text. Keys that are not known are left out when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventText {
    /// The origin id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// In the order of the event.
    #[serde(default, with = "ordered")]
    pub headers: Vec<(String, String)>,
    /// The body, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body64: Option<String>,
}

/// Why a text is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoEvent(String);

impl EventText {
    /// An event as text.
    #[must_use]
    pub fn of(event: EventRef<'_>, id: Option<OriginId>) -> Self {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let (body, body64) = match std::str::from_utf8(event.body()) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(event.body()))),
        };
        Self {
            id: id.map(|id| id.to_string()),
            headers: event.headers().map(pair).collect(),
            body,
            body64,
        }
    }

    /// Events out of their texts. Ids count if every event has one.
    ///
    /// # Errors
    /// [`NoEvent`]: a body that is not base64, or an id that is none.
    pub fn batch(events: &[Self]) -> Result<Batch, NoEvent> {
        let mut builder = BatchBuilder::default();
        let mut ids = Vec::new();
        for event in events {
            let headers = event.headers.iter().map(|(name, value)| (name, value));
            builder.push(headers, &event.bytes()?);
            if let Some(text) = &event.id {
                let no = || NoEvent(format!("`id`: {text:?} is no origin id"));
                ids.push(id_of(text).ok_or_else(no)?);
            }
        }
        let batch = builder.finish();
        Ok(match ids.len() == batch.len() {
            true => batch.with_origins(Origins::from_ids(ids)),
            false => batch,
        })
    }

    fn bytes(&self) -> Result<Vec<u8>, NoEvent> {
        match (&self.body, &self.body64) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(text)) => STANDARD
                .decode(text)
                .map_err(|_| NoEvent("`body64` is not base64".into())),
            (None, None) => Ok(Vec::new()),
        }
    }
}

/// Reads `<32 hex digits>-<sequence>.<child>`.
fn id_of(text: &str) -> Option<OriginId> {
    let (incarnation, rest) = text.split_once('-')?;
    let (sequence, child) = rest.split_once('.')?;
    let digits = incarnation.len() == 32 && incarnation.bytes().all(|b| b.is_ascii_hexdigit());
    let incarnation = u128::from_str_radix(incarnation, 16)
        .ok()
        .filter(|_| digits)?;
    Some(OriginId {
        incarnation: Incarnation(incarnation.to_be_bytes()),
        sequence: sequence.parse().ok()?,
        child: child.parse().ok()?,
    })
}

/// Bytes as JSON: a text where they are one, else `{"base64":"..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

/// The key of bytes that are no text.
const BASE64: &str = "base64";

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(BASE64, &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Coded { base64: String },
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            Form::Coded { base64 } => STANDARD.decode(base64).map(Self).map_err(D::Error::custom),
        }
    }
}

/// The bytes of a value that a [`Blob`] became, if they are no text.
pub(crate) fn coded(value: &serde_json::Value) -> Option<Vec<u8>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    STANDARD.decode(object.get(BASE64)?.as_str()?).ok()
}

/// Bytes as a [`Blob`], for `#[serde(with)]`.
pub(crate) mod blob {
    use super::{Blob, Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        Blob(bytes.to_vec()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(Blob::deserialize(from)?.0)
    }
}

/// Bytes that may be absent as a [`Blob`], for `#[serde(serialize_with)]`.
pub(crate) fn optional_blob<S: Serializer>(
    bytes: &Option<Vec<u8>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    bytes
        .as_ref()
        .map(|bytes| Blob(bytes.clone()))
        .serialize(to)
}

/// Pairs as a JSON object that keeps their order.
mod ordered {
    use super::{Deserializer, Error, MapAccess, SerializeMap, Serializer, Visitor, fmt};

    type Pairs = Vec<(String, String)>;

    pub(super) fn serialize<S: Serializer>(
        pairs: &[(String, String)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(pairs.len()))?;
        for (name, value) in pairs {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        struct Headers;

        impl<'de> Visitor<'de> for Headers {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Pairs::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if pairs.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format!("the header {name:?} twice")));
                    }
                    pairs.push((name, value));
                }
                Ok(pairs)
            }
        }

        from.deserialize_map(Headers)
    }
}

#[cfg(test)]
mod tests;
