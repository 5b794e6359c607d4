//! What handlers are granted, through the real binary: state that commits with the events, tables,
//! and a refusal where nothing is granted.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use levada_core::{Chance, TaskSet};
use levada_tests::{
    agent::Agent,
    http::Connection,
    outputs::{self, Line},
    place, wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// How often the agent is killed; `LEVADA_KILLS` says otherwise.
const KILLS: u32 = 50;

/// The named points of the agent, see `kill.rs`.
const POINTS: [&str; 3] = [
    "store-before-commit",
    "store-after-commit",
    "source-after-commit-before-ack",
];

/// An agent with one HTTP source, one handler and a file at the end.
struct Flow {
    agent: Agent,
    web: SocketAddr,
    output: PathBuf,
    guest: PathBuf,
    folder: TempDir,
}

impl Flow {
    /// Lays an agent. `handler` are lines of the handler's table.
    fn lay(guest: &str, handler: &str, channel: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let web = place::free_address()?;
        let flow = Self {
            output: folder.path().join("output"),
            guest: place::guest(guest)?,
            agent: Agent::new(folder.path(), "state", "")?,
            web,
            folder,
        };
        flow.configure(handler, channel)?;
        Ok(flow)
    }

    fn configure(&self, handler: &str, channel: &str) -> Result<()> {
        let Self {
            web, guest, output, ..
        } = self;
        let (guest, output) = (guest.display().to_string(), output.display().to_string());
        self.agent.configure(&format!(
            r#"[sources.web]
type = "http"
listen = "{web}"
interceptors = ["it"]
channels = ["main"]

[handlers.it]
component = {guest:?}
{handler}

[channels.main]
type = "{channel}"
capacity = "16MiB"

[sinks.files]
type = "file-roll"
channel = "main"
directory = {output:?}
format = "json"
"#
        ))
    }

    async fn started(guest: &str, handler: &str, channel: &str) -> Result<Self> {
        let mut flow = Self::lay(guest, handler, channel)?;
        flow.agent.start()?;
        flow.agent.ready().await?;
        Ok(flow)
    }

    async fn post(&self, events: &Value) -> Result<()> {
        let status = post(self.web, events).await?;
        assert_eq!(status, 200, "{}", self.agent.tail());
        Ok(())
    }

    /// What is in the files so far.
    fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for file in outputs::files(&self.output)? {
            for line in fs::read_to_string(file)?.lines() {
                // The last line of an open file may be on its way.
                lines.extend(serde_json::from_str(line).ok());
            }
        }
        Ok(lines)
    }

    async fn until(&self, what: &str, is: impl Fn(&[Line]) -> bool) -> Result<Vec<Line>> {
        let is = &is;
        let found = wait::until(what, WITHIN, || async move {
            // No file is there before the first event is.
            let lines = self.lines().unwrap_or_default();
            Ok(is(&lines).then_some(lines))
        });
        found.await.with_context(|| self.agent.tail())
    }

    /// Stops the agent; its books balance.
    async fn end(&mut self) -> Result<levada_tests::agent::Audit> {
        let status = self.agent.stop().await?;
        assert!(status.success(), "{status}\n{}", self.agent.tail());
        let audit = self.agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
        Ok(audit)
    }
}

async fn post(to: SocketAddr, events: &Value) -> Result<u16> {
    let json = [("content-type", "application/json")];
    let mut connection = Connection::open(to).await?;
    let answer = connection.send("POST", "/", &json, events.to_string().into());
    Ok(answer.await?.status)
}

fn bodies(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.body.as_str()).collect()
}

/// Events with these ids and bodies.
fn with_ids(ids: &[&str]) -> Value {
    let event = |id: &&str| json!({ "headers": { "id": id }, "body": id });
    ids.iter().map(event).collect()
}

