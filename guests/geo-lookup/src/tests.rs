use super::*;
use levada_sdk::testing::{
    Input, Outcome, set_row, set_setting, settings_asked, settings_described,
};

fn placed(device: &str, unknown: Unknown) -> Outcome {
    let settings = Settings {
        header: "device".into(),
        table: "places".into(),
        prefix: "geo-".into(),
        unknown,
    };
    let input = Input::new().event([("device", device)], "x");
    input.run(|event| settings.place(event)).unwrap().remove(0)
}

#[test]
fn columns_become_headers() {
    set_row(
        "places",
        "d1",
        [("lat", "47.1"), ("lon", "8.5"), ("site", "")],
    );
    let outcome = placed("d1", Unknown::Reject);
    let event = &outcome.events()[0];
    assert_eq!(event.header("geo-lat"), Some("47.1"));
    assert_eq!(event.header("geo-lon"), Some("8.5"));
    assert_eq!(event.header("geo-site"), None);
    assert_eq!(event.header("device"), Some("d1"));
}

#[test]
fn what_is_not_in_the_table_goes_the_way_that_is_set() {
    assert!(matches!(placed("d2", Unknown::Pass), Outcome::Passed(_)));
    assert_eq!(
        placed("d2", Unknown::Discard).discarded(),
        Some("place unknown")
    );
    assert_eq!(
        placed("d2", Unknown::Reject).rejected(),
        Some("place unknown")
    );
}

#[test]
fn settings_are_read_and_wrong_ones_are_fatal() {
    assert!(Settings::read().is_ok_and(|it| it.table == "places" && it.unknown == Unknown::Pass));
    set_setting("unknown", "lose");
    assert!(matches!(Settings::read(), Err(Failure::Fatal(why)) if why.contains("`lose`")));
    set_setting("unknown", "reject");
    assert!(Settings::read().is_ok_and(|it| it.unknown == Unknown::Reject));
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
