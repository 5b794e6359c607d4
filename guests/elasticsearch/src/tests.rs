use super::*;
use levada_sdk::testing::{
    Delivered, Input, answer_requests, requests, set_setting, settings_asked, settings_described,
};

const ID: &str = "000102030405060708090a0b0c0d0e0f";

fn sink() -> Elasticsearch {
    set_setting("url", "https://search.example/");
    set_setting("index", "logs");
    Elasticsearch::read().unwrap()
}

fn deliver(sink: &Elasticsearch, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| sink.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

fn input(bodies: &[&str]) -> Input {
    let event = |input: Input, body: &&str| input.event([], body);
    bodies.iter().fold(Input::new(), event).with_ids()
}

/// Answers with these items.
fn answers(items: &'static str) {
    let body = format!(r#"{{"took":3,"errors":true,"items":[{items}]}}"#);
    answer_requests(move |_| Ok(Response::new(200).with_body(body.clone())));
}

fn again(reason: &str) -> Delivered {
    Delivered::Retry {
        reason: reason.into(),
        after: None,
    }
}

#[test]
fn documents_are_created_under_the_ids_of_their_events() {
    answer_requests(|_| Ok(Response::new(200).with_body(r#"{"errors":false,"items":[]}"#)));
    set_setting("index-header", "stream");
    let input = Input::new().event([("stream", "metrics")], "{\n\"a\":1}");
    let input = input.event([], r#"{"b":2}"#).with_ids();
    let delivered = deliver(&sink(), &input).unwrap();
    assert_eq!(delivered, [const { Delivered::Done }; 2]);
    let sent = requests().remove(0);
    assert_eq!(
        (&*sent.method, &*sent.url),
        ("POST", "https://search.example/_bulk")
    );
    let kind = ("content-type".to_owned(), "application/x-ndjson".to_owned());
    assert_eq!(sent.headers, [kind]);
    let lines = format!(
        "{{\"create\":{{\"_index\":\"metrics\",\"_id\":\"{ID}-1.0\"}}}}\n{{ \"a\":1}}\n\
         {{\"create\":{{\"_index\":\"logs\",\"_id\":\"{ID}-2.0\"}}}}\n{{\"b\":2}}\n"
    );
    assert_eq!(String::from_utf8(sent.body).unwrap(), lines);
}

#[test]
fn whole_events_have_their_time_where_data_streams_want_it() {
    answer_requests(|_| Ok(Response::new(200).with_body(r#"{"errors":false,"items":[]}"#)));
    set_setting("document", "event");
    let input = Input::new().event([("timestamp", "1500")], "text");
    deliver(&sink(), &input).unwrap();
    let body = String::from_utf8(requests().remove(0).body).unwrap();
    let lines = "{\"create\":{\"_index\":\"logs\"}}\n\
                 {\"@timestamp\":1500,\"headers\":{\"timestamp\":\"1500\"},\"body\":\"text\"}\n";
    assert_eq!(body, lines);
}

#[test]
fn each_document_becomes_what_the_server_says_of_it() {
    answers(
        r#"{"create":{"_id":"1","status":201,"result":"created"}},
           {"create":{"_id":"2","status":409,"error":{"type":"version_conflict_engine_exception",
            "reason":"[2]: version conflict, document already exists"}}},
           {"create":{"_id":"3","status":400,"error":{"type":"mapper_parsing_exception",
            "reason":"failed to parse field [n]","caused_by":{"type":"other","reason":"why"}}}},
           {"create":{"_id":"4","status":429,"error":{"type":"es_rejected_execution_exception",
            "reason":"queue is full"}}},
           {"create":{"_id":"5","status":404,"error":{"type":"index_not_found_exception",
            "reason":"no such index [logs]"}}},
           {"create":{"_id":"6","status":503}}"#,
    );
    let delivered = deliver(&sink(), &input(&["{}"; 6])).unwrap();
    let why = "status 400: mapper_parsing_exception: failed to parse field [n]";
    let expected = [
        Delivered::Done,
        Delivered::Done,
        Delivered::Rejected(why.into()),
        again("status 429: es_rejected_execution_exception: queue is full"),
        again("status 404: index_not_found_exception: no such index [logs]"),
        again("status 503"),
    ];
    assert_eq!(delivered, expected);
}

#[test]
fn an_answer_that_leaves_a_document_out_says_nothing_of_any() {
    answers(r#"{"create":{"status":201}}"#);
    let failed = deliver(&sink(), &input(&["{}"; 2])).unwrap_err();
    assert!(failed.contains("1 events; 2 were sent"), "{failed}");
    for text in ["", "{}", "<html>", r#"{"errors":true}"#, r#"{"items":[]}"#] {
        answer_requests(move |_| Ok(Response::new(200).with_body(text)));
        let failed = deliver(&sink(), &input(&["{}"])).unwrap_err();
        assert!(failed.contains("none of the bulk API"), "{text}: {failed}");
    }
    answers(r#"{"create":{"result":"created"}}"#);
    assert_eq!(
        deliver(&sink(), &input(&["{}"])).unwrap(),
        [again("status 0")]
    );
}

#[test]
fn what_is_too_large_is_sent_in_smaller_requests() {
    answer_requests(|request| {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        Ok(match text.lines().count() {
            2 if !text.contains("large") => {
                Response::new(200).with_body(r#"{"errors":false,"items":[]}"#)
            }
            _ => Response::new(413),
        })
    });
    let bodies = ["{}", r#"{"large":1}"#, "{}"];
    let delivered = deliver(&sink(), &input(&bodies)).unwrap();
    let large = Delivered::Rejected("status 413".into());
    assert_eq!(delivered, [Delivered::Done, large, Delivered::Done]);
}

#[test]
fn a_server_that_is_busy_or_refuses_the_sink_has_none() {
    answer_requests(|_| Ok(Response::new(429).with_header("retry-after", "7")));
    let input = input(&["{}"]);
    let failed = input.deliver_batch(|batch, outcomes| sink().deliver(batch, outcomes));
    let after = std::time::Duration::from_secs(7);
    let busy = Failure::retry("status 429").after(after);
    assert_eq!(failed, Err(levada_sdk::testing::NotHandled::Failure(busy)));
    answer_requests(|_| Ok(Response::new(401)));
    assert_eq!(deliver(&sink(), &input).unwrap_err(), "fatal: status 401");
}

#[test]
fn settings_that_are_needed_are_asked_for() {
    set_setting("url", "https://search.example");
    let read = Elasticsearch::read();
    assert!(matches!(read, Err(Failure::Fatal(why)) if why.contains("`index`")));
}

#[test]
fn the_manifest_describes_every_setting() {
    sink();
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
