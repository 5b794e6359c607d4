//! Line protocol: `measurement,tag=value field=1.5,other="text" 1700000000000000000`.

use levada_sdk::json;

/// One point. The members of the JSON object `body` become fields: numbers are floats, what is an
/// array or an object is its own text, and `null` is left out.
///
/// # Errors
/// The body is no JSON object, nothing in it is a field, or the measurement is none.
pub(crate) fn write<'a>(
    measurement: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
    body: &str,
    nanos: u64,
) -> Result<String, String> {
    let members = json::members(body).ok_or("the body is not a JSON object")?;
    if measurement.is_empty() || measurement.starts_with('#') {
        // The server would take the line for a comment.
        return Err(format!("`{measurement}` is no measurement"));
    }
    let mut out = String::new();
    escape(measurement, &[',', ' '], &mut out);
    // A tag without a value is none.
    for (name, value) in tags.filter(|(_, value)| !value.is_empty()) {
        out.push(',');
        escape(name, &KEY, &mut out);
        out.push('=');
        escape(value, &KEY, &mut out);
    }
    let mut before = ' ';
    for (name, value) in &members {
        if *value == "null" || name.is_empty() {
            continue;
        }
        out.push(before);
        escape(name, &KEY, &mut out);
        out.push('=');
        write_value(value, &mut out);
        before = ',';
    }
    if before == ' ' {
        return Err("the body has no field".into());
    }
    Ok(format!("{out} {nanos}"))
}

/// What is escaped in names of tags and fields, and in values of tags.
const KEY: [char; 3] = [',', '=', ' '];

/// Writes a name or the value of a tag. None can have a line break, and none ends in a backslash,
/// which would escape what follows.
fn escape(text: &str, special: &[char], out: &mut String) {
    for c in text.trim_end_matches('\\').chars() {
        match c {
            '\n' | '\r' => out.push_str("\\ "),
            c if special.contains(&c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
}

/// Writes the value of a field: a JSON value as it is written.
fn write_value(value: &str, out: &mut String) {
    match value.as_bytes().first() {
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => out.push_str(value),
        _ => {
            let text = json::unquote(value);
            out.push('"');
            for c in text.as_deref().unwrap_or(value).chars() {
                match c {
                    '"' | '\\' => out.extend(['\\', c]),
                    // Not every version takes a line break here.
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
    }
}

#[cfg(test)]
mod tests;
