//! Standard output and standard error.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use levada_config::Look;
use serde::Serialize;

/// Writes a result to standard output.
pub(crate) fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a result as JSON to standard output.
pub(crate) fn say_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    say(&text)
}

/// Writes to standard error. If that is closed there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    let _told = io::stderr().lock().write_all(text.as_bytes());
}

/// Colours, if standard error is a terminal that may have them.
pub(crate) fn look() -> Look {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stderr().is_terminal() {
        Look::Colour
    } else {
        Look::Plain
    }
}

/// A line that should not be overlooked: yellow, if standard output is a terminal that may have
/// colours.
pub(crate) fn warned(line: String) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stdout().is_terminal() {
        format!("\x1b[33m{line}\x1b[0m")
    } else {
        line
    }
}

/// Foreign text for a terminal: what could move the cursor, hide or reorder text is spelled out.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hides {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
