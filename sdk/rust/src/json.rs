//! JSON text, looked at without building a tree.
//!
//! [`values_of`] finds the values of members by name and says where in the text they are: enough to
//! cut out, to replace or to read single values. The whole text is checked on the way; what is not
//! JSON (RFC 8259) is refused, and so is what nests deeper than [`MAX_DEPTH`]. For more, use
//! `serde_json`.

use std::{borrow::Cow, fmt, ops::Range};

/// The deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 128;

/// The text is not JSON, or nests too deeply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson {
    /// The byte at which it was noticed.
    pub at: usize,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON at byte {}", self.at)
    }
}

impl std::error::Error for NotJson {}

/// Finds the values of all members whose name is wanted, at any depth, in the order of the text.
///
/// A range covers the value without white space around it. What lies inside of a value that was
/// found is checked, and not looked for. Names are compared after their escapes are resolved: no
/// spelling of a name hides its value.
///
/// # Errors
/// [`NotJson`] at the first byte that does not fit.
pub fn values_of(
    text: &str,
    mut wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Range<usize>>, NotJson> {
    let mut found = Vec::new();
    let mut reader = Reader { text, at: 0 };
    // The containers that are open, innermost last; `true` for objects.
    let mut open: Vec<bool> = Vec::new();
    // The depth and the start of the value that was found, while we are in it.
    let mut inside: Option<(usize, usize)> = None;
    reader.space();
    loop {
        // A value begins here.
        if let Some(object) = reader.container() {
            if open.len() == MAX_DEPTH {
                return reader.fault();
            }
            if !reader.closes(object) {
                open.push(object);
                if object {
                    reader.member(&mut wanted, open.len(), &mut inside)?;
                }
                continue;
            }
        } else {
            reader.scalar()?;
        }
        // A value ended here; so may the containers around it.
        loop {
            if let Some((depth, start)) = inside
                && depth == open.len()
            {
                found.push(start..reader.at);
                inside = None;
            }
            reader.space();
            let Some(object) = open.last().copied() else {
                return if reader.at == text.len() {
                    Ok(found)
                } else {
                    reader.fault()
                };
            };
            if reader.eat(b',') {
                reader.space();
                if object {
                    reader.member(&mut wanted, open.len(), &mut inside)?;
                }
                break;
            }
            if !reader.eat(if object { b'}' } else { b']' }) {
                return reader.fault();
            }
            open.pop();
        }
    }
}

/// The text that a JSON string stands for, quotes around it included in `string`; nothing if it is
/// no JSON string.
#[must_use]
pub fn unquote(string: &str) -> Option<Cow<'_, str>> {
    let mut reader = Reader {
        text: string,
        at: 0,
    };
    let inner = reader.string().ok()?;
    if reader.at == string.len() {
        unescape(inner)
    } else {
        None
    }
}

/// The texts of a JSON array of strings; nothing if it is something else.
#[must_use]
pub fn texts(array: &str) -> Option<Vec<String>> {
    let mut reader = Reader { text: array, at: 0 };
    let mut texts = Vec::new();
    reader.space();
    if reader.container() != Some(false) {
        return None;
    }
    if !reader.closes(false) {
        loop {
            texts.push(unescape(reader.string().ok()?)?.into_owned());
            reader.space();
            if reader.eat(b']') {
                break;
            }
            if !reader.eat(b',') {
                return None;
            }
            reader.space();
        }
    }
    reader.space();
    (reader.at == array.len()).then_some(texts)
}

/// The members of a JSON object, in the order of the text, with their values as they are written;
/// nothing if it is something else.
#[must_use]
pub fn members(object: &str) -> Option<Vec<(String, &str)>> {
    if !object.trim_start().starts_with('{') {
        return None;
    }
    let mut names = Vec::new();
    let values = values_of(object, |name| {
        names.push(name.to_owned());
        true
    });
    let values = values.ok()?.into_iter();
    let values = values.map(|value| object.get(value));
    let pairs = names.into_iter().zip(values);
    pairs.map(|(name, value)| Some((name, value?))).collect()
}

/// The value of a member of a JSON object, as it is written: the first of that name. Nothing if
/// there is none, or the text is something else.
#[must_use]
pub fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut members = members(object)?.into_iter();
    members.find_map(|(found, value)| (found == name).then_some(value))
}

/// The members of a JSON object whose values are all texts, in the order of the text; nothing if it
/// is something else.
#[must_use]
pub fn pairs(object: &str) -> Option<Vec<(String, String)>> {
    let members = members(object)?.into_iter();
    members
        .map(|(name, value)| Some((name, unquote(value)?.into_owned())))
        .collect()
}

