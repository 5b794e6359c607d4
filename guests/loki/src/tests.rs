use super::*;
use levada_sdk::{
    http::Response,
    testing::{
        Delivered, Input, answer_requests, requests, set_setting, settings_asked,
        settings_described,
    },
};

fn sink() -> Loki {
    set_setting("url", "https://loki.example");
    Loki::read().unwrap()
}

fn deliver(sink: &Loki, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| sink.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

#[test]
fn lines_are_grouped_by_their_labels() {
    answer_requests(|_| Ok(Response::new(204)));
    set_setting("labels", r#"{"site":"north"}"#);
    set_setting("label-headers", r#"["log level"]"#);
    set_setting("metadata-headers", r#"["device"]"#);
    let event = |input: Input, level, device, body| {
        let headers = [
            ("timestamp", "1500"),
            ("log level", level),
            ("device", device),
        ];
        input.event(headers, body)
    };
    let input = event(Input::new(), "warn", "7", "one");
    let input = event(input, "info", "8", "two\n");
    let input = event(input, "warn", "9", "three").with_ids();
    let delivered = deliver(&sink(), &input).unwrap();
    assert_eq!(delivered, [const { Delivered::Done }; 3]);
    let sent = requests().remove(0);
    let url = "https://loki.example/loki/api/v1/push";
    assert_eq!((&*sent.method, &*sent.url), ("POST", url));
    let expected = concat!(
        r#"{"streams":[{"stream":{"site":"north","log_level":"info"},"#,
        r#""values":[["1500000002","two\n",{"device":"8"}]]},"#,
        r#"{"stream":{"site":"north","log_level":"warn"},"#,
        r#""values":[["1500000001","one",{"device":"7"}],["1500000003","three",{"device":"9"}]]}]}"#
    );
    assert_eq!(String::from_utf8(sent.body).unwrap(), expected);
}

#[test]
fn a_stream_has_a_label_and_a_label_has_a_name() {
    answer_requests(|_| Ok(Response::new(204)));
    let input = Input::new().event([("timestamp", "1")], "x");
    deliver(&sink(), &input).unwrap();
    let body = String::from_utf8(requests().remove(0).body).unwrap();
    let expected = r#"{"streams":[{"stream":{"job":"levada"},"values":[["1000000","x"]]}]}"#;
    assert_eq!(body, expected);
    let names = |header: &str| named(Some(vec![header.to_owned()])).remove(0).0;
    assert_eq!(names("9-lives.é"), "_9_lives__");
    assert_eq!(names("ok_1"), "ok_1");
}

#[test]
fn a_line_that_is_too_old_is_rejected_and_its_neighbours_stay() {
    answer_requests(|request| {
        let text = String::from_utf8_lossy(&request.body);
        Ok(match text.contains("\"old\"") {
            true => Response::new(400).with_body("entry too far behind"),
            false => Response::new(204),
        })
    });
    let input = Input::new().event([], "a").event([], "old");
    let input = input.event([], "b").event([], [0xff]).with_ids();
    let delivered = deliver(&sink(), &input).unwrap();
    let why = |why: &str| Delivered::Rejected(why.into());
    let expected = [
        Delivered::Done,
        why("status 400: entry too far behind"),
        Delivered::Done,
        why("the body is not text"),
    ];
    assert_eq!(delivered, expected);
}

#[test]
fn a_server_that_is_busy_or_refuses_the_sink_has_none() {
    let input = Input::new().event([], "a");
    answer_requests(|_| Ok(Response::new(429).with_body("rate limit")));
    let failed = deliver(&sink(), &input).unwrap_err();
    assert_eq!(failed, "to be tried again: status 429: rate limit");
    answer_requests(|_| Ok(Response::new(401)));
    assert_eq!(deliver(&sink(), &input).unwrap_err(), "fatal: status 401");
}

#[test]
fn the_manifest_describes_every_setting() {
    sink();
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
