//! Looking into handlers through the real binary: run by hand, recorded, replayed, tapped.

use std::{net::SocketAddr, path::Path, process::Output, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use levada_tests::{
    agent::Agent,
    http::Connection,
    place,
    receiver::{Answer, Receiver},
    wait,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

const WITHIN: Duration = Duration::from_secs(60);

/// Runs `levada handler` with these words and this standard input.
async fn handler(words: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(place::levada()?)
        .arg("handler")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    Ok(child.wait_with_output().await?)
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    let text = std::str::from_utf8(&output.stdout)?;
    let line = |line: &str| serde_json::from_str(line).with_context(|| line.to_owned());
    text.lines().map(line).collect()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn guest(name: &str) -> Result<String> {
    Ok(place::guest(name)?.display().to_string())
}

/// One JSON line for each body.
fn events(bodies: &[&str]) -> String {
    let line = |body: &&str| json!({ "headers": { "n": "1" }, "body": body }).to_string() + "\n";
    bodies.iter().map(line).collect()
}

fn verdicts(lines: &[Value]) -> Vec<&str> {
    let words = lines
        .iter()
        .map(|line| line["verdict"].as_str().unwrap_or("none"));
    words.collect()
}

#[tokio::test]
async fn a_handler_runs_by_hand_and_says_what_it_does_with_each_event() -> Result<()> {
    let bodies = [
        r#"{"level":"debug"}"#,
        r#"{"level":"split"}"#,
        "no JSON",
        r#"{"level":"warn"}"#,
    ];
    let typed = guest("typed")?;
    let output = handler(&["run", &typed], &events(&bodies)).await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let said = lines(&output)?;
    assert_eq!(verdicts(&said), ["discard", "replace", "reject", "patch"]);
    assert_eq!(said[1]["after"].as_array().map(Vec::len), Some(2));
    assert_eq!(said[1]["after"][1]["headers"], json!({ "part": "2" }));
    assert_eq!(said[2]["reason"], "not a JSON object");
    assert_eq!(
        said[3]["after"][0]["headers"],
        json!({ "n": "1", "severity": "warn" })
    );
    assert_eq!(said[3]["before"]["headers"], json!({ "n": "1" }));
    // Its settings are given by hand; what it logs is on standard error.
    let output = handler(
        &["run", &typed, "--set", "drop-level=warn"],
        &events(&bodies),
    )
    .await?;
    assert_eq!(
        verdicts(&lines(&output)?),
        ["patch", "replace", "reject", "discard"]
    );
    assert!(
        told(&output).contains("typed got 4 events"),
        "{}",
        told(&output)
    );
    let output = handler(&["run", &typed, "--batch", "1"], &events(&bodies)).await?;
    assert_eq!(told(&output).matches("typed got 1 events").count(), 4);
    // A failure of the whole batch.
    let output = handler(&["run", &typed], &events(&["retry"])).await?;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(lines(&output)?[0]["unhandled"], "asked to");
    for (words, input, code, said) in [
        (&["run"][..], "", 1, "which handler?"),
        (&["run", &typed], "no event\n", 1, "line 1 is no event"),
        (
            &["run", "nowhere.wasm"],
            "",
            1,
            "cannot read the component `nowhere.wasm`",
        ),
        (
            &["run", &typed, "--grant", "stat=1MiB"],
            "",
            2,
            "grants.stat",
        ),
        (
            &["run", &typed, "--replay", "x", "--set", "a=b"],
            "",
            2,
            "cannot be used with",
        ),
    ] {
        let output = handler(words, input).await?;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            told(&output)
        );
        assert!(told(&output).contains(said), "{words:?}: {}", told(&output));
    }
    Ok(())
}

#[tokio::test]
async fn a_recorded_call_is_replayed_and_another_component_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let call = folder.path().join("call.jsonl");
    let call = call.to_str().context("a path")?;
    let hostile = guest("hostile")?;
    let words = [
        "run",
        &hostile,
        "--set",
        "mode=panic",
        "--set",
        "poison=bad",
        "--record",
        call,
    ];
    let output = handler(&words, &events(&["bad luck"])).await?;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let recorded = lines(&output)?;
    assert_eq!(verdicts(&recorded), ["failed"]);
    let output = handler(&["run", "--replay", call], "").await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(lines(&output)?, recorded);
    assert!(
        told(&output).contains("the call ended as it was recorded: 1 events"),
        "{}",
        told(&output)
    );
    // Another component is refused; if it is wanted all the same, what differs is named.
    let typed = guest("typed")?;
    let noop = guest("noop")?;
    let output = handler(&["run", "--replay", call, &noop], "").await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told(&output).contains("is not the component that was recorded"),
        "{}",
        told(&output)
    );
    let output = handler(&["run", "--replay", call, "--other-component", &noop], "").await?;
    assert_eq!(output.status.code(), Some(1));
    let differs = "differs: `settings.get(\"mode\")` was recorded, and is not asked now";
    assert!(told(&output).contains(differs), "{}", told(&output));
    let output = handler(&["run", "--replay", call, "--other-component", &typed], "").await?;
    assert!(
        told(&output).contains("it is no `packed-interceptor`"),
        "{}",
        told(&output)
    );
    let mut bytes = std::fs::read(call)?;
    bytes.pop();
    bytes.pop();
    std::fs::write(call, bytes)?;
    let output = handler(&["run", "--replay", call], "").await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("is damaged"), "{}", told(&output));
    Ok(())
}

