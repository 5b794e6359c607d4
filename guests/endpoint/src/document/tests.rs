use super::*;
use levada_sdk::testing::{Input, clear, set_received_ms, set_setting};

/// The document of one event, as the sink that delivers it sees it.
fn written(documents: &Documents, input: &Input) -> Result<String, String> {
    let mut made = Err("no event".to_owned());
    let delivered = input.deliver(|event| made = documents.write(event));
    assert!(delivered.is_ok());
    made
}

fn documents(form: Form, id_field: &str) -> Documents {
    Documents {
        form,
        time_field: "time".into(),
        id_field: id_field.into(),
    }
}

fn body(body: &str) -> Input {
    Input::new().event([("n", "1")], body).with_ids()
}

const ID: &str = "000102030405060708090a0b0c0d0e0f-1.0";

#[test]
fn a_body_stays_as_it_is_in_one_line() {
    let plain = documents(Form::Body, "");
    let same = |text: &str| written(&plain, &body(text));
    assert_eq!(same(r#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
    let lines = "\n{\r\n \"a\": \"x\\n\",\n\"b\" : [1.50]\n}\n";
    assert_eq!(same(lines).unwrap(), r#"{   "a": "x\n", "b" : [1.50] }"#);
    for other in ["", "1", "[]", "{", r#"{"a":1} {}"#] {
        assert_eq!(same(other).unwrap_err(), "the body is not a JSON object");
    }
    let bytes = Input::new().event([], [0xff]);
    assert_eq!(written(&plain, &bytes).unwrap_err(), "the body is not text");
}

#[test]
fn an_id_is_added_where_there_is_one() {
    let with_id = documents(Form::Body, "_key");
    let made = |text: &str| written(&with_id, &body(text)).unwrap();
    assert_eq!(made(r#"{"a":1}"#), format!(r#"{{"_key":"{ID}","a":1}}"#));
    assert_eq!(made("{ }"), format!(r#"{{"_key":"{ID}" }}"#));
    let without = Input::new().event([], r#"{"a":1}"#);
    assert_eq!(written(&with_id, &without).unwrap(), r#"{"a":1}"#);
}

#[test]
fn a_whole_event_has_its_headers_and_its_time() {
    clear();
    set_received_ms(1500.0);
    let whole = documents(Form::Event, "id");
    let expected = format!(r#"{{"id":"{ID}","time":1500,"headers":{{"n":"1"}},"body":"a\"\n"}}"#);
    assert_eq!(written(&whole, &body("a\"\n")).unwrap(), expected);
    let mut timeless = documents(Form::Event, "");
    timeless.time_field.clear();
    let expected = r#"{"headers":{"n":"1"},"body":""}"#;
    assert_eq!(written(&timeless, &body("")).unwrap(), expected);
}

#[test]
fn settings_are_read_and_wrong_ones_are_fatal() {
    clear();
    let read = Documents::read("@timestamp").unwrap();
    assert_eq!((read.form, &*read.time_field), (Form::Body, "@timestamp"));
    set_setting("document", "event");
    set_setting("time-field", "");
    let read = Documents::read("@timestamp").unwrap();
    assert_eq!((read.form, &*read.time_field), (Form::Event, ""));
    set_setting("document", "all");
    let wrong = Documents::read("");
    assert!(matches!(wrong, Err(Failure::Fatal(why)) if why.contains("`document`")));
    clear();
}
