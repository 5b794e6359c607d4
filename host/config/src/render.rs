//! Problems for people and for programs.
//!
//! Written by hand: what a problem has beside its place (found, allowed, nearest) fits no renderer
//! of compiler messages without as much code around it.

use std::fmt::Write;

use levada_core::{
    Problem,
    settings::{Severity, Span},
};
use serde::Serialize;

use crate::files::Files;

/// A longer line is cut around the place that matters, in characters.
const WIDEST_LINE: usize = 120;

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Plain,
    Colour,
}

/// One problem for programs: the JSON of `levada check --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// `error` or `warning`.
    pub severity: &'static str,
    pub key: String,
    pub message: String,
    pub file: Option<String>,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub found: Option<String>,
    pub allowed: Option<String>,
    pub nearest: Option<String>,
    pub help: Option<String>,
    /// Another place that matters, as `file:line:column: what it is`.
    pub related: Option<String>,
}

/// One problem as data.
#[must_use]
pub fn report(problem: &Problem, files: &Files) -> Report {
    let place = problem.span.and_then(|span| files.place(span));
    let related = problem.related.as_ref().and_then(|(span, what)| {
        let place = files.place(*span)?;
        Some(format!(
            "{}:{}:{}: {what}",
            place.path, place.line, place.column
        ))
    });
    Report {
        severity: severity(problem),
        key: problem.key.clone(),
        message: problem.message.clone(),
        line: place.as_ref().map(|place| place.line),
        column: place.as_ref().map(|place| place.column),
        file: place.map(|place| place.path),
        found: problem.found.clone(),
        allowed: problem.allowed.clone(),
        nearest: problem.nearest.clone(),
        help: problem.help.clone(),
        related,
    }
}

/// Every problem, in the order of the files, and a line that counts them.
#[must_use]
pub fn render_all(problems: &[Problem], files: &Files, look: Look) -> String {
    let mut out = String::new();
    for problem in problems {
        out.push_str(&render(problem, files, look));
        out.push('\n');
    }
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let warnings = problems.len() - errors;
    let mut counts = Vec::new();
    for (n, what) in [(errors, "error"), (warnings, "warning")] {
        match n {
            0 => {}
            1 => counts.push(format!("1 {what}")),
            n => counts.push(format!("{n} {what}s")),
        }
    }
    if !counts.is_empty() {
        let _written = writeln!(out, "{}", counts.join(", "));
    }
    out
}

/// One problem, as a compiler would show it.
#[must_use]
pub fn render(problem: &Problem, files: &Files, look: Look) -> String {
    let mut out = String::new();
    let (strong, accent, quiet, reset) = colours(problem, look);
    let key = match problem.key.as_str() {
        "" => String::new(),
        key => format!("[{key}]"),
    };
    let severity = severity(problem);
    let (key, message) = (clean(&key), clean(&problem.message));
    line(
        &mut out,
        &format!("{accent}{severity}{key}{reset}{strong}: {message}{reset}"),
    );
    let width = [
        problem.span,
        problem.related.as_ref().map(|(span, _)| *span),
    ]
    .into_iter()
    .flatten()
    .filter_map(|span| files.place(span))
    .map(|place| place.line.to_string().len())
    .max()
    .unwrap_or(1);
    let gutter = Gutter {
        width,
        accent,
        quiet,
        reset,
    };
    if let Some(span) = problem.span {
        gutter.excerpt(&mut out, files, span, '^', "");
    }
    if let Some((span, what)) = &problem.related {
        gutter.excerpt(&mut out, files, *span, '-', what);
    }
    let near = problem.nearest.as_ref().map(|near| format!("`{near}`"));
    let notes = [
        ("found", problem.found.as_ref()),
        ("allowed", problem.allowed.as_ref()),
        ("did you mean", near.as_ref()),
        ("help", problem.help.as_ref()),
    ];
    for (what, text) in notes {
        if let Some(text) = text {
            let text = clean(text);
            line(
                &mut out,
                &format!("{:width$} {quiet}={reset} {what}: {text}", ""),
            );
        }
    }
    out
}

struct Gutter {
    width: usize,
    accent: &'static str,
    quiet: &'static str,
    reset: &'static str,
}

impl Gutter {
    /// `--> file:line:column`, the line, and a mark under the place.
    fn excerpt(&self, out: &mut String, files: &Files, span: Span, mark: char, label: &str) {
        let Self {
            width,
            accent,
            quiet,
            reset,
        } = self;
        let (Some(place), Some((text, marked))) = (files.place(span), files.excerpt(span)) else {
            return;
        };
        let arrow = if mark == '^' { "-->" } else { ":::" };
        let at = format!("{}:{}:{}", clean(&place.path), place.line, place.column);
        line(out, &format!("{:width$}{quiet}{arrow}{reset} {at}", ""));
        let start = marked.start.saturating_sub(WIDEST_LINE / 2);
        let shown: String = text.chars().skip(start).take(WIDEST_LINE).collect();
        let before = marked.start - start;
        let length = marked.len().clamp(1, WIDEST_LINE - before);
        let marks = mark.to_string().repeat(length);
        line(out, &format!("{:width$} {quiet}|{reset}", ""));
        line(
            out,
            &format!("{quiet}{:width$} |{reset} {shown}", place.line),
        );
        let under = format!("{:before$}{accent}{marks}{reset} {label}", "");
        line(
            out,
            &format!("{:width$} {quiet}|{reset} {}", "", under.trim_end()),
        );
    }
}

fn severity(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Strong, accent, quiet, reset.
fn colours(
    problem: &Problem,
    look: Look,
) -> (&'static str, &'static str, &'static str, &'static str) {
    let accent = match problem.severity {
        Severity::Error => "\x1b[1;31m",
        Severity::Warning => "\x1b[1;33m",
    };
    match look {
        Look::Plain => ("", "", "", ""),
        Look::Colour => ("\x1b[1m", accent, "\x1b[1;34m", "\x1b[0m"),
    }
}

/// A text without what could move the cursor of a terminal.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Adds a line without blanks at its end.
fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}
