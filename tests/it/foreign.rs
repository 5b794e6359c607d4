//! Guests in the typed form, whatever wrote them: Rust against the WIT alone, Python, JavaScript.
//! All behave the same. The last two run where their tools built them.

use std::{env, path::Path};

use anyhow::Result;
use levada_tests::{http::Connection, place};
use serde_json::json;

use crate::gateway::Gateway;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_the_sdk() -> Result<()> {
    behaves(&place::guest("typed")?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_in_python() -> Result<()> {
    foreign("python").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_in_javascript() -> Result<()> {
    foreign("js").await
}

async fn foreign(language: &str) -> Result<()> {
    match place::foreign_guest(language) {
        Ok(component) => behaves(&component).await,
        Err(error) if env::var_os("LEVADA_REQUIRE_FOREIGN").is_some_and(|value| value == "1") => {
            Err(error)
        }
        Err(error) => {
            println!("not run: {error:#}");
            Ok(())
        }
    }
}

async fn behaves(component: &Path) -> Result<()> {
    let http = place::free_address()?;
    let more = format!(
        r#"[sources.handled]
type = "http"
listen = "{http}"
interceptors = ["guest"]
channels = ["main"]

[handlers.guest]
component = {:?}
"#,
        component.display().to_string()
    );
    let mut gateway = Gateway::start(&more).await?;
    let body = json!([
        { "headers": { "tmp": "x" }, "body": "{\"level\":\"error\"}" },
        { "headers": {}, "body": "{\"level\":\"debug\"}" },
        { "headers": {}, "body": "{\"level\":\"split\"}" },
        { "headers": {}, "body": "not JSON" },
        { "headers": {}, "body": "{\"level\":\"mask\",\"secret\":\"s\"}" },
        { "headers": { "kept": "y" }, "body": "{}" },
    ]);
    let json = [("content-type", "application/json")];
    let mut connection = Connection::open(http).await?;
    let answer = connection
        .send("POST", "/", &json, body.to_string().into())
        .await?;
    assert_eq!(
        answer.status,
        200,
        "{}\n{}",
        answer.text(),
        gateway.agent.tail()
    );
    let events = gateway.events(5).await?;
    let bodies: Vec<_> = events.iter().map(|event| event.body.as_str()).collect();
    let split = "{\"level\":\"split\"}";
    assert_eq!(
        bodies,
        [
            "{\"level\":\"error\"}",
            split,
            split,
            "{\"level\":\"mask\"}",
            "{}"
        ]
    );
    assert_eq!(events[0].headers["severity"], "error");
    assert!(!events[0].headers.contains_key("tmp"));
    assert_eq!(
        (&*events[1].headers["part"], &*events[2].headers["part"]),
        ("1", "2")
    );
    assert_eq!(events[4].headers["kept"], "y");
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    assert_eq!(audit.count("sources.handled", "accepted"), Some(6));
    assert_eq!(audit.count("sources.handled", "made"), Some(1));
    assert_eq!(audit.count("sources.handled", "dead-lettered"), Some(1));
    assert_eq!(audit.count("sources.handled", "put"), Some(5));
    Ok(())
}
