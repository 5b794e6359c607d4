//! TOML text to a table with places.

use std::ops::Range;

use levada_core::{
    Problem, Problems, Table, Value,
    settings::{Key, Span, ValueKind},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    files::SourceFile,
    replace::{Surroundings, replace},
};

/// Texts under these keys are never shown, wherever they came from.
const SECRET_KEYS: [&str; 4] = ["password", "token", "secret", "passphrase"];

/// Reads one file.
///
/// `None` if it is no TOML; every syntax error is in `problems` then. What must not be shown of the
/// file is added to `masked`.
pub(crate) fn parse(
    file: u16,
    source: &SourceFile,
    around: &Surroundings,
    problems: &mut Problems,
    masked: &mut Vec<Span>,
) -> Option<Table> {
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        // What stands below a table that is written twice is no further mistake.
        let mut below_twice = 0..0;
        for error in errors {
            let range = error.span().unwrap_or(0..0);
            if error.message() == "duplicate key" {
                if below_twice.contains(&range.start) {
                    continue;
                }
                if header_at(&source.text, range.start).is_some() {
                    below_twice = range.end..next_header(&source.text, range.end);
                }
            }
            let span = span(file, &range);
            let problem = Problem::error(Some(span), "", syntax(error.message()));
            problems.push(match first_of(&source.text, root.get_ref(), &range) {
                Some(first) if error.message() == "duplicate key" => {
                    problem.related(self::span(file, &first), "first written here")
                }
                _ => problem,
            });
        }
        return None;
    }
    let mut reader = Reader {
        file,
        source: &source.text,
        around,
        problems,
        masked,
    };
    Some(reader.table(root.get_ref(), 0..0, String::new()))
}

struct Reader<'a> {
    file: u16,
    source: &'a str,
    around: &'a Surroundings,
    problems: &'a mut Problems,
    masked: &'a mut Vec<Span>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, range: Range<usize>, path: String) -> Table {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let value = self.value(value, &name, path);
            let span = span(self.file, &key.span());
            entries.push((Key { name, span }, value));
        }
        entries.sort_by_key(|(key, _)| key.span.start);
        Table {
            path,
            span: span(self.file, &range),
            entries,
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, name: &str, path: String) -> Value {
        let span = span(self.file, &value.span());
        let kind = match value.get_ref() {
            DeValue::String(text) => self.text(text, span, name, &path),
            DeValue::Integer(number) => {
                let read = i64::from_str_radix(number.as_str(), number.radix());
                ValueKind::Integer(read.unwrap_or_else(|_| {
                    let message = "a number that does not fit into 64 bits";
                    self.problems
                        .push(Problem::error(Some(span), path, message));
                    0
                }))
            }
            DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => ValueKind::Bool(*value),
            DeValue::Datetime(date) => ValueKind::Date(date.to_string()),
            DeValue::Array(values) => {
                let entry = |(n, value)| self.value(value, name, format!("{path}[{n}]"));
                ValueKind::Array(values.iter().enumerate().map(entry).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table, value.span(), path)),
        };
        Value { kind, span }
    }

    fn text(&mut self, written: &str, span: Span, name: &str, path: &str) -> ValueKind {
        let replaced = match replace(written, self.around) {
            Ok(replaced) => replaced,
            Err(wrong) => {
                let problem = Problem::error(Some(span), path, wrong.message);
                self.problems.push(problem.help(wrong.help));
                // What it should have been is not known: nothing else is said about it.
                return ValueKind::Text {
                    text: written.to_owned(),
                    secret: false,
                };
            }
        };
        let key_is_secret = SECRET_KEYS.contains(&name);
        let literal = self
            .source
            .get(span.start..span.end)
            .is_some_and(|text| !text.contains("${"));
        if literal && (key_is_secret || has_password(written)) {
            self.masked.push(span);
        }
        if literal && key_is_secret && !written.is_empty() {
            let problem = Problem::warning(Some(span), path, "a secret is written in the file");
            let help = "write \"${file:/path}\", \"${cred:name}\" or \"${env:NAME}\" instead";
            self.problems.push(problem.help(help));
        }
        ValueKind::Text {
            secret: replaced.secret || key_is_secret || has_password(&replaced.text),
            text: replaced.text,
        }
    }
}

/// Whether a text is an address with a password: `mqtts://user:password@host`.
fn has_password(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let user = authority.and_then(|rest| rest.split('/').next()?.rsplit_once('@'));
    user.is_some_and(|(user, _)| user.contains(':'))
}

fn span(file: u16, range: &Range<usize>) -> Span {
    Span {
        file,
        start: range.start,
        end: range.end,
    }
}

/// The parser's words, in ours.
fn syntax(message: &str) -> String {
    match message {
        "duplicate key" => "the same key is written twice".into(),
        other => {
            let mut chars = other.chars();
            let first = chars.next().map(|c| c.to_ascii_lowercase());
            first.into_iter().chain(chars).collect()
        }
    }
}

/// Where a key that is written twice was written first.
fn first_of(text: &str, root: &DeTable<'_>, second: &Range<usize>) -> Option<Range<usize>> {
    if let Some((start, line)) = header_at(text, second.start) {
        // The parser forgets the first of two equal headers.
        let mut at = 0;
        for earlier in text.get(..start)?.split_inclusive('\n') {
            if earlier.trim() == line {
                return Some(at..at + earlier.trim_end().len());
            }
            at += earlier.len();
        }
        return None;
    }
    let first = last_before(root, text.get(second.clone())?, second.start)?;
    (next_header(text, first.end) > second.start).then_some(first)
}

/// The line that holds a byte, with its start, if it is the header of a table.
fn header_at(text: &str, at: usize) -> Option<(usize, &str)> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..)?.lines().next()?.trim();
    line.starts_with('[').then_some((start, line))
}

/// Where the next header of a table starts, or the end.
fn next_header(text: &str, from: usize) -> usize {
    let mut at = from;
    for line in text.get(from..).unwrap_or_default().split_inclusive('\n') {
        // The first piece is the rest of a line.
        if at > from && line.trim_start().starts_with('[') {
            return at;
        }
        at += line.len();
    }
    text.len()
}

/// The last key of that name before a place, which is the one in the same table.
fn last_before(table: &DeTable<'_>, name: &str, before: usize) -> Option<Range<usize>> {
    let mut best: Option<Range<usize>> = None;
    for (key, value) in table {
        let here = (key.get_ref() == name && key.span().start < before).then(|| key.span());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => last_before(inner, name, before),
            _ => None,
        };
        let found = [best, here, inner].into_iter().flatten();
        best = found.max_by_key(|range| range.start);
    }
    best
}
