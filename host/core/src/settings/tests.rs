use std::time::Duration;

use super::*;
use crate::{ByteSize, choice, params};

choice! {
    /// When full.
    enum OnFull {
        /// Wait.
        Block = "block",
        /// Refuse.
        Reject = "reject",
    }
    later { "drop-oldest" }
}

params! {
    /// Settings of a test.
    struct TestParams {
        /// Must be there.
        listen_on: String,
        /// Has a default.
        put_timeout: Duration = "10s",
        /// May be left out.
        capacity: Option<ByteSize>,
        /// One of few words.
        on_full: OnFull = "block",
        /// Hidden.
        token: Option<Secret>,
    }
    later { "tls" }
}

fn table(entries: &[(&str, Value)]) -> Table {
    let entry = |(n, (name, value)): (usize, &(&str, Value))| {
        let span = Span {
            file: 0,
            start: n * 10 + 10,
            end: n * 10 + 15,
        };
        (
            Key {
                name: (*name).into(),
                span,
            },
            Value {
                span,
                ..value.clone()
            },
        )
    };
    Table {
        path: "sources.x".into(),
        entries: entries.iter().enumerate().map(entry).collect(),
        ..Table::default()
    }
}

fn problems_of(entries: &[(&str, Value)]) -> Vec<Problem> {
    let mut problems = Problems::new();
    let read = parse_params::<TestParams>(&table(entries), &["type"], &mut problems);
    assert_eq!(read.is_none(), problems.has_errors());
    problems.into_sorted()
}

#[test]
fn defaults_and_options_fill_in_for_missing_keys() {
    let mut problems = Problems::new();
    let table = table(&[
        ("listen-on", "here".into()),
        ("token", "s3cret".into()),
        ("type", 1.into()),
    ]);
    let read = parse_params::<TestParams>(&table, &["type"], &mut problems).unwrap();
    assert_eq!(read.listen_on, "here");
    assert_eq!(read.put_timeout, Duration::from_secs(10));
    assert_eq!((read.capacity, read.on_full), (None, OnFull::Block));
    assert_eq!(read.token.as_ref().map(Secret::reveal), Some("s3cret"));
    assert!(!format!("{read:?}").contains("s3cret"));
}

#[test]
fn every_problem_is_found_at_once_with_what_is_allowed() {
    let problems = problems_of(&[
        ("put-timeuot", "5s".into()),
        ("put-timeout", 5.into()),
        ("capacity", "12 parsecs".into()),
        ("on-full", "rejcet".into()),
        ("tls", true.into()),
    ]);
    let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
    let expected = [
        "listen-on",
        "put-timeuot",
        "put-timeout",
        "capacity",
        "on-full",
        "tls",
    ];
    assert_eq!(keys, expected.map(|key| format!("sources.x.{key}")));
    assert_eq!(problems[1].nearest.as_deref(), Some("put-timeout"));
    assert_eq!(
        problems[2].help.as_deref(),
        Some("write \"5s\" for seconds or \"5ms\"")
    );
    assert_eq!(problems[4].nearest.as_deref(), Some("reject"));
    assert_eq!(problems[5].message, "not in this version");
}

#[test]
fn a_word_of_a_later_version_is_known_but_refused() {
    let problems = problems_of(&[("listen-on", "x".into()), ("on-full", "drop-oldest".into())]);
    assert_eq!(problems[0].message, "not in this version");
}

#[test]
fn the_list_of_keys_documents_itself() {
    let fields = TestParams::fields();
    let keys: Vec<_> = fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(
        keys,
        ["listen-on", "put-timeout", "capacity", "on-full", "token"]
    );
    let required: Vec<_> = fields.iter().map(|field| field.required).collect();
    assert_eq!(required, [true, false, false, false, false]);
    assert_eq!(fields[1].default.as_deref(), Some("\"10s\""));
    assert_eq!(fields[1].doc, "Has a default.");
    assert!(fields[4].secret);
}

#[test]
fn quantities_are_read_with_units_only() {
    let sizes = [
        ("64KiB", 65536),
        ("1_000B", 1000),
        ("1.5 MiB", 1_572_864),
        ("2GB", 2_000_000_000),
    ];
    for (text, bytes) in sizes {
        assert_eq!(ByteSize::parse(text), Some(ByteSize(bytes)), "{text}");
    }
    for text in [
        "",
        "64",
        "KiB",
        "-1KiB",
        "1XB",
        "99999999999999999999GiB",
        "1e3B",
    ] {
        assert_eq!(ByteSize::parse(text), None, "{text}");
    }
    assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
    assert_eq!(ByteSize(1500).to_string(), "1500B");
    assert_eq!(
        crate::units::parse_duration("1.5s"),
        Some(Duration::from_millis(1500))
    );
    assert_eq!(
        crate::units::format_duration(Duration::from_millis(1500)),
        "1500ms"
    );
    assert_eq!(
        crate::units::format_duration(Duration::from_secs(604_800)),
        "7d"
    );
}

#[test]
fn a_table_as_json_escapes_its_text() {
    let table = table(&[
        ("a", "q\"\\\n".into()),
        ("b", ["x", "y"].into()),
        ("c", 1.5.into()),
    ]);
    assert_eq!(
        table.to_json(),
        r#"{"a":"q\"\\\u000a","b":["x","y"],"c":1.5}"#
    );
}