const DEDUPE: &str = r#"config = { header = "id" }
grants = { state = "1MiB" }"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_is_known_after_a_reload_and_a_kill() -> Result<()> {
    let mut flow = Flow::started("dedupe", DEDUPE, "durable").await?;
    flow.post(&with_ids(&["a", "b", "a"])).await?;
    // Another handler under the same name has its state.
    let changed = format!("{DEDUPE}\ninstances = 1");
    flow.configure(&changed, "durable")?;
    let reloaded = flow.agent.levada(&["reload"]).await?;
    assert!(reloaded.status.success(), "{}", flow.agent.tail());
    flow.post(&with_ids(&["b", "c"])).await?;
    flow.agent.kill().await?;
    flow.agent.start()?;
    flow.agent.ready().await?;
    flow.post(&with_ids(&["a", "c", "d", "d"])).await?;
    let lines = flow
        .until("all are in the file", |lines| lines.len() >= 4)
        .await?;
    assert_eq!(bodies(&lines), ["a", "b", "c", "d"]);
    let audit = flow.end().await?;
    let counts = ["accepted", "put"].map(|name| audit.count("sources.web", name));
    assert_eq!(counts, [Some(9), Some(4)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_durable_where_the_channel_is_not() -> Result<()> {
    let mut flow = Flow::started("dedupe", DEDUPE, "memory").await?;
    flow.post(&with_ids(&["a"])).await?;
    flow.agent.kill().await?;
    flow.agent.start()?;
    flow.agent.ready().await?;
    flow.post(&with_ids(&["a", "b"])).await?;
    // What the channel held may be lost with the process, and that it was seen is not.
    let lines = flow.until("the new one is in the file", |lines| {
        bodies(lines).contains(&"b")
    });
    let lines = lines.await?;
    assert!(
        matches!(bodies(&lines)[..], ["b"] | ["a", "b"]),
        "{lines:?}"
    );
    flow.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_without_its_grant_is_refused_with_the_line_that_gives_it() -> Result<()> {
    let mut flow = Flow::lay("dedupe", r#"config = { header = "id" }"#, "durable")?;
    let line = r#"grants = { state = "1MiB" }"#;
    let check = flow.agent.levada(&["check"]).await?;
    let said = String::from_utf8(check.stderr)?;
    assert_eq!(check.status.code(), Some(2), "{said}");
    assert!(
        said.contains(line) && said.contains("levada:handler/state"),
        "{said}"
    );
    flow.agent.start()?;
    let ended = flow.agent.wait_end(WITHIN).await?;
    assert_eq!(ended.code(), Some(2));
    assert!(flow.agent.logged().contains(line), "{}", flow.agent.tail());
    let guest = flow.guest.display().to_string();
    let inspect = std::process::Command::new(place::levada()?)
        .args(["handler", "inspect", &guest])
        .output()?;
    let said = String::from_utf8(inspect.stdout)?;
    assert!(inspect.status.success() && said.contains(line), "{said}");
    // With it all is well; one that nobody wants is worth a warning.
    fs::write(flow.folder.path().join("token"), "x")?;
    let token = flow.folder.path().join("token").display().to_string();
    let handler = DEDUPE.replace(
        r#"state = "1MiB""#,
        &format!(r#"state = "1MiB", secrets = {{ token = "${{file:{token}}}" }}"#),
    );
    flow.configure(&handler, "durable")?;
    let check = flow.agent.levada(&["check"]).await?;
    let said = String::from_utf8(check.stderr)?;
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(
        said.contains("grants.secrets") && said.contains("no use"),
        "{said}"
    );
    let list = flow.agent.levada(&["handler", "list", "--json"]).await?;
    let listed: Value = serde_json::from_slice(&list.stdout)?;
    assert_eq!(listed[0]["grants"], json!(["state", "secrets"]));
    let limits = listed[0]["limits"].as_array().context("no limits")?;
    let state = limits.iter().find(|row| row["limit"] == "state-bytes");
    assert_eq!(state.context("no state-bytes")?["allowed"], "1MiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_holds_the_batch_back_and_names_the_limit() -> Result<()> {
    let handler = DEDUPE.replace("1MiB", "1KiB");
    let mut flow = Flow::started("dedupe", &handler, "durable").await?;
    let ids: Vec<_> = (0..100).map(|n| format!("id-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(post(flow.web, &with_ids(&ids)).await?, 503);
    let log = flow.agent.logged();
    assert!(
        log.contains("the limit `state-bytes` of 1KiB was reached"),
        "{log}"
    );
    // What failed has written nothing.
    flow.post(&with_ids(&ids[..10])).await?;
    let lines = flow
        .until("ten are in the file", |lines| lines.len() >= 10)
        .await?;
    assert_eq!(bodies(&lines), ids[..10]);
    flow.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_again_when_it_changes_and_a_broken_one_is_not() -> Result<()> {
    let tables = tempfile::tempdir()?;
    let table = tables.path().join("places.csv");
    fs::write(&table, "device,lat\nd1,47.1\n")?;
    let file = table.display().to_string();
    let handler = format!("grants = {{ lookup = {{ places = {{ file = {file:?} }} }} }}");
    let mut flow = Flow::started("geo-lookup", &handler, "durable").await?;
    let event = json!([{ "headers": { "device": "d1" }, "body": "x" }]);
    flow.post(&event).await?;
    fs::write(&table, "device,lat\nd1,longer than before\n")?;
    flow.post(&event).await?;
    fs::write(&table, "device,lat\nd1\n")?;
    flow.post(&event).await?;
    let lines = flow
        .until("all are in the file", |lines| lines.len() >= 3)
        .await?;
    let places: Vec<_> = lines
        .iter()
        .map(|line| line.headers["geo-lat"].as_str())
        .collect();
    assert_eq!(places, ["47.1", "longer than before", "longer than before"]);
    let log = flow.agent.logged();
    assert!(
        log.contains("table not read again, the old one stays"),
        "{log}"
    );
    flow.end().await?;
    Ok(())
}

/// What a flow of numbers through `rollup` left in the files.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    /// Count and sum by device: of the events, and of what was rolled up.
    events: BTreeMap<String, (u64, u64)>,
    rolled: BTreeMap<String, (u64, u64)>,
}

impl Sums {
    fn of(lines: &[Line]) -> Self {
        let mut sums = Self::default();
        for line in lines {
            let Ok(body) = serde_json::from_str::<Value>(&line.body) else {
                continue;
            };
            let number = |key: &str| body[key].as_u64();
            if let (Some(count), Some(sum)) = (number("count"), number("sum")) {
                let key = body["key"].as_str().unwrap_or_default().to_owned();
                let rolled = sums.rolled.entry(key).or_default();
                *rolled = (rolled.0 + count, rolled.1 + sum);
            } else if let Some(n) = number("n") {
                let device = line.headers.get("device").cloned().unwrap_or_default();
                let events = sums.events.entry(device).or_default();
                *events = (events.0 + 1, events.1 + n);
            }
        }
        sums
    }
}

/// Posts numbers until it is stopped; a post that gets no answer may have been taken or not.
async fn keep_posting(web: SocketAddr) {
    let mut n = 0_u64;
    loop {
        let event = |m: u64| {
            let device = format!("d{}", m % 3);
            json!({ "headers": { "device": device }, "body": format!("{{\"n\":{m}}}") })
        };
        let events: Value = (n..n + 5).map(event).collect();
        n += 5;
        if post(web, &events).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_equal_what_was_delivered_after_kills() -> Result<()> {
    let kills = match std::env::var("LEVADA_KILLS") {
        Ok(text) => text.parse().context("LEVADA_KILLS is no number")?,
        Err(_) => KILLS,
    };
    let handler = r#"config = { value = "n", key = "device", window-seconds = 1, keep = true }
grants = { state = "1MiB" }
every = "100ms""#;
    let mut flow = Flow::started("rollup", handler, "durable").await?;
    let mut load = TaskSet::new();
    load.spawn("posts", keep_posting(flow.web));
    let chance = Chance::seeded(1);
    for kill in 0..kills as usize {
        // Every second one at a named point, in turn.
        if kill % 2 == 0 {
            tokio::time::sleep(chance.jitter(Duration::from_millis(300))).await;
            flow.agent.kill().await?;
        } else {
            let point = POINTS[kill / 2 % POINTS.len()];
            let crash = format!("{point}:{}", 1 + chance.below(20));
            flow.agent.kill().await?;
            flow.agent.start_with(&[("LEVADA_CRASH", &crash)])?;
            flow.agent.wait_end(WITHIN).await.with_context(|| crash)?;
        }
        flow.agent.start()?;
        flow.agent.ready().await?;
        let audit = flow.agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
    }
    load.abort().await;
    let shown: &Flow = &flow;
    let lines = wait::until("every window is closed", WITHIN, || async move {
        let accepted = shown.agent.audit().await?.count("sources.web", "accepted");
        let lines = shown.lines()?;
        let sums = Sums::of(&lines);
        let events: u64 = sums.events.values().map(|(count, _)| count).sum();
        let closed = accepted == Some(events) && sums.events == sums.rolled;
        Ok(closed.then_some(lines))
    });
    let lines = lines.await.with_context(|| flow.agent.tail())?;
    let sums = Sums::of(&lines);
    let events: u64 = sums.events.values().map(|(count, _)| count).sum();
    println!("{kills} kills, {events} events in the sums");
    assert!(events > u64::from(kills), "{sums:?}");
    flow.end().await?;
    assert_eq!(Sums::of(&flow.lines()?), sums, "nothing came after that");
    Ok(())
}
