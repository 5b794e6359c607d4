//! The query of a URL.

use std::fmt::Write;

/// `?name=value&...`, with everything escaped that may not stand there (RFC 3986); empty without
/// pairs.
#[must_use]
pub fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        out.push(if out.is_empty() { '?' } else { '&' });
        escape(name, &mut out);
        out.push('=');
        escape(value, &mut out);
    }
    out
}

fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            other => write!(out, "%{other:02X}").expect("writing to a string cannot fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_query_is_escaped() {
        assert_eq!(query([]), "");
        let pairs = [("org", "a&b=c/é"), ("n", ""), ("q", "INSERT 1+1")];
        let expected = "?org=a%26b%3Dc%2F%C3%A9&n=&q=INSERT%201%2B1";
        assert_eq!(query(pairs), expected);
    }
}
