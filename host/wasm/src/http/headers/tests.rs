use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

#[test]
fn headers_of_the_connection_and_broken_ones_are_refused() {
    for (name, value, words) in [
        ("host", "evil.example", "belongs to the host"),
        ("Host", "evil.example", "belongs to the host"),
        ("content-length", "0", "belongs to the host"),
        ("Transfer-Encoding", "chunked", "belongs to the host"),
        ("connection", "x-secret", "belongs to the host"),
        ("keep-alive", "1", "belongs to the host"),
        ("te", "trailers", "belongs to the host"),
        ("upgrade", "h2c", "belongs to the host"),
        ("expect", "100-continue", "belongs to the host"),
        ("proxy-authorization", "Basic eA==", "belongs to the host"),
        ("", "x", "no name"),
        ("a b", "x", "no name"),
        ("a:b", "x", "no name"),
        ("a\r\nb", "x", "no name"),
        ("\u{e4}", "x", "no name"),
        ("a", "x\r\nhost: evil", "cannot stand"),
        ("a", "x\ny", "cannot stand"),
        ("a", "x\0y", "cannot stand"),
    ] {
        let why = of_request(&pairs(&[(name, value)]), &[]).unwrap_err();
        assert!(why.contains(words), "{name:?}: {why}");
        assert!(!why.contains(['\r', '\n']), "{why:?}");
    }
    let many = vec![("a".to_owned(), "b".repeat(9000)); 2];
    assert!(
        of_request(&many, &[])
            .unwrap_err()
            .contains("16384 are allowed")
    );
}

#[test]
fn what_is_bound_to_a_server_is_added_and_never_replaced() {
    let bound = Bound::read("Authorization", "Bearer s3cret\n").unwrap();
    assert!(!format!("{bound:?}").contains("s3cret"));
    let theirs = pairs(&[
        ("content-type", "application/json"),
        ("x-a", "1"),
        ("x-a", "2"),
    ]);
    let headers = of_request(&theirs, &[&bound]).unwrap();
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers.get_all("x-a").iter().count(), 2);
    let own = pairs(&[("AUTHORIZATION", "Bearer mine")]);
    let why = of_request(&own, &[&bound]).unwrap_err();
    assert!(
        why.contains("`credentials`") && !why.contains("s3cret"),
        "{why}"
    );
}

#[test]
fn a_credential_that_cannot_be_sent_is_refused() {
    for (name, value) in [("a b", "x"), ("host", "x"), ("a", "x\ny"), ("a", "\0")] {
        assert!(Bound::read(name, value).is_err(), "{name:?} {value:?}");
    }
}

#[test]
fn an_answer_with_too_many_headers_is_none() {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
    let read = of_response(&headers).unwrap();
    assert_eq!(read, [("x-a".to_owned(), "\u{fffd}".to_owned())]);
    for n in 0..20_u8 {
        let name = format!("x-{n}");
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_str(&"v".repeat(1000)).unwrap());
    }
    assert_eq!(of_response(&headers), None);
}
