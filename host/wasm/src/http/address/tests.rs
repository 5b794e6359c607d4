use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_public_addresses_are_dialled() {
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "169.253.0.1",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ] {
        assert!(is_public(ip(public).to_canonical()), "{public}");
        assert!(check(ip(public), &[]).is_ok(), "{public}");
    }
    for special in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        let why = check(ip(special), &[]).unwrap_err();
        assert!(why.contains("allow-private"), "{special}: {why}");
    }
}

#[test]
fn the_operator_allows_networks_and_the_denial_says_how() {
    let allowed = ["10.1.0.0/16", "::1", "fd00::/8"];
    let allowed = allowed.map(|network| Network::parse(network).unwrap());
    for (address, is) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.2.0.1", false),
        ("::1", true),
        ("127.0.0.1", false),
        ("fd12::1", true),
        ("fc12::1", false),
    ] {
        assert_eq!(check(ip(address), &allowed).is_ok(), is, "{address}");
    }
    let why = check(ip("::ffff:192.168.7.1"), &[]).unwrap_err();
    assert!(
        why.contains(r#"grants = { allow-private = ["192.168.7.1/32"] }"#),
        "{why}"
    );
    let why = check(ip("fe80::1"), &[]).unwrap_err();
    assert!(why.contains(r#"["fe80::1/128"]"#), "{why}");
}
