use super::*;
use levada_sdk::{
    http::Problem,
    testing::{self, PolledOut, answer_requests, requests},
};

fn poller(format: Format, next_header: Option<&str>) -> Poller {
    Poller {
        endpoint: Endpoint {
            url: "https://api.example/events".into(),
            headers: Vec::new(),
            timeout: None,
        },
        format,
        items: "items".into(),
        parameter: "after".into(),
        start: String::new(),
        next_header: next_header.map(Into::into),
        next: "next".into(),
        interval: Duration::from_secs(10),
    }
}

fn answers(response: Response) {
    answer_requests(move |_| Ok(response.clone()));
}

fn poll(poller: &Poller, cursor: Option<&str>) -> Result<PolledOut, Failure> {
    testing::poll(|cursor| poller.poll(cursor), cursor.map(str::as_bytes))
}

fn bodies(polled: &PolledOut) -> Vec<String> {
    polled.events.iter().map(|event| event.text()).collect()
}

fn asked() -> String {
    requests()
        .last()
        .map(|request| request.url.clone())
        .unwrap_or_default()
}

#[test]
fn lines_are_events_and_a_header_says_where_to_go_on() {
    let poller = poller(Format::Lines, Some("x-next"));
    answers(
        Response::new(200)
            .with_header("x-next", "b c/1")
            .with_body("one\n\ntwo\n"),
    );
    let polled = poll(&poller, None).unwrap();
    assert_eq!(asked(), "https://api.example/events");
    assert_eq!(
        (bodies(&polled), polled.more),
        (vec!["one".into(), "two".into()], true)
    );
    let cursor = String::from_utf8(polled.cursor).unwrap();
    answers(Response::new(204));
    let polled = poll(&poller, Some(&cursor)).unwrap();
    assert_eq!(asked(), "https://api.example/events?after=b%20c%2F1");
    assert_eq!((bodies(&polled), polled.more), (vec![], false));
    assert_eq!(
        (&*polled.cursor, polled.wait),
        (&b"b c/1"[..], Duration::from_secs(10))
    );
    // A server may move on over what it does not give.
    answers(Response::new(200).with_header("x-next", "d"));
    assert_eq!(poll(&poller, Some(&cursor)).unwrap().cursor, b"d");
}

#[test]
fn without_the_header_the_last_line_says_where_to_go_on() {
    let poller = poller(Format::Lines, None);
    answers(Response::new(200).with_body("{\"next\":1}\n{\"x\":{\"next\":9},\"next\":2}\n"));
    let polled = poll(&poller, Some("0")).unwrap();
    assert_eq!((polled.events.len(), &*polled.cursor), (2, &b"2"[..]));
}

#[test]
fn elements_of_an_array_are_events_as_they_were_written() {
    let poller = poller(Format::Json, None);
    let body = r#"{"items": [ {"a": 1.0}, "x" ], "next": "p2"}"#;
    answers(Response::new(200).with_body(body));
    let polled = poll(&poller, Some("p1")).unwrap();
    assert_eq!(bodies(&polled), [r#"{"a": 1.0}"#, r#""x""#]);
    assert_eq!(polled.cursor, b"p2");
    answers(Response::new(200).with_body(r#"[{"next": 7}, {"next": 8}]"#));
    assert_eq!(poll(&poller, None).unwrap().cursor, b"8");
    answers(Response::new(200).with_body(r#"{"items": [], "next": null}"#));
    let polled = poll(&poller, Some("p3")).unwrap();
    assert_eq!((&*polled.cursor, polled.more), (&b"p3"[..], false));
}

#[test]
fn the_first_request_begins_where_the_settings_say() {
    let mut poller = poller(Format::Lines, Some("x-next"));
    poller.start = "2026".into();
    poller.endpoint.url.push_str("?kind=a");
    answers(Response::new(200));
    assert_eq!(poll(&poller, None).unwrap().cursor, b"2026");
    assert_eq!(asked(), "https://api.example/events?kind=a&after=2026");
}

#[test]
fn what_is_temporary_is_asked_again_and_what_is_not_needs_a_human() {
    let poller = poller(Format::Json, None);
    let failure = |response| {
        answers(response);
        poll(&poller, Some("1")).unwrap_err()
    };
    let busy = Response::new(429).with_header("retry-after", "7");
    let after = Failure::retry("status 429").after(Duration::from_secs(7));
    assert_eq!(failure(busy), after);
    let down = Response::new(503).with_body("down");
    assert_eq!(failure(down), Failure::retry("status 503: down"));
    assert_eq!(failure(Response::new(404)), Failure::fatal("status 404"));
    for (body, words) in [
        ("{}", "nor an object with one under `items`"),
        ("[1", "neither a JSON array"),
        ("[{\"a\":1}]", "setting `next`"),
        (r#"{"items": [1], "next": 1}"#, "to go on where it began"),
    ] {
        let said = failure(Response::new(200).with_body(body)).to_string();
        assert!(said.starts_with("fatal") && said.contains(words), "{said}");
    }
    let said = failure(Response::new(200).with_body(b"\xff")).to_string();
    assert!(said.contains("not text"), "{said}");
    answer_requests(|_| Err(Problem::Timeout));
    let said = poll(&poller, None).unwrap_err();
    assert_eq!(said, Failure::retry("no whole answer in time"));
}

#[test]
fn settings_that_are_missing_or_wrong_are_named() {
    let said = Poller::read().err().unwrap().to_string();
    assert!(said.contains("setting `url`"), "{said}");
    testing::set_setting("url", "https://api.example/events");
    testing::set_setting("format", "xml");
    let said = Poller::read().err().unwrap().to_string();
    assert!(said.contains("`xml` is none of `lines`, `json`"), "{said}");
}
