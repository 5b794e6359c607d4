use super::*;
use levada_sdk::{
    http::Response,
    testing::{
        Delivered, Input, answer_requests, requests, set_setting, settings_asked,
        settings_described,
    },
};

fn sink() -> Influx {
    set_setting("url", "https://influx.example");
    set_setting("org", "plant & co");
    set_setting("bucket", "raw");
    Influx::read().unwrap()
}

fn deliver(sink: &Influx, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| sink.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

fn sent() -> String {
    String::from_utf8(requests().remove(0).body).unwrap()
}

#[test]
fn events_are_points() {
    answer_requests(|_| Ok(Response::new(204)));
    set_setting("measurement-header", "kind");
    set_setting("tags", r#"["device","none"]"#);
    let headers = [("timestamp", "1500"), ("device", "a 1"), ("kind", "heat")];
    let input = Input::new().event(headers, r#"{"celsius": 21.5, "ok": true}"#);
    let input = input
        .event([("timestamp", "1500")], r#"{"n":1}"#)
        .with_ids();
    let delivered = deliver(&sink(), &input).unwrap();
    assert_eq!(delivered, [const { Delivered::Done }; 2]);
    let lines = "heat,device=a\\ 1 celsius=21.5,ok=true 1500000001\nevents n=1 1500000002\n";
    assert_eq!(sent(), lines);
    let request = requests().remove(0);
    let url = "https://influx.example/api/v2/write?org=plant%20%26%20co&bucket=raw&precision=ns";
    assert_eq!((&*request.method, &*request.url), ("POST", url));
    let kind = "text/plain; charset=utf-8";
    assert_eq!(
        request.headers,
        [("content-type".to_owned(), kind.to_owned())]
    );
}

#[test]
fn lines_of_the_protocol_are_sent_as_they_are() {
    answer_requests(|_| Ok(Response::new(204)));
    set_setting("format", "line");
    let input = Input::new().event([], "m,t=1 f=2i 3\n").event([], "m f=4");
    let input = input.event([], " ").event([], [0xff]);
    let delivered = deliver(&sink(), &input).unwrap();
    assert_eq!(sent(), "m,t=1 f=2i 3\nm f=4\n");
    let why = |why: &str| Delivered::Rejected(why.into());
    assert_eq!(
        delivered[2..],
        [why("the body is empty"), why("the body is not text")]
    );
}

#[test]
fn a_point_that_is_wrong_is_rejected_and_its_neighbours_stay() {
    for status in [400, 413, 422] {
        answer_requests(move |request| {
            let text = String::from_utf8_lossy(&request.body);
            Ok(match text.contains("bad") {
                true => Response::new(status).with_body("field type conflict"),
                false => Response::new(204),
            })
        });
        let input = Input::new()
            .event([], r#"{"a":1}"#)
            .event([], r#"{"bad":1}"#);
        let input = input.event([], r#"{"a":2}"#).event([], "no JSON");
        let delivered = deliver(&sink(), &input).unwrap();
        let why = format!("status {status}: field type conflict");
        let expected = [
            Delivered::Done,
            Delivered::Rejected(why),
            Delivered::Done,
            Delivered::Rejected("the body is not a JSON object".into()),
        ];
        assert_eq!(delivered, expected);
    }
}

#[test]
fn a_server_that_is_busy_or_refuses_the_sink_has_none() {
    let input = Input::new().event([], r#"{"a":1}"#);
    answer_requests(|_| Ok(Response::new(503)));
    let failed = deliver(&sink(), &input).unwrap_err();
    assert_eq!(failed, "to be tried again: status 503");
    answer_requests(|_| Ok(Response::new(404).with_body("bucket not found")));
    let failed = deliver(&sink(), &input).unwrap_err();
    assert_eq!(failed, "fatal: status 404: bucket not found");
}

#[test]
fn the_manifest_describes_every_setting() {
    sink();
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
