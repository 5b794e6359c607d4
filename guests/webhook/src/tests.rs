use std::time::Duration;

use super::*;
use levada_sdk::{
    http::{Problem, Request},
    testing::{
        Delivered, Input, answer_requests, requests, set_setting, settings_asked,
        settings_described,
    },
};

fn webhook(send: Send) -> Webhook {
    Webhook {
        endpoint: Endpoint {
            url: "https://api.example/in".into(),
            headers: Vec::new(),
            timeout: None,
        },
        method: "POST".into(),
        send,
        key_header: "idempotency-key".into(),
    }
}

fn deliver(webhook: &Webhook, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| webhook.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

fn three() -> Input {
    let input = Input::new().event([("host", "a")], "one").event([], "two");
    input.event([], "three").with_ids()
}

fn again(reason: &str, after: Option<u64>) -> Delivered {
    Delivered::Retry {
        reason: reason.into(),
        after: after.map(Duration::from_secs),
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut headers = request.headers.iter();
    Some(&headers.find(|(found, _)| found == name)?.1)
}

#[test]
fn each_event_is_a_request_with_its_own_key() {
    answer_requests(|_| Ok(Response::new(204)));
    let delivered = deliver(&webhook(Send::Event), &three()).unwrap();
    assert_eq!(
        delivered,
        [Delivered::Done, Delivered::Done, Delivered::Done]
    );
    let sent = requests();
    let bodies: Vec<_> = sent.iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
    let keys: Vec<_> = sent
        .iter()
        .map(|request| header(request, "idempotency-key"))
        .collect();
    let key = |n| format!("000102030405060708090a0b0c0d0e0f-{n}.0");
    assert_eq!(keys, [Some(&*key(1)), Some(&*key(2)), Some(&*key(3))]);
    assert!(
        sent.iter()
            .all(|request| request.url == "https://api.example/in")
    );
}

#[test]
fn the_status_decides_event_by_event() {
    answer_requests(|request| {
        Ok(match request.body.as_slice() {
            b"two" => Response::new(422).with_body("no such field"),
            _ => Response::new(200),
        })
    });
    let delivered = deliver(&webhook(Send::Event), &three()).unwrap();
    let rejected = Delivered::Rejected("status 422: no such field".into());
    assert_eq!(delivered, [Delivered::Done, rejected, Delivered::Done]);
}

#[test]
fn a_server_that_asks_to_wait_is_not_asked_for_the_rest() {
    answer_requests(|request| {
        Ok(match request.body.as_slice() {
            b"two" => Response::new(429).with_header("retry-after", "7"),
            _ => Response::new(200),
        })
    });
    let delivered = deliver(&webhook(Send::Event), &three()).unwrap();
    let later = again("status 429", Some(7));
    assert_eq!(delivered, [Delivered::Done, later.clone(), later]);
    assert_eq!(requests().len(), 2);
}

#[test]
fn without_an_answer_events_come_again() {
    answer_requests(|request| match request.body.as_slice() {
        b"one" => Ok(Response::new(200)),
        _ => Err(Problem::Timeout),
    });
    let delivered = deliver(&webhook(Send::Event), &three()).unwrap();
    let later = again("no whole answer in time", None);
    assert_eq!(delivered, [Delivered::Done, later.clone(), later]);
    answer_requests(|_| Err(Problem::Connect("refused".into())));
    let failed = deliver(&webhook(Send::Event), &three()).unwrap_err();
    assert_eq!(failed, "to be tried again: no connection: refused");
    answer_requests(|_| Err(Problem::Denied("not granted".into())));
    let failed = deliver(&webhook(Send::Batch), &three()).unwrap_err();
    assert_eq!(failed, "fatal: request denied: not granted");
}

#[test]
fn a_batch_is_one_request_and_what_is_no_text_is_rejected() {
    answer_requests(|_| Ok(Response::new(200)));
    let input = Input::new().event([("host", "a\"b")], "one\n");
    let input = input.event([], [0xff]).event([], "two").with_ids();
    let delivered = deliver(&webhook(Send::Batch), &input).unwrap();
    assert_eq!(
        (&delivered[0], &delivered[2]),
        (&Delivered::Done, &Delivered::Done)
    );
    assert!(matches!(&delivered[1], Delivered::Rejected(why) if why.contains("not text")));
    let sent = requests();
    let body = r#"[{"headers":{"host":"a\"b"},"body":"one\n"},{"headers":{},"body":"two"}]"#;
    assert_eq!(String::from_utf8_lossy(&sent[0].body), body);
    assert_eq!(header(&sent[0], "content-type"), Some("application/json"));
    assert!(header(&sent[0], "idempotency-key").is_some());
    // Nothing that could be sent: no request.
    let nothing = deliver(&webhook(Send::Batch), &Input::new().event([], [0xff])).unwrap();
    assert!(matches!(nothing[..], [Delivered::Rejected(_)]));
    assert_eq!(requests().len(), 1);
}

#[test]
fn settings_are_read() {
    set_setting("url", "https://api.example");
    let webhook = Webhook::read().unwrap();
    assert_eq!(
        (&*webhook.method, &*webhook.key_header),
        ("POST", "idempotency-key")
    );
    assert!(webhook.send == Send::Event);
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
    set_setting("send", "batch");
    set_setting("key-header", "");
    let webhook = Webhook::read().unwrap();
    assert!(webhook.send == Send::Batch);
    answer_requests(|_| Ok(Response::new(200)));
    deliver(&webhook, &three()).unwrap();
    assert_eq!(requests()[0].headers.len(), 1);
    set_setting("send", "all");
    assert!(matches!(Webhook::read(), Err(Failure::Fatal(why)) if why.contains("`send`")));
}
