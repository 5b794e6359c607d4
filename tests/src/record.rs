//! Events as peers see them, apart from the product's own types: headers and a body, and whether
//! they came through another program unchanged.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::avro;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Record {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Record {
    /// An event with these headers.
    #[must_use]
    pub fn new(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            headers: headers.iter().map(own).collect(),
            body: body.into(),
        }
    }

    /// Its Avro binary.
    #[must_use]
    pub fn to_avro(&self) -> Vec<u8> {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        avro::event(&headers, &self.body)
    }

    /// Reads a line of a `file-roll` sink's JSON.
    ///
    /// # Errors
    /// It is no such line.
    pub fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let headers = value["headers"].as_object().context("no headers")?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        let body = match value["body64"].as_str() {
            Some(encoded) => STANDARD.decode(encoded)?,
            None => text(&value["body"])?.into_bytes(),
        };
        let headers = headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), text(value)?)));
        Ok(Self {
            headers: headers.collect::<Result<_>>()?,
            body,
        })
    }
}

/// `count` different events: numbered ones, and among them every kind that a program between could
/// damage, from empty bodies to bytes that are no text.
#[must_use]
pub fn corpus(count: usize) -> Vec<Record> {
    (0..count).map(nth).collect()
}

/// The `n`-th event of every corpus.
#[must_use]
pub fn nth(n: usize) -> Record {
    let number = n.to_string();
    let headers = [("n", number.as_str())];
    match n % 16 {
        1 => Record::new(&headers, ""),
        3 => Record::new(&[], format!("no headers {n}")),
        5 => Record::new(
            &[
                ("n", &number),
                ("clé", "välue ☃ 𝄞"),
                ("空", ""),
                ("a b=c", "x\ty"),
            ],
            format!("üñïcode ☃ 𝄞 {n}"),
        ),
        7 => Record::new(
            &headers,
            [&[0, 0xff, 0xfe, b'\n', b'\r'], number.as_bytes()].concat(),
        ),
        9 => Record::new(
            &[("n", &number), ("long", &"v".repeat(2_000))],
            format!("{}{n}", "large ".repeat(1_500)),
        ),
        11 => {
            let names: Vec<_> = (0..100).map(|n| format!("header-{n}")).collect();
            let mut many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
            many.push(headers[0]);
            Record::new(&many, format!("many headers {n}"))
        }
        13 => Record::new(
            &[("n", &number), ("control", "a\0b\u{1}\n\"\\")],
            format!("line one\nline two {n}\n"),
        ),
        _ => Record::new(&headers, format!("reading {n}: pressure 1.013 bar")),
    }
}

/// What came of events that were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    pub sent: usize,
    pub arrived: usize,
    pub missing: usize,
    pub duplicates: usize,
    /// Arrived, but never sent like that.
    pub damaged: usize,
    /// Came before an event that was sent earlier; repeats do not count.
    pub out_of_order: usize,
}

impl Compared {
    /// Compares what arrived with what was sent. All events sent must be different.
    #[must_use]
    pub fn of(sent: &[Record], arrived: &[Record]) -> Self {
        let places: HashMap<_, _> = sent.iter().zip(0..).collect();
        let mut seen = vec![0_u32; sent.len()];
        let mut compared = Self {
            sent: sent.len(),
            arrived: arrived.len(),
            ..Self::default()
        };
        let mut furthest = 0;
        for event in arrived {
            let Some(&place) = places.get(event) else {
                compared.damaged += 1;
                continue;
            };
            seen[place] += 1;
            if seen[place] > 1 {
                compared.duplicates += 1;
            } else if place < furthest {
                compared.out_of_order += 1;
            } else {
                furthest = place;
            }
        }
        compared.missing = seen.iter().filter(|times| **times == 0).count();
        compared
    }

    /// Whether everything arrived unchanged; perhaps more than once or in another order.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == 0 && self.damaged == 0
    }

    /// Whether exactly what was sent arrived, in that order.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.is_complete() && self.duplicates == 0 && self.out_of_order == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Compared, Record, corpus};

    #[test]
    fn the_corpus_holds_no_event_twice() {
        let different: HashSet<_> = corpus(2_000).into_iter().collect();
        assert_eq!(different.len(), 2_000);
    }

    #[test]
    fn finds_what_is_missing_repeated_changed_and_late() {
        let sent = corpus(6);
        let mut arrived = vec![
            sent[0].clone(),
            sent[2].clone(),
            sent[1].clone(),
            sent[2].clone(),
            sent[5].clone(),
        ];
        arrived.push(Record::new(&[], "foreign"));
        let expected = Compared {
            sent: 6,
            arrived: 6,
            missing: 2,
            duplicates: 1,
            damaged: 1,
            out_of_order: 1,
        };
        assert_eq!(Compared::of(&sent, &arrived), expected);
        assert!(Compared::of(&sent, &sent).is_same());
    }

    #[test]
    fn reads_what_is_no_text_from_json() {
        let read = Record::from_json(r#"{"headers":{"a":"b"},"body64":"AP8="}"#);
        assert_eq!(read.ok(), Some(Record::new(&[("a", "b")], [0, 0xff])));
    }
}
