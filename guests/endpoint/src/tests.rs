use super::*;
use levada_sdk::{
    http::Problem,
    testing::{answer_requests, clear, requests, set_setting},
};

#[test]
fn settings_are_read_and_wrong_ones_are_fatal() {
    let fatal = |words: &str| {
        let read = Endpoint::read();
        assert!(
            matches!(&read, Err(Failure::Fatal(why)) if why.contains(words)),
            "{read:?}"
        );
    };
    fatal("`url`");
    set_setting("url", "");
    fatal("`url`");
    set_setting("url", "https://api.example/in/");
    let endpoint = Endpoint::read().unwrap();
    assert_eq!(endpoint.url, "https://api.example/in");
    assert_eq!((endpoint.headers.len(), endpoint.timeout), (0, None));
    set_setting("headers", r#"{"x-team":"a"}"#);
    set_setting("timeout-ms", "1500");
    let endpoint = Endpoint::read().unwrap();
    assert_eq!(endpoint.headers, [("x-team".to_owned(), "a".to_owned())]);
    assert_eq!(endpoint.timeout, Some(Duration::from_millis(1500)));
    set_setting("timeout-ms", "soon");
    fatal("`timeout-ms`");
    set_setting("headers", r#"["x-team"]"#);
    fatal("`headers`");
    clear();
}

#[test]
fn the_headers_of_the_settings_win() {
    let endpoint = Endpoint {
        url: "https://api.example".into(),
        headers: vec![("Content-Type".into(), "text/plain".into())],
        timeout: None,
    };
    answer_requests(|_| Ok(Response::new(200)));
    let own = [("content-type", "application/json"), ("x-key", "7")];
    endpoint.send("PUT", "/a", &own, "body").unwrap();
    let sent = requests().remove(0);
    assert_eq!(
        (&*sent.method, &*sent.url),
        ("PUT", "https://api.example/a")
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = [pair("x-key", "7"), pair("Content-Type", "text/plain")];
    assert_eq!(sent.headers, headers);
    answer_requests(|_| Err(Problem::Denied("no".into())));
    let failed = endpoint.send("PUT", "", &[], "");
    assert!(matches!(failed, Err(Failure::Fatal(_))));
}

#[test]
fn a_word_is_one_of_those_that_are_known() {
    let words = [("one", 1), ("two", 2)];
    assert_eq!(word("which", &words), Ok(1));
    set_setting("which", "two");
    assert_eq!(word("which", &words), Ok(2));
    set_setting("which", "three");
    let why = word("which", &words).unwrap_err().to_string();
    assert!(
        why.contains("`three`") && why.contains("`one`, `two`"),
        "{why}"
    );
}
