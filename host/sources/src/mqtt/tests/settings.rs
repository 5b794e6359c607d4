use levada_core::settings::{Key, Params as _, ValueKind};

use super::*;

fn table(pairs: &[(&str, levada_core::Value)]) -> Table {
    let key = |name: &str| Key {
        name: name.into(),
        span: Default::default(),
    };
    let entries = pairs
        .iter()
        .map(|(name, value)| (key(name), value.clone()))
        .collect();
    Table {
        path: "sources.m".into(),
        entries,
        ..Table::default()
    }
}

fn list(words: &[&str]) -> levada_core::Value {
    let values = words.iter().map(|word| (*word).into()).collect();
    levada_core::Value {
        kind: ValueKind::Array(values),
        span: Default::default(),
    }
}

fn deps() -> Deps {
    Deps {
        transport: Arc::new(levada_net::Memory::new()),
        registry: Registry::new(),
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
        agent: "gw-17".into(),
    }
}

#[test]
fn mistakes_in_the_settings_are_all_found() {
    let keys_of = |pairs: &[(&str, levada_core::Value)]| {
        let kind = levada_core::SourceKind::of(Factory::new(&deps()));
        let mut problems = Problems::new();
        let part = PartId::parse("sources.m").unwrap();
        assert!(
            kind.check(&part, &table(pairs), &[], &mut problems)
                .is_none()
        );
        let mut keys: Vec<_> = problems.iter().map(|problem| problem.key.clone()).collect();
        keys.sort();
        keys.iter()
            .map(|key| key.trim_start_matches("sources.m.").to_owned())
            .collect::<Vec<_>>()
    };
    let good = ("topics", list(&["a/+/b", "c/#", "$share/g/x"]));
    for url in [
        "broker",
        "http://x",
        "mqtt://",
        "mqtt://u:p@x",
        "mqtt://x/path",
        "mqtt://x:0",
    ] {
        assert_eq!(
            keys_of(&[("url", url.into()), good.clone()]),
            ["url"],
            "{url}"
        );
    }
    let url = ("url", "mqtt://x".into());
    let topics = list(&["a", "b/#/c", "", "x+"]);
    assert_eq!(
        keys_of(&[url.clone(), ("topics", topics)]),
        ["topics", "topics", "topics"]
    );
    let rest = [
        url,
        good,
        ("qos", 2.into()),
        ("window", 0.into()),
        ("password", "p".into()),
        ("client-id", "".into()),
        ("keep-alive", "1s".into()),
    ];
    assert_eq!(
        keys_of(&rest),
        ["client-id", "keep-alive", "password", "qos", "window"]
    );
}

#[test]
fn the_client_id_is_stable_and_the_broker_is_understood() {
    let table = table(&[("url", "mqtts://[::1]".into()), ("topics", list(&["a"]))]);
    let params = Params::read_fields(&table, &mut Problems::new()).unwrap();
    let part = PartId::parse("sources.plant").unwrap();
    let settings = Factory::new(&deps()).settings(&part, &params).unwrap();
    assert_eq!(settings.client_id, "levada-gw-17-plant");
    let broker = settings.broker;
    let seen = (
        broker.host.as_str(),
        broker.address.as_str(),
        broker.port,
        broker.tls,
    );
    assert_eq!(seen, ("::1", "[::1]:8883", 8883, true));
}