/// The elements of a JSON array, in order and as they are written; nothing if the text is something
/// else.
#[must_use]
pub fn elements(array: &str) -> Option<Vec<&str>> {
    let mut reader = Reader { text: array, at: 0 };
    let mut found = Vec::new();
    reader.space();
    if reader.container() != Some(false) {
        return None;
    }
    if !reader.closes(false) {
        loop {
            reader.space();
            let start = reader.at;
            reader.value(1).ok()?;
            found.push(array.get(start..reader.at)?);
            reader.space();
            if reader.eat(b']') {
                break;
            }
            if !reader.eat(b',') {
                return None;
            }
        }
    }
    reader.space();
    (reader.at == array.len()).then_some(found)
}

/// Writes a text as a JSON string, quotes around it included.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = from.chars();
        match chars.next() {
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => {
                let code = u32::from(other);
                out.push_str("\\u00");
                out.extend(
                    [code >> 4, code & 15]
                        .into_iter()
                        .filter_map(|d| char::from_digit(d, 16)),
                );
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// Writes pairs of texts as a JSON object, in their order.
pub fn write_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut String) {
    out.push('{');
    for (n, (name, value)) in pairs.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        quote(name, out);
        out.push(':');
        quote(value, out);
    }
    out.push('}');
}

/// A place in the text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault<T>(&self) -> Result<T, NotJson> {
        Err(NotJson { at: self.at })
    }

    /// Steps over a byte if it is this one.
    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Steps over an opening bracket: of an object (`true`) or of an array.
    fn container(&mut self) -> Option<bool> {
        if self.eat(b'{') {
            Some(true)
        } else if self.eat(b'[') {
            Some(false)
        } else {
            None
        }
    }

    /// Steps over the closing bracket of a container that has nothing in it.
    fn closes(&mut self, object: bool) -> bool {
        self.space();
        self.eat(if object { b'}' } else { b']' })
    }

    /// Reads a member's name and the colon; notes where its value begins if it is wanted.
    fn member(
        &mut self,
        wanted: &mut impl FnMut(&str) -> bool,
        depth: usize,
        inside: &mut Option<(usize, usize)>,
    ) -> Result<(), NotJson> {
        let name = self.string()?;
        self.space();
        if !self.eat(b':') {
            return self.fault();
        }
        self.space();
        if inside.is_none() {
            let Some(name) = unescape(name) else {
                return self.fault();
            };
            if wanted(&name) {
                *inside = Some((depth, self.at));
            }
        }
        Ok(())
    }

    /// Steps over a value inside of so many containers.
    fn value(&mut self, depth: usize) -> Result<(), NotJson> {
        let Some(object) = self.container() else {
            return self.scalar();
        };
        if depth == MAX_DEPTH {
            return self.fault();
        }
        if self.closes(object) {
            return Ok(());
        }
        loop {
            self.space();
            if object {
                self.member(&mut |_| false, depth, &mut None)?;
            }
            self.value(depth + 1)?;
            self.space();
            if self.eat(if object { b'}' } else { b']' }) {
                return Ok(());
            }
            if !self.eat(b',') {
                return self.fault();
            }
        }
    }

    fn scalar(&mut self) -> Result<(), NotJson> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.fault(),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), NotJson> {
        if !self
            .text
            .as_bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            return self.fault();
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotJson> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return self.fault();
        }
        Ok(())
    }

    /// Reads a string; what stands between the quotes, with its escapes.
    fn string(&mut self) -> Result<&'a str, NotJson> {
        if !self.eat(b'"') {
            return self.fault();
        }
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let inner = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(inner);
                }
                Some(b'\\') => self.escape()?,
                None | Some(0..0x20) => return self.fault(),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|digit| digit.is_ascii_hexdigit()) {
                        return self.fault();
                    }
                    self.at += 1;
                }
            }
            _ => return self.fault(),
        }
        Ok(())
    }
}

/// Resolves the escapes of a string that was read by a [`Reader`]. A half of a surrogate pair
/// without its other half stands for no character and becomes U+FFFD.
fn unescape(string: &str) -> Option<Cow<'_, str>> {
    if !string.contains('\\') {
        return Some(Cow::Borrowed(string));
    }
    let mut text = String::with_capacity(string.len());
    let mut rest = string;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let kind = after.chars().next()?;
        rest = after.get(kind.len_utf8()..)?;
        text.push(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (character, after) = code_point(rest)?;
                rest = after;
                character
            }
            other => other,
        });
    }
    text.push_str(rest);
    Some(text.into())
}

/// The character of `XXXX` or `XXXX\uXXXX`, and what follows.
fn code_point(digits: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(digits)?;
    let rest = digits.get(4..)?;
    if let Some(after) = rest.strip_prefix("\\u")
        && (0xd800..0xdc00).contains(&first)
        && let Some(second @ 0xdc00..0xe000) = unit(after)
    {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return Some((char::from_u32(code)?, after.get(4..)?));
    }
    Some((
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
        rest,
    ))
}

#[cfg(test)]
mod tests;
