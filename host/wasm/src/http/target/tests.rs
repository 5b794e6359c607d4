use super::*;

fn granted() -> Vec<Destination> {
    let grants = [
        "https://api.example/v1",
        "https://hooks.example:8443/",
        "http://bücher.example",
        "http://127.0.0.1:9200",
        "http://[::1]:8080/in/",
        "https://whole.example./",
    ];
    grants
        .map(|grant| Destination::parse(grant).unwrap())
        .into()
}

fn sent(url: &str) -> Result<String, String> {
    Target::read(url, &granted()).map(|target| target.url.to_string())
}

#[test]
fn what_is_granted_is_sent_as_it_was_understood() {
    for (url, goes_to) in [
        ("https://api.example/v1", "https://api.example/v1"),
        (
            "https://api.example:443/v1/a?b=c#d",
            "https://api.example/v1/a?b=c",
        ),
        ("HTTPS://API.EXAMPLE/v1/", "https://api.example/v1/"),
        ("https://api.example./v1", "https://api.example/v1"),
        (
            "https://api.example/v1?to=http://x@y",
            "https://api.example/v1?to=http://x@y",
        ),
        ("https://api.example/v1/a@b", "https://api.example/v1/a@b"),
        ("https://api.example/v2/../v1/a", "https://api.example/v1/a"),
        ("https://api.example/v1/x/..", "https://api.example/v1/"),
        ("https:\\\\api.example\\v1\\a", "https://api.example/v1/a"),
        (
            "https://hooks.example:8443/any/%2f/where",
            "https://hooks.example:8443/any/%2f/where",
        ),
        (
            "http://xn--bcher-kva.example/",
            "http://xn--bcher-kva.example/",
        ),
        (
            "http://b\u{fc}cher.example/a",
            "http://xn--bcher-kva.example/a",
        ),
        ("http://127.0.0.1:9200/_bulk", "http://127.0.0.1:9200/_bulk"),
        ("http://2130706433:9200/", "http://127.0.0.1:9200/"),
        ("http://0x7f.1:9200/", "http://127.0.0.1:9200/"),
        ("http://0177.0.0.1:9200/", "http://127.0.0.1:9200/"),
        ("http://127.1:9200/", "http://127.0.0.1:9200/"),
        ("http://[0:0::1]:8080/in/a", "http://[::1]:8080/in/a"),
        ("https://whole.example/", "https://whole.example/"),
    ] {
        assert_eq!(sent(url).as_deref(), Ok(goes_to), "{url}");
    }
}

#[test]
fn what_is_not_granted_is_denied_with_the_line_that_would_grant_it() {
    for (url, line) in [
        ("https://evil.example/v1", "https://evil.example:443"),
        (
            "https://api.example.evil/v1",
            "https://api.example.evil:443",
        ),
        ("https://api.example:8443/v1", "https://api.example:8443"),
        ("http://api.example/v1", "http://api.example:80"),
        ("http://api.example:443/v1", "http://api.example:443"),
        ("https://api.example/v10", "https://api.example:443/v10"),
        ("https://api.example/", "https://api.example:443/"),
        (
            "https://api.example/v1/../admin",
            "https://api.example:443/admin",
        ),
        (
            "https://api.example/v1/%2e%2e/admin",
            "https://api.example:443/admin",
        ),
        (
            "https://api.example/v1/.%2E/admin",
            "https://api.example:443/admin",
        ),
        (
            "https://api.example\\v1@evil.example/",
            "https://api.example:443/v1@evil.example/",
        ),
        ("https://hooks.example/", "https://hooks.example:443"),
        ("http://[::1]:8080/in", "http://[::1]:8080/in"),
        ("http://2852039166/", "http://169.254.169.254:80"),
        ("http://0251.0376.0251.0376/", "http://169.254.169.254:80"),
        (
            "http://[::ffff:127.0.0.1]:9200/",
            "http://[::ffff:7f00:1]:9200",
        ),
        ("http://\u{2460}27.0.0.1/", "http://127.0.0.1:80"),
    ] {
        let why = sent(url).unwrap_err();
        let wanted = format!("grants = {{ http = [\"{line}\"] }}");
        assert!(why.contains(&wanted), "{url}: {why}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_denied() {
    for (url, words) in [
        ("https://user@api.example/v1", "user name"),
        ("https://user:word@api.example/v1", "user name"),
        ("https://@api.example/v1", "user name"),
        ("https://evil.example@api.example/v1", "user name"),
        ("https://api.example@evil.example/v1", "user name"),
        ("https:/\\@api.example/v1", "user name"),
        (
            "https://api.example/v1/..%2f..%2fadmin",
            "encoded separator",
        ),
        (
            "https://api.example/v1/..%5C..%5Cadmin",
            "encoded separator",
        ),
        ("https://api.example:0/v1", "port 0"),
        ("https://api.example:65536/v1", "not a URL"),
        ("http://[fe80::1%25eth0]/", "not a URL"),
        ("http://[fe80::1%eth0]/", "not a URL"),
        ("https://api.exa mple/v1", "a space"),
        (
            "https://api.example/v1\r\nhost: evil",
            "a space or a control",
        ),
        ("ht\ntps://api.example/v1", "a space or a control"),
        ("\thttps://api.example/v1", "a space or a control"),
        ("https://api.example/v1 HTTP/1.1", "a space"),
        ("https://", "not a URL"),
        ("https:///v1", "`https://v1:443`"),
        ("api.example/v1", "not a URL"),
        ("//api.example/v1", "not a URL"),
        ("", "not a URL"),
        ("file:///etc/passwd", "neither"),
        ("ftp://api.example/v1", "neither"),
        ("gopher://api.example/v1", "neither"),
        ("unix:/run/docker.sock", "neither"),
        ("data:text/plain,a", "neither"),
        ("javascript:alert(1)", "neither"),
        ("http://256.1.1.1/", "not a URL"),
        ("http://1.2.3.4.5/", "not a URL"),
        ("http://api..example/", "is not granted"),
    ] {
        let why = sent(url).unwrap_err();
        assert!(why.contains(words), "{url:?}: {why}");
    }
    let long = format!("https://api.example/v1/{}", "a".repeat(9000));
    assert!(sent(&long).unwrap_err().contains("8192 are allowed"));
}

#[test]
fn an_address_is_one_however_it_is_written() {
    let address = |url: &str| Target::parse(url).unwrap().address().map(|a| a.to_string());
    assert_eq!(address("http://0x7f.1/").as_deref(), Some("127.0.0.1"));
    assert_eq!(
        address("http://[::ffff:10.0.0.1]/").as_deref(),
        Some("::ffff:10.0.0.1")
    );
    assert_eq!(address("http://api.example/"), None);
}

#[test]
fn a_path_is_covered_whole_word_by_whole_word() {
    for (granted, path, is) in [
        ("/", "/", true),
        ("/", "/any", true),
        ("/v1", "/v1", true),
        ("/v1", "/v1/", true),
        ("/v1", "/v1/a", true),
        ("/v1", "/v1a", false),
        ("/v1", "/V1", false),
        ("/v1/", "/v1", false),
        ("/v1/", "/v1/a", true),
    ] {
        assert_eq!(covers(granted, path), is, "{granted} {path}");
    }
}
