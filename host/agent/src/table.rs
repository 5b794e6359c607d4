//! Columns and quantities for terminals.

use std::fmt;

use crate::output::clean;

/// Rows under headings, in columns as wide as they must be.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heads: &[&str; N]) -> Self {
        Self {
            rows: vec![heads.map(str::to_owned)],
        }
    }

    /// Adds a row; foreign text is made safe for terminals here.
    pub(crate) fn row(&mut self, row: [String; N]) {
        self.rows.push(row.map(|text| clean(&text)));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = text.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(widths);
            let line: Vec<_> = cells
                .map(|(text, width)| format!("{text:width$}"))
                .collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A size for people: `512 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        None => format!("{bytes} B"),
        Some((unit, factor)) if bytes.is_multiple_of(*factor) => {
            format!("{} {unit}", bytes / factor)
        }
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / *factor as f64),
    }
}

/// A number with its thousands set apart: `1,204`.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A span of time for people, in its two largest units: `4 m 16 s`.
pub(crate) fn seconds(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = UNITS.iter().position(|(_, length)| seconds >= *length);
    let Some(first) = first else {
        return "0 s".into();
    };
    let (unit, length) = UNITS[first];
    let rest = seconds % length;
    match UNITS.get(first + 1) {
        Some((smaller, length)) if rest >= *length => {
            format!(
                "{} {unit} {} {smaller}",
                seconds / UNITS[first].1,
                rest / length
            )
        }
        _ => format!("{} {unit}", seconds / length),
    }
}
