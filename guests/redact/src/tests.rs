use super::*;
use levada_sdk::testing::{Input, Outcome};

/// What becomes of one event when `email` and `phone` are hidden.
fn redacted(headers: &[(&str, &str)], body: &str, pass_not_json: bool) -> Outcome {
    let settings = Settings {
        fields: vec!["email".into(), "phone".into()],
        pass_not_json,
    };
    let input = Input::new().event(headers.iter().copied(), body);
    input.run(|event| settings.redact(event)).unwrap().remove(0)
}

fn body(body: &str) -> String {
    redacted(&[], body, false).events()[0].text()
}

#[test]
fn values_are_hidden_and_all_else_stays() {
    assert_eq!(
        body(r#"{ "n" : 1.50, "email":"a@b.c", "more": [{"phone": {"home": 1}}, "email"] }"#),
        r#"{ "n" : 1.50, "email":"***", "more": [{"phone": "***"}, "email"] }"#
    );
    assert_eq!(body(r#"{"\u0065mail":"a@b.c"}"#), r#"{"\u0065mail":"***"}"#);
    assert_eq!(body(r#"{"Email":"a@b.c"}"#), r#"{"Email":"a@b.c"}"#);
    assert_eq!(body("[]"), "[]");
}

#[test]
fn headers_of_the_same_names_are_hidden() {
    let outcome = redacted(
        &[("email", "a@b.c"), ("host", "h")],
        r#"{"phone":1}"#,
        false,
    );
    let event = &outcome.events()[0];
    assert_eq!(
        (event.header("email"), event.header("host")),
        (Some("***"), Some("h"))
    );
    assert_eq!(event.text(), r#"{"phone":"***"}"#);
}

#[test]
fn what_is_not_json_is_rejected_or_passes() {
    for text in ["", "email: a@b.c", r#"{"email":"a@b.c""#] {
        assert_eq!(redacted(&[], text, false).rejected(), Some("not JSON"));
        assert_eq!(redacted(&[], text, true).events()[0].text(), text);
    }
    let passed = redacted(&[("email", "a@b.c")], "text", true);
    assert_eq!(passed.events()[0].header("email"), Some("***"));
}

#[test]
fn what_holds_no_field_passes_untouched() {
    let outcome = redacted(&[("host", "h")], r#"{"n":1}"#, false);
    assert!(matches!(outcome, Outcome::Passed(_)));
}

#[test]
fn settings_are_read_and_wrong_ones_are_fatal() {
    use levada_sdk::testing::{set_setting, settings_asked, settings_described};
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`fields`")));
    set_setting("fields", r#"["email"]"#);
    assert!(Settings::read().is_ok_and(|settings| settings.hides("email")));
    set_setting("not-json", "maybe");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`maybe`")));
    set_setting("not-json", "pass");
    assert!(Settings::read().is_ok_and(|settings| settings.pass_not_json));
    set_setting("fields", "email");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`fields`")));
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
