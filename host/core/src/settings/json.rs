//! Settings as JSON text, for handlers.

use crate::settings::{Table, Value, ValueKind};

/// One table as an object; its keys in the order of the file.
pub(super) fn table(table: &Table) -> String {
    let mut out = String::new();
    table_json(table, &mut out);
    out
}

fn table_json(table: &Table, out: &mut String) {
    out.push('{');
    for (n, (key, value)) in table.entries.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        text_json(&key.name, out);
        out.push(':');
        value_json(value, out);
    }
    out.push('}');
}

fn value_json(value: &Value, out: &mut String) {
    match &value.kind {
        ValueKind::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        ValueKind::Integer(value) => out.push_str(&value.to_string()),
        ValueKind::Float(value) if value.is_finite() => out.push_str(&format!("{value:?}")),
        ValueKind::Float(_) => out.push_str("null"),
        ValueKind::Text { text, .. } | ValueKind::Date(text) => text_json(text, out),
        ValueKind::Table(table) => table_json(table, out),
        ValueKind::Array(values) => {
            out.push('[');
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                value_json(value, out);
            }
            out.push(']');
        }
    }
}

fn text_json(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
