//! Handlers as sources, through the real binary: what is polled is there once, whatever kills the
//! agent and whatever the guest does.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::Chance;
use levada_tests::{
    agent::Agent,
    feed::Feed,
    http,
    outputs::{self, Line},
    place, wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(120);

/// How often the agent is killed; `LEVADA_KILLS` says otherwise.
const KILLS: u32 = 50;

/// At least so many events are polled.
const EVENTS: u64 = 20_000;

/// Events of one poll, so that many polls lie between two kills.
const PAGE: u64 = 10;

/// The named points of the agent that a poll passes.
const POINTS: [&str; 4] = [
    "source-after-poll-before-put",
    "store-before-commit",
    "store-after-commit",
    "source-after-commit-before-ack",
];

/// SIGABRT: how a process ends itself at a named point.
const ABORTED: i32 = 6;

/// An agent with one source that is a handler, and files at the end.
struct World {
    agent: Agent,
    output: PathBuf,
    _folder: TempDir,
}

/// The parts of an agent: `source` and `handler` are lines of the source's and the handler's table.
fn parts(source: &str, handler: &str, output: &Path) -> String {
    let output = output.display().to_string();
    format!(
        r#"[sources.feed]
type = "handler"
channels = ["main"]
{source}

[handlers.it]
{handler}

[channels.main]
type = "durable"
capacity = "64MiB"

[sinks.files]
type = "file-roll"
channel = "main"
directory = {output:?}
format = "json"
"#
    )
}

impl World {
    fn lay(source: &str, handler: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("output");
        let parts = parts(source, handler, &output);
        Ok(Self {
            agent: Agent::new(folder.path(), "polling", &parts)?,
            output,
            _folder: folder,
        })
    }

    async fn started(source: &str, handler: &str) -> Result<Self> {
        let mut world = Self::lay(source, handler)?;
        world.agent.start()?;
        world.agent.ready().await?;
        Ok(world)
    }

    /// Goes on with other lines.
    async fn reload(&self, source: &str, handler: &str) -> Result<()> {
        self.agent
            .configure(&parts(source, handler, &self.output))?;
        let output = self.agent.levada(&["reload"]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{said}\n{}",
            self.agent.tail()
        );
        Ok(())
    }

    /// Waits until so many events were delivered.
    async fn delivered(&self, events: u64) -> Result<()> {
        let agent = &self.agent;
        wait::until("all is delivered", WITHIN, || async move {
            let delivered = agent.audit().await?.count("channels.main", "delivered");
            Ok((delivered >= Some(events)).then_some(()))
        })
        .await
        .with_context(|| agent.tail())
    }

    /// The source in the status.
    async fn source(&self) -> Result<Value> {
        let output = self.agent.levada(&["status", "--json"]).await?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let parts = status["parts"].as_array().context("no parts")?;
        let source = parts.iter().find(|part| part["part"] == "sources.feed");
        source.cloned().context("no source")
    }

    /// Waits until the last error of the source has these words and its state is this.
    async fn failing(&self, state: &str, words: &str) -> Result<()> {
        wait::until(words, WITHIN, || async {
            let source = self.source().await?;
            let text = source["last-error"]["text"].as_str().unwrap_or_default();
            Ok((source["state"] == state && text.contains(words)).then_some(()))
        })
        .await
        .with_context(|| self.agent.tail())
    }

    /// Stops in order: the books balance, and the numbers below `end` are in the files, each once.
    async fn end(&mut self, end: u64) -> Result<Vec<Line>> {
        let status = self.agent.stop().await?;
        assert!(status.success(), "{status}\n{}", self.agent.tail());
        let audit = self.agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
        assert_eq!(audit.count("sources.feed", "accepted"), Some(end));
        assert_eq!(audit.count("sources.feed", "put"), Some(end));
        assert_eq!(audit.count("channels.main", "delivered"), Some(end));
        let (mut lines, mut numbers) = (Vec::new(), Vec::<u64>::new());
        for path in outputs::files(&self.output)? {
            let before = numbers.len();
            for line in fs::read_to_string(path)?.lines() {
                let line: Line = serde_json::from_str(line)?;
                numbers.push(line.body.parse()?);
                lines.push(line);
            }
            let file = &numbers[before..];
            assert!(file.is_sorted(), "a file is in order");
        }
        numbers.sort_unstable();
        let wrong = numbers
            .iter()
            .zip(0..)
            .find(|(number, wanted)| *number != wanted);
        assert_eq!(wrong, None, "each number is there, once");
        assert_eq!(numbers.len() as u64, end);
        Ok(lines)
    }
}

fn component(guest: &str) -> Result<String> {
    let path = place::guest(guest)?.display().to_string();
    Ok(format!("component = {path:?}"))
}

fn http_poll(feed: &Feed) -> Result<String> {
    let (component, url) = (component("http-poll")?, feed.url());
    Ok(format!(
        r#"{component}
config = {{ url = "{url}/in", cursor-parameter = "after", next-header = "x-next", interval-ms = 100 }}
grants = {{ http = ["{url}/in"], allow-private = ["127.0.0.1"] }}"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_events_arrive_once_whatever_kills_the_agent() -> Result<()> {
    let kills = match std::env::var("LEVADA_KILLS") {
        Ok(text) => text.parse().context("LEVADA_KILLS is no number")?,
        Err(_) => KILLS,
    };
    let feed = Feed::start(PAGE).await?;
    let mut world = World::started("handler = \"it\"", &http_poll(&feed)?).await?;
    let chance = Chance::seeded(1);
    for kill in 0..kills as usize {
        let agent = &mut world.agent;
        // Every second one at a named point, in turn.
        if kill % 2 == 0 {
            tokio::time::sleep(chance.jitter(Duration::from_millis(300))).await;
            agent.kill().await?;
        } else {
            let point = POINTS[kill / 2 % POINTS.len()];
            let crash = format!("{point}:{}", 1 + chance.below(20));
            agent.kill().await?;
            agent.start_with(&[("LEVADA_CRASH", &crash)])?;
            let ended = agent
                .wait_end(WITHIN)
                .await
                .with_context(|| crash.clone())?;
            assert_eq!(ended.signal(), Some(ABORTED), "{crash}: {}", agent.tail());
        }
        agent.start()?;
        agent.ready().await?;
        let audit = agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
    }
    let end = feed.end(EVENTS);
    world.delivered(end).await?;
    world.end(end).await?;
    let asked = feed.asked();
    println!("{kills} kills, {end} events in {} requests", asked.len());
    // A request goes on where the one before it began, or where that one ended: never before.
    for pair in asked.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        assert!(
            after == before || after == end.min(before + PAGE),
            "{before}, {after}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_misbehaves_loses_nothing_and_goes_on_where_it_was() -> Result<()> {
    let component = component("typed-source")?;
    let handler = |config: &str| {
        format!(
            "{component}\nlimits = {{ cpu = \"50ms\" }}\nbatch = {{ events = 10 }}\nconfig = {{ {config} }}"
        )
    };
    let source = "handler = \"it\"";
    let mut world = World::started(source, &handler("total = 100")).await?;
    world.delivered(100).await?;
    let mut total = 100;
    for (mode, state, words) in [
        ("retry", "retrying", "asked to"),
        ("fatal", "failed", "has stopped the source: asked to"),
        ("trap", "failed", "unreachable"),
        ("loop", "failed", "the limit `cpu`"),
        ("giant-output", "failed", "the limit `lifted-bytes`"),
        ("giant-event", "failed", "the 1048576 of `max-event`"),
        ("many-events", "failed", "`events-polled` allows 10000"),
        ("giant-cursor", "failed", "`cursor-bytes` allows 65536"),
    ] {
        world
            .reload(source, &handler(&format!("mode = {mode:?}")))
            .await?;
        world.failing(state, words).await?;
        let health = http::get(world.agent.admin, "/healthz").await?.status;
        assert_eq!(health, if state == "failed" { 503 } else { 200 }, "{mode}");
        total += 50;
        world
            .reload(source, &handler(&format!("total = {total}")))
            .await?;
        world.delivered(total).await?;
        let agent = &world.agent;
        wait::until("health is good", WITHIN, || async move {
            let health = http::get(agent.admin, "/healthz").await?.status;
            Ok((health == 200).then_some(()))
        })
        .await?;
    }
    let lines = world.end(total).await?;
    let of = |line: &Line, name: &str| line.headers.get(name).cloned();
    for line in lines {
        assert_eq!(of(&line, "from").as_deref(), Some("sources.feed"));
        assert_eq!(of(&line, "attempt").as_deref(), Some("1"));
        assert_eq!(of(&line, "levada.o"), None, "a name of the host's");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_on_from_its_cursor_with_other_settings_and_another_handler() -> Result<()> {
    let component = component("typed-source")?;
    let handler = |config: &str| format!("{component}\nconfig = {{ {config} }}");
    let mut world = World::started("handler = \"it\"", &handler("total = 1000, batch = 1")).await?;
    for batch in [3, 50, 2, 9] {
        let config = format!("total = 100000, batch = {batch}");
        world.reload("handler = \"it\"", &handler(&config)).await?;
    }
    // Lies about what is there, and is not listened to; the numbers stay where they are.
    world
        .reload(
            "handler = \"it\"\nmax-wait = \"1s\"",
            &handler("mode = \"idle\""),
        )
        .await?;
    let accepted = world.agent.audit().await?.count("sources.feed", "accepted");
    let at = accepted.context("no count")?;
    // Another handler, under another name: the cursor is the source's.
    let other = format!(
        "{}\n\n[handlers.other]\n{}",
        handler("total = 1"),
        handler(&format!("total = {}", at + 20))
    );
    world
        .reload("handler = \"other\"\ninterceptors = []", &other)
        .await?;
    world.delivered(at + 20).await?;
    world.agent.stop().await?;
    world.agent.start()?;
    world.agent.ready().await?;
    world.end(at + 20).await?;
    Ok(())
}

/// Checks, and runs, a configuration that is refused with these words.
async fn refused(agent: &Agent, words: &[&str]) -> Result<()> {
    for verb in ["check", "run"] {
        let output = agent.levada(&[verb]).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        for word in words {
            assert!(said.contains(word), "{verb}: {word} is not in: {said}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_source_is_refused_with_what_to_do() -> Result<()> {
    let source = "handler = \"it\"";
    let typed = component("typed-source")?;
    for (source, handler, words) in [
        (
            source,
            component("typed-sink")?,
            &[
                "sources.feed.handler",
                "`handlers.it` is no source",
                "a sink is used by `type = \"handler\"` under [sinks]",
            ][..],
        ),
        (
            "handler = \"its\"",
            typed.clone(),
            &["there is no handler `its`"],
        ),
        (
            source,
            component("http-poll")?,
            &["levada:handler/http-client@0.1.0", "grants = { http = ["],
        ),
        (
            source,
            format!("{typed}\ngrants = {{ state = \"1MiB\" }}"),
            &["`grants.state` is not for sources"],
        ),
    ] {
        refused(&World::lay(source, &handler)?.agent, words).await?;
    }
    let world = World::lay("handler = \"it\"\nmax-wait = \"10ms\"", &typed)?;
    refused(&world.agent, &["sources.feed.max-wait", "100ms to "]).await?;
    // A memory channel keeps the cursor in memory, too.
    let world = World::lay(source, &typed)?;
    let text = parts(source, &typed, &world.output).replace("durable", "memory");
    world.agent.configure(&text)?;
    let output = world.agent.levada(&["check"]).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("every start polls from the beginning"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_and_list_show_what_a_source_is() -> Result<()> {
    let guest = place::guest("http-poll")?.display().to_string();
    let inspect = Command::new(place::levada()?)
        .args(["handler", "inspect", &guest, "--json"])
        .output()?;
    let seen: Value = serde_json::from_slice(&inspect.stdout)?;
    assert_eq!(seen["roles"], json!(["source"]));
    assert!(inspect.status.success());
    let world = World::lay("handler = \"it\"", &component("http-poll")?)?;
    let list = world.agent.levada(&["handler", "list", "--json"]).await?;
    let listed: Value = serde_json::from_slice(&list.stdout)?;
    assert_eq!(listed[0]["used-as"], json!(["source of sources.feed"]));
    let limits = listed[0]["limits"].as_array().context("no limits")?;
    let cursor = limits.iter().find(|row| row["limit"] == "cursor-bytes");
    assert_eq!(cursor.context("no cursor-bytes")?["allowed"], "64KiB");
    Ok(())
}
