//! Making foreign text harmless.

use std::{
    fmt::{self, Write as _},
    io,
};

/// What `value` prints, with every dangerous character written as an escape.
pub(super) fn escaped(value: &dyn fmt::Debug) -> impl fmt::Display + '_ {
    struct Escaped<'a>(&'a dyn fmt::Debug);

    impl fmt::Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(Escaping(f), "{:?}", self.0)
        }
    }

    Escaped(value)
}

/// Escapes what is written through it.
struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut clean = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| is_dangerous(*c)) {
            self.0.write_str(&text[clean..at])?;
            write!(self.0, "{}", c.escape_default())?;
            clean = at + c.len_utf8();
        }
        self.0.write_str(&text[clean..])
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and what changes the direction
/// of text (Unicode TR 36, "bidirectional text spoofing").
pub(super) fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what JSON allows raw and a terminal does not take well.
///
/// A line of JSON has such characters only inside of strings, where `\u` escapes mean the same;
/// the line's own end stays.
pub(super) struct EscapedJson<W>(pub(super) W);

impl<W: io::Write> io::Write for EscapedJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let is_raw = |c: char| is_dangerous(c) && c != '\n';
        if text.contains(is_raw) {
            let mut out = String::with_capacity(text.len() + 16);
            for c in text.chars() {
                if is_raw(c) {
                    // All dangerous characters are below U+FFFF: one escape is enough.
                    write!(out, "\\u{:04x}", u32::from(c)).map_err(io::Error::other)?;
                } else {
                    out.push(c);
                }
            }
            self.0.write_all(out.as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
