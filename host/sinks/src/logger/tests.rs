use levada_core::BatchBuilder;

use super::*;

#[test]
fn nothing_in_an_event_can_break_a_log_line() {
    let cases: [(&[u8], &str); 5] = [
        (b"plain text", "plain text"),
        (b"two\r\nlines", "two\\u{d}\\u{a}lines"),
        (b"\x1b[31mred", "\\u{1b}[31mred"),
        (b"\xff\xfe!", "\\xff\\xfe!"),
        ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(shown(bytes, 100), expected);
    }
}

#[test]
fn long_bodies_are_cut_and_say_so() {
    assert_eq!(shown(b"123456", 4), "1234...");
    assert_eq!(shown("\u{e9}\u{e9}".as_bytes(), 3), "\u{e9}\\xc3...");
}

#[test]
fn headers_are_shown_as_pairs() {
    let mut builder = BatchBuilder::default();
    builder.push([("a", "1"), ("b", "x\ny")], b"");
    let batch = builder.finish();
    let event = batch.get(0).unwrap();
    assert_eq!(headers_text(event, 100), "a=1 b=x\\u{a}y");
    assert_eq!(headers_text(event, 3), "a=1");
}
