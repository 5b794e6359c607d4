use super::*;

#[test]
fn bytes_are_written_as_base64() {
    // RFC 4648, section 10.
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ] {
        let mut out = String::new();
        base64(bytes.as_bytes(), &mut out);
        assert_eq!(out, text);
    }
    let mut out = String::new();
    base64(&[0xfb, 0xff, 0xbf], &mut out);
    assert_eq!(out, "+/+/");
}

#[test]
fn words_of_severity_have_their_numbers() {
    for (word, number) in [
        ("TRACE", 1),
        ("info", 9),
        ("Warn", 13),
        ("err", 17),
        ("fatal", 21),
    ] {
        assert_eq!(severity_number(word), number, "{word}");
    }
    assert_eq!(severity_number("loud"), 0);
}
