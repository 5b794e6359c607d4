//! Handlers as sinks, through the real binary: what a component says of each event is what becomes
//! of it, what it fails on is set aside alone, and the books balance.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use levada_tests::{
    agent::Agent,
    collector::{Collector, component},
    place,
    receiver::{Answer, Receiver, Request},
    trouble::Trouble,
};
use serde_json::{Value, json};

fn reason(letters: &[Value], body: &str) -> String {
    let own = |letter: &&Value| letter["body"] == body;
    let letter = letters.iter().find(own).unwrap_or(&Value::Null);
    letter["reason"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_sink_says_what_becomes_of_each_event() -> Result<()> {
    let sink = "max-attempts = 1";
    let collector = Collector::lay(&component("typed-sink")?, sink)?
        .start()
        .await?;
    let body = |body: &str| json!({ "headers": { "say": "hello" }, "body": body });
    let bodies = ["one", "reject", "id", "header", "two", "retry", "three"];
    let events: Vec<_> = bodies.iter().map(|text| body(text)).collect();
    collector.post(&json!(events)).await?;
    let letters = collector.finish(7).await?;
    assert_eq!(letters.len(), 4, "{letters:?}");
    assert_eq!(reason(&letters, "reject"), "asked to");
    assert_eq!(reason(&letters, "header"), "hello");
    assert_eq!(reason(&letters, "retry"), "not delivered in 2 attempts");
    let id = letters.iter().find(|letter| letter["body"] == "id");
    let id = id.context("the letter of `id`")?;
    assert_eq!(id["reason"], id["origin"], "the id that the guest saw");
    for letter in &letters {
        assert_eq!(
            (&letter["part"], &letter["flow"]),
            (&json!("sinks.out"), &json!("channels.main"))
        );
    }
    let digest = id["handler"].as_str().unwrap_or_default();
    assert!(digest.starts_with("sha256:"), "{id}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_answer_breaks_the_contract_delivers_the_neighbours() -> Result<()> {
    let collector = Collector::lay(&component("typed-sink")?, "")?
        .start()
        .await?;
    let bodies = ["one", "two", "one too few", "three"];
    let events: Vec<_> = bodies
        .iter()
        .map(|body| json!({ "headers": {}, "body": body }))
        .collect();
    collector.post(&json!(events)).await?;
    let letters = collector.finish(4).await?;
    let why = "broken contract at event 0: 0 outcomes for 1 events";
    assert_eq!(reason(&letters, "one too few"), why);
    assert_eq!(letters.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_used_as_what_it_is() -> Result<()> {
    let refused = async |agent: Agent, words: &[&str]| {
        for verb in ["check", "run"] {
            let output = agent.levada(&[verb]).await?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
            for word in words {
                assert!(said.contains(word), "{verb}: {word} is not in: {said}");
            }
        }
        anyhow::Ok(())
    };
    // An interceptor is no sink.
    let collector = Collector::lay(&component("noop")?, "")?;
    refused(
        collector.agent,
        &["sinks.out.handler", "`handlers.out` is no sink"],
    )
    .await?;
    // A sink is no interceptor.
    let folder = tempfile::tempdir()?;
    let parts = format!(
        r#"[sources.web]
type = "http"
listen = "{}"
interceptors = ["out"]
channels = ["main"]

[channels.main]
type = "durable"

[handlers.out]
{}

[sinks.nowhere]
type = "null"
channel = "main"
"#,
        place::free_address()?,
        component("typed-sink")?
    );
    let agent = Agent::new(folder.path(), "wrong", &parts)?;
    refused(
        agent,
        &[
            "sources.web.interceptors",
            "`handlers.out` is no interceptor",
        ],
    )
    .await?;
    // A handler that is not there.
    let folder = tempfile::tempdir()?;
    let agent = Agent::new(
        folder.path(),
        "none",
        &parts.replace("type = \"null\"", "type = \"handler\"\nhandler = \"ouch\""),
    )?;
    refused(
        agent,
        &["sinks.nowhere.handler", "there is no handler `ouch`"],
    )
    .await
}

/// The lines of a webhook to a server on this machine.
fn webhook(server: &Receiver, config: &str) -> Result<String> {
    let component = component("webhook")?;
    let url = server.url();
    Ok(format!(
        r#"{component}
config = {{ url = "{url}/in", timeout-ms = 1000, {config} }}
grants = {{ http = ["{url}/in"], allow-private = ["127.0.0.1"] }}
credentials = {{ "{url}" = {{ header = "authorization", value = "Bearer s3cret" }} }}"#
    ))
}

/// F44: whatever the server answers, nothing is lost, and only what it cannot take is set aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_loses_nothing_whatever_its_server_answers() -> Result<()> {
    let later = "429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let down = "500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops";
    let script = [
        Answer::Refuses(down),
        Answer::Takes,
        Answer::Refuses(later),
        Answer::TakesAndBreaks,
        Answer::Takes,
        Answer::NeverEnds,
        Answer::Stalls,
        Answer::Drips,
        Answer::Refuses("garbage\r\n\r\n"),
        Answer::Takes,
    ];
    let server = Receiver::start(script).await?;
    let collector = Collector::lay(&webhook(&server, r#"send = "event""#)?, "")?
        .start()
        .await?;
    let bodies: Vec<String> = (0..60)
        .map(|n| match n % 10 {
            7 => format!("refuse {n}"),
            _ => format!("event {n}"),
        })
        .collect();
    let events: Vec<_> = bodies
        .iter()
        .map(|body| json!({ "headers": {}, "body": body }))
        .collect();
    collector.post(&json!(events)).await?;
    let letters = collector.finish(60).await?;
    let dead: BTreeSet<_> = letters
        .iter()
        .filter_map(|letter| letter["body"].as_str())
        .collect();
    let refused: BTreeSet<_> = bodies
        .iter()
        .filter(|body| body.starts_with("refuse"))
        .collect();
    assert_eq!(dead, refused.into_iter().map(String::as_str).collect());
    assert!(
        letters
            .iter()
            .all(|letter| letter["reason"] == "status 422: why"),
        "{letters:?}"
    );
    // Each of the others was taken under its own key; what came again came under the same.
    let taken = server.taken();
    let mut once: Vec<_> = taken.values().map(|bodies| bodies[0].as_str()).collect();
    once.sort_unstable();
    let mut wanted: Vec<_> = bodies
        .iter()
        .filter(|body| body.starts_with("event"))
        .collect();
    wanted.sort_unstable();
    assert_eq!(once, wanted);
    let twice: Vec<_> = taken.values().filter(|bodies| bodies.len() > 1).collect();
    assert_eq!(
        twice.len(),
        1,
        "only the broken answer hid that it was taken: {twice:?}"
    );
    assert!(
        twice
            .iter()
            .all(|bodies| bodies.iter().all(|body| *body == bodies[0]))
    );
    let requests = server.requests();
    let sound = |request: &Request| {
        request.head.starts_with("POST /in HTTP/1.1")
            && request.header("authorization") == Some("Bearer s3cret")
    };
    assert!(requests.iter().all(sound));
    Ok(())
}

/// The demo's second act, shorter.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_at_both_ends_and_a_kill_lose_nothing_to_a_service_in_trouble() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut trouble = Trouble::lay(folder.path(), 800).await?;
    let became = trouble.run(|_| ()).await?;
    assert_eq!(
        (became.taken, became.refused, became.missing),
        (792, 8, 0),
        "{became:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_sends_batches_several_at_once() -> Result<()> {
    let down = "503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
    let server = Receiver::start([Answer::Refuses(down)]).await?;
    let handler = webhook(&server, r#"send = "batch""#)? + "\nin-flight = 4";
    let sink = "batch = { events = 50 }";
    let collector = Collector::lay(&handler, sink)?.start().await?;
    for from in 0..10 {
        let events: Vec<_> = (0..100)
            .map(|n| json!({ "headers": { "n": n.to_string() }, "body": (from * 100 + n).to_string() }))
            .collect();
        collector.post(&json!(events)).await?;
    }
    let letters = collector.finish(1000).await?;
    assert!(letters.is_empty(), "{letters:?}");
    let mut numbers = Vec::new();
    for bodies in server.taken().values() {
        assert_eq!(bodies.len(), 1, "a key twice");
        let events: Vec<Value> = serde_json::from_str(&bodies[0])?;
        for event in events {
            let number: usize = event["body"].as_str().context("a body")?.parse()?;
            assert_eq!(event["headers"]["n"], (number % 100).to_string());
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_without_its_grant_is_refused_with_the_line_that_grants_it() -> Result<()> {
    let collector = Collector::lay(&component("webhook")?, "")?;
    let output = collector.agent.levada(&["check"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in ["levada:handler/http-client@0.1.0", "grants = { http = ["] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    Ok(())
}
