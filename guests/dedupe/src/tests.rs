use super::*;
use levada_sdk::testing::{
    Input, Outcome, set_now_ms, set_setting, settings_asked, settings_described,
};

fn settings() -> Settings {
    Settings {
        header: "id".into(),
        remember: Duration::from_secs(60),
        reject_without: false,
    }
}

fn judged(settings: &Settings, ids: &[&str]) -> Vec<Outcome> {
    let event = |input: Input, id: &&str| input.event([("id", *id)], "x");
    let input = ids.iter().fold(Input::new(), event);
    input.run(|event| settings.judge(event)).unwrap()
}

fn passed(ids: &[&str]) -> Vec<bool> {
    let outcomes = judged(&settings(), ids);
    let passed = |outcome: &Outcome| outcome.discarded() != Some("seen before");
    outcomes.iter().map(passed).collect()
}

#[test]
fn each_value_passes_once_until_it_is_forgotten() {
    set_now_ms(1_000);
    assert_eq!(passed(&["a", "b", "a"]), [true, true, false]);
    set_now_ms(60_999);
    assert_eq!(passed(&["a", "c"]), [false, true]);
    set_now_ms(61_000);
    assert_eq!(passed(&["a", "a", "c"]), [true, false, false]);
}

#[test]
fn a_batch_that_fails_is_not_remembered() {
    let settings = settings();
    let input = Input::new().event([("id", "a")], "x");
    let failed = input.run(|event| {
        settings.judge(event)?;
        Err::<Verdict, _>(Failure::retry("later"))
    });
    assert!(failed.is_err());
    assert_eq!(passed(&["a"]), [true]);
}

#[test]
fn events_without_a_value_pass_or_are_rejected() {
    assert_eq!(passed(&["", ""]), [true, true]);
    let mut settings = settings();
    settings.reject_without = true;
    assert_eq!(
        judged(&settings, &[""])[0].rejected(),
        Some("header missing")
    );
    let long = "x".repeat(1025);
    assert!(judged(&settings, &[&long])[0].rejected().is_some());
}

#[test]
fn settings_are_read_and_wrong_ones_are_fatal() {
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`header`")));
    set_setting("header", "id");
    assert!(Settings::read().is_ok_and(|it| it.remember == Duration::from_secs(3600)));
    set_setting("for-seconds", "soon");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`soon`")));
    set_setting("for-seconds", "5");
    set_setting("without", "maybe");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`maybe`")));
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
