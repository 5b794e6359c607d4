use levada_core::{BatchBuilder, ChannelName, Route, Selector};

use super::{Multiplexing, MultiplexingRoutes, Replicating};

fn names(list: &str) -> Vec<ChannelName> {
    list.split_whitespace()
        .map(|name| ChannelName::new(name).unwrap())
        .collect()
}

fn texts(names: &[ChannelName]) -> String {
    names
        .iter()
        .map(ChannelName::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

fn multiplexing(
    mapping: &[(&str, &str)],
    optional: &[(&str, &str)],
    default: &str,
) -> Multiplexing {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(value, list)| ((*value).to_owned(), names(list)))
            .collect()
    };
    Multiplexing::new(MultiplexingRoutes {
        header: "myheader".into(),
        mapping: map(mapping),
        optional: map(optional),
        default: names(default),
    })
}

fn route(selector: &dyn Selector, headers: &[(&str, &str)]) -> Route {
    let mut builder = BatchBuilder::default();
    builder.push(headers.iter().copied(), b"x");
    selector.route(builder.finish().get(0).unwrap()).clone()
}

fn check(selector: &dyn Selector, value: &str, required: &str, optional: &str) {
    let route = route(selector, &[("myheader", value)]);
    let found = (texts(&route.required), texts(&route.optional));
    assert_eq!(found, (required.into(), optional.into()), "{value}");
}

const OPTIONAL: &[(&str, &str)] = &[("foo", "ch2 ch3"), ("xyz", "ch1 ch3"), ("zebra", "ch1 ch2")];

#[test]
fn multiplexing_takes_the_channels_of_the_value() {
    let mapping = [
        ("foo", "ch1 ch2"),
        ("bar", "ch2 ch3"),
        ("xyz", "ch1 ch2 ch3"),
    ];
    let selector = multiplexing(&mapping, OPTIONAL, "ch1 ch3");
    check(&selector, "foo", "ch1 ch2", "ch3");
    check(&selector, "bar", "ch2 ch3", "");
    check(&selector, "xyz", "ch1 ch2 ch3", "");
    check(&selector, "bar1", "ch1 ch3", "");
    check(&selector, "Foo", "ch1 ch3", "");
    check(&selector, "zebra", "ch1 ch3", "ch2");
    for headers in [&[][..], &[("other", "foo")]] {
        let route = route(&selector, headers);
        assert_eq!(
            (texts(&route.required), texts(&route.optional)),
            ("ch1 ch3".into(), String::new())
        );
    }
}

#[test]
fn a_blank_value_counts_as_none() {
    let selector = multiplexing(&[("", "ch1"), (" ", "ch1"), ("a", "ch2")], &[], "ch3");
    for blank in ["", " ", "\t \n"] {
        check(&selector, blank, "ch3", "");
    }
    check(&selector, "a", "ch2", "");
}

#[test]
fn without_a_default_other_values_go_nowhere() {
    let optional = [("zebra", "ch1 ch3")];
    let selector = multiplexing(&[("zebra", "ch2")], &optional, "");
    check(&selector, "zebra", "ch2", "ch1 ch3");
    check(&selector, "horse", "", "");
}

#[test]
fn a_default_alone_takes_everything() {
    let selector = multiplexing(&[], &[("foo", "ch1 ch2"), ("zebra", "ch2 ch3")], "ch3");
    check(&selector, "foo", "ch3", "ch1 ch2");
    check(&selector, "zebra", "ch3", "ch2");
}

#[test]
fn replicating_takes_optional_channels_out_of_the_required() {
    let selector = Replicating::new(&names("ch1 ch2 ch3"), &names("ch3"));
    check(&selector, "any", "ch1 ch2", "ch3");
    assert_eq!(texts(&selector.fixed().unwrap().required), "ch1 ch2");
}

#[test]
fn a_channel_named_twice_gets_one_copy() {
    check(&Replicating::new(&names("a b a"), &[]), "x", "a b", "");
    check(
        &multiplexing(&[("v", "a a")], &[("v", "b a b")], ""),
        "v",
        "a",
        "b",
    );
}