/// A sink that called a server is replayed when the server is gone, and no credential is written.
#[tokio::test]
async fn a_call_that_sent_requests_is_replayed_without_a_network() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let call = folder.path().join("call.jsonl");
    let call = call.to_str().context("a path")?;
    let down = "503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let server = Receiver::start([Answer::Refuses(down)]).await?;
    let url = server.url();
    let config = folder.path().join("edge.toml");
    let text = format!(
        r#"[handlers.out]
component = {:?}
config = {{ url = "{url}/in", send = "event" }}
grants = {{ http = ["{url}/in"], allow-private = ["127.0.0.1"] }}
credentials = {{ "{url}" = {{ header = "authorization", value = "Bearer s3cret" }} }}
"#,
        guest("webhook")?
    );
    std::fs::write(&config, text)?;
    let config = config.to_str().context("a path")?;
    let words = [
        "run",
        "--conf",
        config,
        "--handler",
        "out",
        "--record",
        call,
    ];
    let output = handler(&words, &events(&["one", "two", "three"])).await?;
    let recorded = lines(&output)?;
    let requests = server.requests().len();
    assert!(requests >= 1, "{}", told(&output));
    drop(server);
    let text = std::fs::read_to_string(call)?;
    assert!(
        text.contains("http-client.send") && text.contains("\"status\":503"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
    let output = handler(&["run", "--replay", call], "").await?;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(lines(&output)?, recorded);
    Ok(())
}

/// An agent whose handler misbehaves on events with `bad` in them.
fn parts(http: SocketAddr, mode: &str, more: &str) -> Result<String> {
    Ok(format!(
        r#"[sources.web]
type = "http"
listen = "{http}"
interceptors = ["guest"]
channels = ["main"]

[handlers.guest]
component = {:?}
config = {{ mode = "{mode}", poison = "bad" }}
{more}

[channels.main]
type = "durable"
capacity = "16MiB"

[sinks.out]
type = "null"
channel = "main"
"#,
        guest("hostile")?
    ))
}

async fn post(http: SocketAddr, bodies: &[&str]) -> Result<()> {
    let event = |body: &&str| json!({ "headers": { "n": "1" }, "body": body });
    let events: Value = bodies.iter().map(event).collect();
    let json = [("content-type", "application/json")];
    let mut connection = Connection::open(http).await?;
    let answer = connection
        .send("POST", "/", &json, events.to_string().into())
        .await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Ok(())
}

async fn letters(agent: &Agent) -> Result<Vec<Value>> {
    let output = agent.levada(&["dlq", "ls", "--json"]).await?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until so many events are delivered, stops the agent, and checks its books.
async fn stop_and_check(agent: &mut Agent, delivered: u64) -> Result<()> {
    let running = &*agent;
    wait::until("all is delivered", WITHIN, || async move {
        let audit = running.audit().await?;
        let count = audit.count("channels.main", "delivered").unwrap_or(0);
        Ok((count == delivered).then_some(()))
    })
    .await?;
    assert!(agent.stop().await?.success(), "{}", agent.tail());
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_names_the_recording_of_its_call_and_the_guests_own_functions() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let http = place::free_address()?;
    let parts = parts(http, "overflow", "record-failures = 2")?;
    let mut agent = Agent::new(folder.path(), "edge", &parts)?;
    agent.start()?;
    agent.ready().await?;
    for n in 0..3 {
        post(http, &["one", &format!("bad {n}"), "two"]).await?;
    }
    let letters = letters(&agent).await?;
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        // Rust's own name of the function that calls itself for ever.
        let backtrace = letter["backtrace"].as_str().unwrap_or_default();
        assert!(backtrace.contains("hostile::overflow"), "{backtrace}");
        assert_eq!(letter["limit"], "wasm-stack");
    }
    let log = agent.logged();
    let line = log.lines().find(|line| line.contains("event set aside"));
    let line = line.context("nothing was set aside")?;
    assert!(line.contains("at=\"hostile::overflow\""), "{line}");
    // The latest two are kept, each runs again by itself.
    let recording = |letter: &Value| letter["recording"].as_str().map(str::to_owned);
    let paths: Vec<_> = letters.iter().filter_map(recording).collect();
    assert_eq!(paths.len(), 3, "{letters:?}");
    assert!(!Path::new(&paths[0]).exists());
    for (path, letter) in paths.iter().zip(&letters).skip(1) {
        let output = handler(&["run", "--replay", path], "").await?;
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let sight = &lines(&output)?[0];
        assert_eq!(sight["before"]["body"], letter["body"]);
        assert_eq!(sight["reason"], letter["reason"]);
    }
    let id = letters[2]["id"].to_string();
    let shown = agent.levada(&["dlq", "show", &id]).await?;
    let shown = String::from_utf8(shown.stdout)?;
    assert!(
        shown.contains("recorded in") && shown.contains(&paths[2]),
        "{shown}"
    );
    stop_and_check(&mut agent, 6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_events_of_a_running_agent_before_and_after() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let http = place::free_address()?;
    let parts = parts(http, "panic", "")?;
    let mut agent = Agent::new(folder.path(), "edge", &parts)?;
    agent.start()?;
    agent.ready().await?;
    let data = agent.data().display().to_string();
    let wrong = handler(&["tap", "gues", "--data", &data], "").await?;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        told(&wrong).contains("did you mean `guest`?"),
        "{}",
        told(&wrong)
    );
    let words = ["tap", "guest", "--data", &data, "--filter", "header("];
    let wrong = handler(&words, "").await?;
    assert!(
        told(&wrong).contains("the filter is no condition"),
        "{}",
        told(&wrong)
    );
    let filter = r#"header("n") == "1""#;
    let words = [
        "tap", "guest", "--data", &data, "--json", "--count", "3", "--filter", filter,
    ];
    let tapped = handler(&words, "");
    // Events go on until the tap has seen its three.
    let mut sent = 0;
    let feeding = async {
        loop {
            post(http, &["one", &format!("bad {sent}"), "two"]).await?;
            sent += 1;
        }
        #[expect(unreachable_code, reason = "it is ended from outside")]
        anyhow::Ok(())
    };
    let tapped = tokio::select! {
        tapped = tapped => tapped?,
        failed = feeding => { failed?; unreachable!() }
    };
    assert_eq!(tapped.status.code(), Some(0), "{}", told(&tapped));
    let seen = lines(&tapped)?;
    let seen: Vec<_> = seen
        .iter()
        .filter(|line| line["verdict"].is_string())
        .collect();
    assert_eq!(seen.len(), 3);
    for sight in seen {
        let body = sight["before"]["body"].as_str().unwrap_or_default();
        let verdict = if body.starts_with("bad") {
            "failed"
        } else {
            "pass"
        };
        assert_eq!(
            (&sight["verdict"], &sight["on"]),
            (&json!(verdict), &json!("sources.web"))
        );
    }
    assert!(
        agent.logged().contains("somebody looks at events"),
        "{}",
        agent.tail()
    );
    let audit = agent.audit().await?;
    let delivered = audit.count("sources.web", "put").unwrap_or(0);
    assert!(delivered > 0, "{audit:?}");
    let digest = agent.metrics().await?;
    let digest = digest
        .lines()
        .find(|line| line.starts_with("levada_handler_calls_total"));
    let digest = digest.context("the calls are counted")?;
    assert!(
        digest.contains("part=\"handlers.guest\",digest=\""),
        "{digest}"
    );
    assert!(agent.stop().await?.success(), "{}", agent.tail());
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}
