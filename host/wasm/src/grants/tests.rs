use crate::inspect::Import;

use super::*;

fn seen(imports: &[(&str, Given)]) -> Inspection {
    let import = |(name, given): &(&str, Given)| Import {
        name: (*name).to_owned(),
        given: given.clone(),
    };
    Inspection {
        digest: String::new(),
        bytes: 0,
        roles: Vec::new(),
        imports: imports.iter().map(import).collect(),
        exports: Vec::new(),
        manifest: None,
    }
}

#[test]
fn both_sides_must_want_it() {
    let line = || Given::Granted(Grant::State.line().into());
    let wants = seen(&[
        ("levada:handler/call@0.1.0", Given::Always),
        ("levada:handler/state@0.1.0", line()),
        ("wasi:clocks/wall-clock@0.2.6", Given::Inert),
    ]);
    let none = Grants::default();
    let missing = none.missing(&wants);
    let [(import, what)] = &missing[..] else {
        panic!("{missing:?}")
    };
    assert_eq!(import, "levada:handler/state@0.1.0");
    assert!(what.contains(r#"grants = { state = "1MiB" }"#), "{what}");
    assert!(none.unused(&wants).is_empty());
    let many = Grants {
        state: Some(ByteSize::mib(1)),
        wall_clock: true,
        random: true,
        ..Grants::default()
    };
    assert!(many.missing(&wants).is_empty());
    assert_eq!(many.unused(&wants), ["random"]);
}

#[test]
fn destinations_are_plain_urls() {
    let read = |text| Destination::parse(text).map(|to: Destination| to.to_string());
    let cases = [
        ("https://api.example", Some("https://api.example:443/")),
        ("http://Api.Example/v1", Some("http://api.example:80/v1")),
        (
            "https://api.example:8443/v1/",
            Some("https://api.example:8443/v1/"),
        ),
        ("http://[::1]:80", Some("http://[::1]:80/")),
        ("http://0x7f.1/", Some("http://127.0.0.1:80/")),
        (
            "https://api.example/a/../b",
            Some("https://api.example:443/b"),
        ),
        ("api.example", None),
        ("ftp://api.example", None),
        ("https://", None),
        ("https://me@api.example", None),
        ("https://@api.example", None),
        ("https://api.example?x=1", None),
        ("https://api.example#x", None),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn networks_hold_addresses_however_these_are_written() {
    let holds = |net: &str, address: &str| {
        Network::parse(net)
            .unwrap()
            .contains(address.parse().unwrap())
    };
    assert!(holds("10.0.0.0/8", "10.1.2.3"));
    assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
    assert!(!holds("10.0.0.0/8", "11.0.0.1"));
    assert!(holds("127.0.0.1", "127.0.0.1"));
    assert!(!holds("127.0.0.1", "127.0.0.2"));
    assert!(holds("fd00::/8", "fd12::1"));
    for wrong in ["10.0.0.0/33", "10.0.0", "host", ""] {
        assert!(Network::parse(wrong).is_none(), "{wrong}");
    }
}
