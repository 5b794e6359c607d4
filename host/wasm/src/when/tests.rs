use levada_core::BatchBuilder;

use super::*;

fn holds(text: &str) -> bool {
    let mut builder = BatchBuilder::default();
    builder.push(
        [("type", "log"), ("level", "info"), ("say", "a \"b\" \\")],
        b"",
    );
    let batch = builder.finish();
    When::parse(text).unwrap().holds(batch.get(0).unwrap())
}

#[test]
fn conditions_hold_or_do_not() {
    let cases = [
        (r#"header("type") == "log""#, true),
        (r#" header ( "type" )=="log" "#, true),
        (r#""log" == header("type")"#, true),
        (r#"header("type") != "log""#, false),
        (r#"header("type") == header("level")"#, false),
        (r#"header("type")"#, true),
        (r#"!header("type")"#, false),
        (r#"header("none")"#, false),
        // What is not there equals nothing, not even itself.
        (r#"header("none") == """#, false),
        (r#"header("none") == header("none")"#, false),
        (r#"header("none") != "x""#, true),
        (r#"header("say") == "a \"b\" \\""#, true),
        // `&&` binds more closely than `||`, `!` more closely than both.
        (
            r#"header("type") || header("none") && header("none")"#,
            true,
        ),
        (
            r#"(header("type") || header("none")) && header("none")"#,
            false,
        ),
        (r#"!header("none") && header("type")"#, true),
        (r#"!(header("none") || header("type"))"#, false),
        (r#"!!header("type")"#, true),
    ];
    for (text, expected) in cases {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_condition_is_refused_with_its_place() {
    let cases = [
        ("", 0, "expected `header"),
        ("type == \"log\"", 0, "expected `header"),
        ("header(type)", 7, "expected `\"`"),
        ("header(\"type\"", 13, "expected `)`"),
        (
            "header(\"type\") = \"log\"",
            15,
            "the condition ends before this",
        ),
        ("header(\"a\") == \"log", 16, "no closing quote"),
        ("header(\"a\") == \"\\n\"", 16, "backslash"),
        ("\"log\"", 5, "expected `==` or `!=`"),
        ("(header(\"a\")", 12, "expected `)`"),
        (
            "header(\"a\") header(\"b\")",
            12,
            "the condition ends before this",
        ),
        ("header(\"a\") &&", 14, "expected `header"),
        ("header(\"a\") == 5", 15, "expected `header"),
    ];
    for (text, at, what) in cases {
        let error = When::parse(text).unwrap_err();
        assert!(error.what.contains(what), "{text}: {error:?}");
        assert_eq!(error.at, at, "{text}: {error:?}");
    }
    let deep = "(".repeat(40) + "header(\"a\")" + &")".repeat(40);
    assert!(When::parse(&deep).unwrap_err().what.contains("32"));
}

#[test]
fn nothing_that_is_written_stops_the_parser() {
    proptest::proptest!(|(text in r#"[ !()"\\=&|a-z\u{e9}]{0,40}"#)| {
        if let Ok(when) = When::parse(&text) {
            proptest::prop_assert_eq!(when.to_string(), text);
        }
    });
}
