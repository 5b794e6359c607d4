use super::*;
use proptest::prelude::*;

/// The values found under `x`.
fn found(text: &str) -> Vec<&str> {
    values_of(text, |name| name == "x")
        .unwrap()
        .into_iter()
        .map(|range| &text[range])
        .collect()
}

#[test]
fn values_are_found_at_any_depth() {
    assert_eq!(
        found(r#"{"x": 1 , "y":{"x":[2, {"x":3}] },"z":[{"x":"4"}]}"#),
        ["1", r#"[2, {"x":3}]"#, "\"4\""]
    );
    assert_eq!(found(r#" {"a":{"b":{}},"x":{ } } "#), ["{ }"]);
    assert_eq!(
        found(r#"[{"x":-1.5e+3},{"x":null},{"x":true}]"#),
        ["-1.5e+3", "null", "true"]
    );
    assert!(found(r#""x""#).is_empty());
    assert!(found("[]").is_empty());
}

#[test]
fn no_spelling_hides_a_name() {
    assert_eq!(found(r#"{"\u0078":1}"#), ["1"]);
    let text = r#"{"\u00e9\ud83d\ude00\n\/":1}"#;
    assert_eq!(values_of(text, |name| name == "é😀\n/").unwrap().len(), 1);
    assert_eq!(found(r#"{"x":1,"x":2}"#), ["1", "2"]);
}

#[test]
fn what_is_not_json_is_refused_where_it_goes_wrong() {
    for (text, at) in [
        ("", 0),
        ("{", 1),
        ("{\"a\"}", 4),
        ("{\"a\":1,}", 7),
        ("[1 2]", 3),
        ("[1]]", 3),
        ("01", 1),
        ("1.", 2),
        ("-", 1),
        ("\"\n\"", 1),
        ("\"\\x\"", 2),
        ("\"\\u00g0\"", 5),
        ("nul", 0),
        ("[1}", 2),
    ] {
        assert_eq!(values_of(text, |_| true), Err(NotJson { at }), "{text:?}");
    }
}

#[test]
fn a_million_brackets_are_refused() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(
        values_of(&deep, |_| true),
        Err(NotJson { at: MAX_DEPTH + 1 })
    );
    let just = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert_eq!(values_of(&just, |_| true), Ok(vec![]));
}

#[test]
fn lists_of_texts_are_read() {
    assert_eq!(
        texts(r#" [ "a" , "b\"\u0041" ] "#),
        Some(vec!["a".into(), "b\"A".into()])
    );
    assert_eq!(texts("[]"), Some(vec![]));
    for other in [
        "",
        "1",
        "[1]",
        "[\"a\",]",
        "[\"a\"",
        "[\"a\"] x",
        "{\"a\":1}",
    ] {
        assert_eq!(texts(other), None, "{other}");
    }
    assert_eq!(unquote(r#""a\tb""#).as_deref(), Some("a\tb"));
    assert_eq!(unquote(r#""a"b"#), None);
}

proptest! {
    /// serde_json is the oracle for what is JSON.
    #[test]
    fn accepts_what_serde_json_accepts(text in r#"[\[\]{}:,"\\a0-9eE.+ \-trufalsn]{0,24}"#) {
        let ours = values_of(&text, |_| false).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{:?}", text);
    }

    /// And for what the elements of an array are.
    #[test]
    fn elements_are_those_that_serde_json_finds(text in r#"\[[\[\]{}:,"\\a0-9 ]{0,24}"#) {
        let theirs = serde_json::from_str::<Vec<serde_json::Value>>(&text).ok();
        let ours = elements(&text).map(|found| {
            let each = found.into_iter().map(|text| serde_json::from_str(text).unwrap());
            each.collect::<Vec<serde_json::Value>>()
        });
        prop_assert_eq!(ours, theirs, "{:?}", text);
    }

    /// And for what a string says.
    #[test]
    fn strings_mean_the_same(text in ".{0,40}") {
        let json = serde_json::to_string(&text).unwrap();
        let back = unquote(&json);
        prop_assert_eq!(back.as_deref(), Some(text.as_str()));
        let list = serde_json::to_string(&[&text, &text]).unwrap();
        prop_assert_eq!(texts(&list), Some(vec![text.clone(), text]));
    }
}

#[test]
fn texts_are_quoted_so_that_they_read_as_they_were() {
    for (text, quoted) in [
        ("", r#""""#),
        ("plain", r#""plain""#),
        ("a\"b\\c", r#""a\"b\\c""#),
        ("\0\n\r\t\u{1f}", r#""\u0000\n\r\t\u001f""#),
        ("gr\u{fc}\u{df}", "\"gr\u{fc}\u{df}\""),
    ] {
        let mut out = String::new();
        quote(text, &mut out);
        assert_eq!(out, quoted);
        assert_eq!(unquote(&out).as_deref(), Some(text));
    }
}

#[test]
fn objects_of_texts_are_read_as_pairs() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let read = pairs(r#" { "a": "1", "b\n": "\u0041" } "#);
    assert_eq!(read, Some(vec![pair("a", "1"), pair("b\n", "A")]));
    assert_eq!(pairs("{}"), Some(vec![]));
    for other in [
        "",
        "[]",
        r#"{"a":1}"#,
        r#"{"a":{"b":"c"}}"#,
        r#"{"a":"b""#,
        "null",
    ] {
        assert_eq!(pairs(other), None, "{other}");
    }
}

#[test]
fn the_members_of_an_object_are_given_as_they_are_written() {
    let text = r#" { "a": [1, {"b": 2}] , "c\u0064": "e\n", "f": {} } "#;
    let members = members(text).unwrap();
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    let expected = [("a", r#"[1, {"b": 2}]"#), ("cd", r#""e\n""#), ("f", "{}")];
    assert_eq!(members, expected);
    assert_eq!(member(text, "cd"), Some(r#""e\n""#));
    assert_eq!(member(text, "b"), None);
    assert_eq!(super::members("{}"), Some(vec![]));
    for other in ["", "[]", "1", r#"{"a":1"#, r#"{"a":1} {}"#] {
        assert_eq!(super::members(other), None, "{other}");
    }
}

#[test]
fn pairs_are_written_so_that_they_read_as_they_were() {
    let written = |pairs: &[(&str, &str)]| {
        let mut out = String::new();
        write_pairs(pairs.iter().copied(), &mut out);
        out
    };
    assert_eq!(written(&[]), "{}");
    assert_eq!(
        written(&[("a", "1\n"), ("\"", "")]),
        r#"{"a":"1\n","\"":""}"#
    );
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let same = [("x", "\\"), ("y", "\u{1}")];
    assert_eq!(pairs(&written(&same)), Some(same.map(own).to_vec()));
}

#[test]
fn elements_are_found_as_they_are_written() {
    let text = r#" {"meta": {"next": 0}, "items": [ {"a": [1, "]"]} , 2,[]], "next" : "x" } "#;
    let items = member(text, "items").unwrap();
    assert_eq!(elements(items).unwrap(), [r#"{"a": [1, "]"]}"#, "2", "[]"]);
    assert_eq!(elements("[]"), Some(vec![]));
    for other in ["", "{}", "[1", "[1,]", "[1] 2", "[{\"a\"}]", "[{\"a\":1,}]"] {
        assert_eq!(elements(other), None, "{other}");
    }
    let deep = "[".repeat(1_000_000);
    assert_eq!(elements(&deep), None);
    let just = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert_eq!(elements(&just).map(|found| found.len()), Some(1));
}
