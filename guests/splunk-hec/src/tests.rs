use super::*;
use levada_sdk::testing::{
    Delivered, Input, answer_requests, requests, set_setting, settings_asked, settings_described,
};

fn sink() -> SplunkHec {
    set_setting("url", "https://splunk.example:8088");
    SplunkHec::read().unwrap()
}

fn deliver(sink: &SplunkHec, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| sink.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

fn taken() -> Response {
    Response::new(200).with_body(r#"{"text":"Success","code":0}"#)
}

fn sent() -> String {
    String::from_utf8(requests().remove(0).body).unwrap()
}

#[test]
fn events_are_objects_one_after_the_other() {
    answer_requests(|_| Ok(taken()));
    set_setting("sourcetype", "app:log");
    set_setting("fields", r#"["level","none"]"#);
    set_setting("id-field", "levada_id");
    let headers = [
        ("host", "edge-1"),
        ("level", "info"),
        ("timestamp", "1700000000007"),
    ];
    let input = Input::new().event(headers, "one \"1\"");
    let input = input.event([("timestamp", "1500")], "two").with_ids();
    deliver(&sink(), &input).unwrap();
    let request = requests().remove(0);
    let url = "https://splunk.example:8088/services/collector/event";
    assert_eq!((&*request.method, &*request.url), ("POST", url));
    let id = "000102030405060708090a0b0c0d0e0f";
    let expected = format!(
        "{{\"time\":1700000000.007,\"sourcetype\":\"app:log\",\"host\":\"edge-1\",\
         \"fields\":{{\"level\":\"info\",\"levada_id\":\"{id}-1.0\"}},\"event\":\"one \\\"1\\\"\"}}\
         {{\"time\":1.500,\"sourcetype\":\"app:log\",\
         \"fields\":{{\"levada_id\":\"{id}-2.0\"}},\"event\":\"two\"}}"
    );
    assert_eq!(sent(), expected);
}

#[test]
fn json_is_sent_as_json() {
    answer_requests(|_| Ok(taken()));
    set_setting("event", "json");
    let input = Input::new().event([("timestamp", "0")], r#"{"a": 1}"#);
    let input = input.event([], "not json").event([], [0xff]);
    let delivered = deliver(&sink(), &input).unwrap();
    assert_eq!(sent(), r#"{"time":0.000,"fields":{},"event":{"a": 1}}"#);
    let why = |why: &str| Delivered::Rejected(why.into());
    let expected = [
        Delivered::Done,
        why("the body is not JSON"),
        why("the body is not text"),
    ];
    assert_eq!(delivered, expected);
}

/// Blames the event `bad`, as the collector does with this code and this first number.
fn blames(code: &'static str, first: usize) {
    answer_requests(move |request| {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let mut events = text.split("\"event\":").skip(1);
        Ok(
            match events.position(|event| event.starts_with("\"bad\"")) {
                Some(at) => {
                    let number = at + first;
                    let body = format!(
                        r#"{{"text":"Bad","code":{code},"invalid-event-number":{number}}}"#
                    );
                    Response::new(400).with_body(body)
                }
                None => taken(),
            },
        )
    });
}

#[test]
fn the_event_that_is_blamed_is_rejected_and_no_other() {
    let bodies = ["a", "b", "bad", "d", "bad"];
    let input = bodies
        .iter()
        .fold(Input::new(), |input, body| input.event([], body));
    for code in ["6", "12", "13", "15"] {
        for first in [0, 1] {
            blames(code, first);
            let delivered = deliver(&sink(), &input).unwrap();
            let rejected: Vec<_> = delivered
                .iter()
                .map(|one| matches!(one, Delivered::Rejected(why) if why.contains("Bad")))
                .collect();
            assert_eq!(
                rejected,
                [false, false, true, false, true],
                "{code}, {first}"
            );
        }
    }
}

#[test]
fn what_is_no_events_fault_keeps_all_of_them() {
    let answers = |status: u16, body: &'static str| {
        answer_requests(move |_| Ok(Response::new(status).with_body(body)));
        deliver(&sink(), &Input::new().event([], "a")).unwrap_err()
    };
    let busy = answers(503, r#"{"text":"Server is busy","code":9}"#);
    assert!(busy.starts_with("to be tried again"), "{busy}");
    let away = answers(404, "");
    assert!(away.starts_with("to be tried again"), "{away}");
    for (status, body) in [
        (
            400,
            r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#,
        ),
        (400, r#"{"text":"Data channel is missing","code":10}"#),
        (400, "no JSON"),
        (403, r#"{"text":"Invalid token","code":4}"#),
        (401, r#"{"text":"Token is required","code":2}"#),
    ] {
        let failed = answers(status, body);
        assert!(failed.starts_with("fatal"), "{body}: {failed}");
    }
}

#[test]
fn what_is_too_large_is_sent_in_smaller_requests() {
    answer_requests(|request| {
        Ok(match request.body.len() > 100 {
            true => Response::new(413),
            false => taken(),
        })
    });
    let large = "x".repeat(200);
    let input = Input::new().event([], "a").event([], &large).event([], "b");
    let delivered = deliver(&sink(), &input).unwrap();
    let rejected = Delivered::Rejected("status 413".into());
    assert_eq!(delivered, [Delivered::Done, rejected, Delivered::Done]);
}

#[test]
fn the_manifest_describes_every_setting() {
    sink();
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
