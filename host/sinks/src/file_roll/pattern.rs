//! File names from events: strftime directives and `%{header}`.

use jiff::{Timestamp, fmt::strtime, tz::TimeZone};
use levada_core::EventRef;

/// The header that holds an event's own time, in milliseconds since 1970, as in Flume.
const TIMESTAMP: &str = "timestamp";

/// Most bytes of a header's value that go into a name; a name may have 255 in all.
const MAX_VALUE: usize = 80;

/// Most bytes of one part of a path before its number and extensions are appended.
const MAX_PART: usize = 150;

/// A relative path with holes.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    pieces: Vec<Piece>,
    zone: TimeZone,
    clock: EventTime,
}

#[derive(Debug, Clone)]
enum Piece {
    /// Text without directives.
    Text(String),
    /// Text with strftime directives.
    Time(String),
    /// The value of this header.
    Header(String),
}

levada_core::choice! {
    /// Which time a file's name speaks of.
    pub(crate) enum EventTime {
        /// The event's `timestamp` header where it has one, else the time of writing.
        Event = "event",
        /// The time of writing.
        Wall = "wall",
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn parse(text: &str, zone: TimeZone, clock: EventTime) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('/') || text.ends_with('/') {
            return Err("a relative path that ends in a file name is needed".into());
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("a path with an empty part, `.` or `..`".into());
        }
        if text.contains(['\0', '\n', '\r']) {
            return Err("a character that no file name should have".into());
        }
        let pattern = Self {
            pieces: pieces(text)?,
            zone,
            clock,
        };
        for piece in &pattern.pieces {
            if let Piece::Time(directives) = piece {
                let epoch = Timestamp::UNIX_EPOCH.to_zoned(pattern.zone.clone());
                strtime::format(directives, &epoch).map_err(|error| error.to_string())?;
            }
        }
        Ok(pattern)
    }

    /// How many folders deep its files lie.
    pub(crate) fn depth(&self) -> usize {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) | Piece::Time(text) => text.matches('/').count(),
            Piece::Header(_) => 0,
        };
        // A directive such as %D brings slashes of its own.
        let of_time = |piece: &Piece| match piece {
            Piece::Time(directives) => self.time_text(directives, 0).matches('/').count(),
            Piece::Text(_) | Piece::Header(_) => 0,
        };
        self.pieces
            .iter()
            .map(|piece| text(piece).max(of_time(piece)))
            .sum()
    }

    /// The path for an event that is written at `now_ms`: always relative, never with `..`.
    pub(crate) fn expand(&self, event: EventRef<'_>, now_ms: u64) -> String {
        let own = || {
            event
                .header(TIMESTAMP)
                .and_then(|text| text.trim().parse().ok())
        };
        let ms = match self.clock {
            EventTime::Event => own().unwrap_or(now_ms),
            EventTime::Wall => now_ms,
        };
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Time(directives) => path.push_str(&self.time_text(directives, ms)),
                Piece::Header(name) => push_value(event.header(name).unwrap_or(""), &mut path),
            }
        }
        safe_parts(&path)
    }

    fn time_text(&self, directives: &str, ms: u64) -> String {
        let at = i64::try_from(ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let zoned = at
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .to_zoned(self.zone.clone());
        strtime::format(directives, &zoned).unwrap_or_else(|_| "_".into())
    }
}

/// The time zone of a name: `UTC`, `local`, or one of the tz database.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "UTC" | "utc" => Ok(TimeZone::UTC),
        "local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).map_err(|error| error.to_string()),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = find_header(rest) {
        push_text(&rest[..at], &mut pieces);
        let after = &rest[at + 2..];
        let end = after.find('}').ok_or("`%{` without `}`")?;
        if end == 0 {
            return Err("`%{}` without a header's name".into());
        }
        pieces.push(Piece::Header(after[..end].to_owned()));
        rest = &after[end + 1..];
    }
    push_text(rest, &mut pieces);
    Ok(pieces)
}

/// Where `%{` stands that is not the end of `%%{`.
fn find_header(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (b'%', b'{') => return Some(at),
            (b'%', _) => at += 2,
            _ => at += 1,
        }
    }
    None
}

fn push_text(text: &str, pieces: &mut Vec<Piece>) {
    if text.contains('%') {
        pieces.push(Piece::Time(text.to_owned()));
    } else if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// A header's value as a piece of a name: what could mean another folder becomes `_`.
fn push_value(value: &str, path: &mut String) {
    let value = cut(value, MAX_VALUE);
    if value.is_empty() {
        path.push('_');
    }
    let safe = |c: char| {
        if c == '/' || c == '\\' || c.is_control() {
            '_'
        } else {
            c
        }
    };
    path.extend(value.chars().map(safe));
}

/// Parts that came out as nothing, `.`, `..` or hidden are made harmless; long ones are cut.
fn safe_parts(path: &str) -> String {
    let part = |part: &str| {
        let part = cut(part, MAX_PART);
        match part.strip_prefix('.') {
            Some(rest) => format!("_{rest}"),
            None if part.is_empty() => "_".to_owned(),
            None => part.to_owned(),
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
