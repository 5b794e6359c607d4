use super::*;
use levada_sdk::testing::{
    Delivered, Input, answer_requests, log_lines, requests, set_received_ms, set_setting,
    settings_asked, settings_described,
};

fn sink() -> OtlpHttp {
    set_setting("url", "https://otlp.example:4318");
    OtlpHttp::read().unwrap()
}

fn deliver(sink: &OtlpHttp, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| sink.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

fn two() -> Input {
    Input::new().event([], "a").event([], "b").with_ids()
}

fn answers(status: u16, body: &'static str) -> Result<Vec<Delivered>, String> {
    answer_requests(move |_| Ok(Response::new(status).with_body(body)));
    deliver(&sink(), &two())
}

fn rejected(why: &str) -> Delivered {
    Delivered::Rejected(why.into())
}

#[test]
fn a_request_is_what_the_protocol_says() {
    answer_requests(|_| Ok(Response::new(200).with_body("{}")));
    set_received_ms(2000.0);
    set_setting("resource", r#"{"service.name":"plant"}"#);
    let headers = [("level", "Warning"), ("timestamp", "1500")];
    let input = Input::new().event(headers, "hot\n").event([], [0xff, 0]);
    let delivered = deliver(&sink(), &input.with_ids()).unwrap();
    assert_eq!(delivered, [const { Delivered::Done }; 2]);
    let sent = requests().remove(0);
    let url = "https://otlp.example:4318/v1/logs";
    assert_eq!((&*sent.method, &*sent.url), ("POST", url));
    let kind = ("content-type".to_owned(), "application/json".to_owned());
    assert_eq!(sent.headers, [kind]);
    let text = |key: &str, value: &str| {
        format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
    };
    let uid = |n| {
        text(
            "log.record.uid",
            &format!("000102030405060708090a0b0c0d0e0f-{n}.0"),
        )
    };
    let records = [
        format!(
            r#"{{"timeUnixNano":"1500000000","observedTimeUnixNano":"2000000000","severityNumber":13,"severityText":"Warning","body":{{"stringValue":"hot\n"}},"attributes":[{},{},{}]}}"#,
            text("level", "Warning"),
            text("timestamp", "1500"),
            uid(1)
        ),
        format!(
            r#"{{"timeUnixNano":"2000000000","observedTimeUnixNano":"2000000000","body":{{"bytesValue":"/wA="}},"attributes":[{}]}}"#,
            uid(2)
        ),
    ];
    let expected = format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{}]}},"scopeLogs":[{{"scope":{{"name":"levada"}},"logRecords":[{}]}}]}}]}}"#,
        text("service.name", "plant"),
        records.join(",")
    );
    assert_eq!(String::from_utf8(sent.body).unwrap(), expected);
}

#[test]
fn only_what_the_protocol_names_is_sent_again() {
    for status in [429, 502, 503, 504] {
        let failed = answers(status, "").unwrap_err();
        assert_eq!(failed, format!("to be tried again: status {status}"));
    }
    for status in [401, 403, 404] {
        let failed = answers(status, "").unwrap_err();
        assert_eq!(failed, format!("fatal: status {status}"));
    }
    for status in [408, 500, 501] {
        let sent = requests().len();
        let why = rejected(&format!("status {status}"));
        assert_eq!(answers(status, "").unwrap(), [why.clone(), why]);
        assert_eq!(requests().len(), sent + 1);
    }
}

#[test]
fn a_bad_record_is_found_without_sending_the_same_again() {
    answer_requests(|request| {
        let text = String::from_utf8_lossy(&request.body);
        Ok(match text.contains("\"bad\"") {
            true => Response::new(400).with_body(r#"{"message":"bad record"}"#),
            false => Response::new(200),
        })
    });
    let input = Input::new().event([], "a").event([], "bad").event([], "b");
    let delivered = deliver(&sink(), &input).unwrap();
    let why = rejected(r#"status 400: {"message":"bad record"}"#);
    assert_eq!(delivered, [Delivered::Done, why, Delivered::Done]);
    let mut bodies: Vec<_> = requests().into_iter().map(|request| request.body).collect();
    let all = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), all);
}

#[test]
fn a_part_that_is_not_named_keeps_all_out_or_lets_all_go() {
    let some = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}"#;
    let why = rejected("1 of 2 rejected, not said which: too old");
    assert_eq!(answers(200, some).unwrap(), [why.clone(), why]);
    assert_eq!(requests().len(), 1);
    let all = r#"{"partialSuccess":{"rejectedLogRecords":2,"errorMessage":"too old"}}"#;
    let why = rejected("rejected: too old");
    assert_eq!(answers(200, all).unwrap(), [why.clone(), why]);
    assert!(log_lines().is_empty());
    set_setting("partial", "accept");
    assert_eq!(answers(200, some).unwrap(), [const { Delivered::Done }; 2]);
    assert_eq!(log_lines().len(), 1);
    // All of them is not a part.
    let why = rejected("rejected: too old");
    assert_eq!(answers(200, all).unwrap(), [why.clone(), why]);
}

#[test]
fn a_warning_of_the_server_is_logged() {
    let warned = r#"{"partialSuccess":{"rejectedLogRecords":0,"errorMessage":"deprecated"}}"#;
    assert_eq!(
        answers(200, warned).unwrap(),
        [const { Delivered::Done }; 2]
    );
    assert!(log_lines()[0].1.contains("deprecated"), "{:?}", log_lines());
    for nothing in [
        "",
        "{}",
        r#"{"partialSuccess":{}}"#,
        r#"{"partialSuccess":null}"#,
    ] {
        assert_eq!(
            answers(200, nothing).unwrap(),
            [const { Delivered::Done }; 2]
        );
    }
    assert_eq!(log_lines().len(), 1);
}

#[test]
fn the_manifest_describes_every_setting() {
    sink();
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
