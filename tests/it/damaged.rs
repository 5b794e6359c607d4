//! A store's file that is damaged on purpose: what takes over, what the user sees, and what can
//! still be read of it.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result};
use levada_tests::{agent::Agent, http::Connection, numbers, place, wait};
use serde_json::Value;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);

/// Events that nobody takes, so that they lie in the store.
const QUEUED: u64 = 5_000;

/// An agent with a backlog, and beside it a flow that works.
struct Damaged {
    agent: Agent,
    http: SocketAddr,
    output: PathBuf,
}

impl Damaged {
    /// Fills the store, stops the agent, and overwrites some pages of its file.
    async fn new(folder: &Path, keys: &str) -> Result<Self> {
        let (http, nobody) = (place::free_address()?, place::free_address()?);
        let output = folder.join("output");
        let parts = format!(
            "{keys}\n[sources.numbers]\ntype = \"seq\"\ntotal = {QUEUED}\nbatch-size = 50\n\
             channels = [\"main\"]\n\n[channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
             [sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{nobody}\"\n\n\
             [sources.posts]\ntype = \"http\"\nlisten = \"{http}\"\nchannels = [\"live\"]\n\n\
             [channels.live]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
             [sinks.files]\ntype = \"file-roll\"\nchannel = \"live\"\ndirectory = {:?}\n\
             format = \"json\"\n",
            output.display().to_string()
        );
        let mut agent = Agent::new(folder, "edge", &parts)?;
        agent.start()?;
        agent.ready().await?;
        let full = |events| events >= QUEUED as f64;
        agent
            .metric_until("levada_channel_events", "main", WITHIN, full)
            .await?;
        agent.kill().await?;
        wreck(&agent.data().join("store.redb"))?;
        Ok(Self {
            agent,
            http,
            output,
        })
    }

    /// Posts an event, and waits until it has come out.
    async fn passes(&self, body: &str) -> Result<()> {
        let mut connection = Connection::open(self.http).await?;
        let json = [("content-type", "application/json")];
        let event = format!("[{{\"headers\":{{}},\"body\":\"{body}\"}}]");
        let answer = connection.send("POST", "/", &json, event.into()).await?;
        assert_eq!(
            answer.status,
            200,
            "{}\n{}",
            answer.text(),
            self.agent.tail()
        );
        wait::until("the event is in a file", WITHIN, || async {
            Ok((numbers::distinct(&self.output)? == 1).then_some(()))
        })
        .await
    }

    async fn said(&self, arguments: &[&str]) -> Result<String> {
        let output = self.agent.levada(arguments).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Overwrites every seventh page of a file, but for its header.
fn wreck(path: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let pages = file.metadata()?.len() / 4096;
    for page in (2..pages).filter(|page| page % 7 == 0) {
        file.write_all_at(&[0xa5; 4096], page * 4096)?;
    }
    Ok(())
}

async fn salvage(file: &Path, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(place::levada()?);
    command.args(["channel", "salvage"]).arg(file).args(more);
    command.output().await.context("cannot run `levada`")
}

/// The numbers that are in lines of JSON, each once.
fn salvaged(lines: &[u8]) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for line in String::from_utf8_lossy(lines).lines() {
        let line: Value = serde_json::from_str(line)?;
        assert_eq!(line["channel"], "main");
        let number = line["body"].as_str().context("a body")?.parse()?;
        assert!(number < QUEUED, "{number} was never made");
        assert!(found.insert(number), "{number} is told twice");
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_named_and_salvaged_while_the_agent_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut damaged = Damaged::new(folder.path(), "").await?;
    damaged.agent.start()?;
    damaged.agent.ready().await?;
    let aside = damaged.agent.data().join("store.redb.corrupt-1");
    assert!(aside.exists(), "{}", damaged.agent.tail());

    // The log and the status say what has happened, where the file is, and what to do.
    let log = damaged.agent.logged();
    let name = aside.display().to_string();
    for part in ["was set aside", "levada channel salvage", &name] {
        assert!(log.contains(part), "no `{part}` in:\n{log}");
    }
    let status = damaged.said(&["status"]).await?;
    let named = format!(
        "a damaged file is at {}: levada channel salvage",
        aside.display()
    );
    assert!(status.contains(&named), "{status}");

    // The rest goes on: the other flow, and the books.
    damaged.passes("after the damage").await?;
    let audit = damaged.agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");

    // The agent runs, and its damaged file is read beside it, without a change.
    let before = std::fs::read(&aside)?;
    let output = salvage(&aside, &[]).await?;
    assert!(output.status.success(), "{output:?}");
    let found = salvaged(&output.stdout)?;
    assert!(found.len() > 1_000, "only {}", found.len());
    let told = String::from_utf8_lossy(&output.stderr);
    let line = format!("{} events can be read", grouped(found.len()));
    assert!(told.contains(&line), "{told}");
    assert!(told.contains("The index cannot be read"), "{told}");
    let into = folder.path().join("salvaged");
    let into_text = into.display().to_string();
    let output = salvage(&aside, &["--to", &into_text, "--json"]).await?;
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stderr)?;
    assert_eq!(report["events"]["main"], found.len());
    assert_eq!(salvaged(&std::fs::read(into.join("main.jsonl"))?)?, found);
    assert!(
        std::fs::read(&aside)? == before,
        "the damaged file has changed"
    );

    assert!(damaged.agent.stop().await?.success());
    let audit = damaged.agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_that_is_to_be_kept_stops_the_start_and_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut damaged = Damaged::new(folder.path(), "on-corruption = \"halt\"\n").await?;
    let file = damaged.agent.data().join("store.redb");
    let before = salvaged(&salvage(&file, &[]).await?.stdout)?;
    damaged.agent.start()?;
    let ended = damaged.agent.wait_end(WITHIN).await?;
    assert_eq!(ended.code(), Some(1), "{}", damaged.agent.tail());
    let log = damaged.agent.logged();
    let named = format!("the store `{}` is damaged", file.display());
    assert!(log.contains(&named), "{log}");
    assert!(!damaged.agent.data().join("store.redb.corrupt-1").exists());
    let output = salvage(&file, &[]).await?;
    assert!(output.status.success(), "{output:?}");
    let found = salvaged(&output.stdout)?;
    assert!(found.len() > 1_000, "only {}", found.len());
    assert!(
        found == before,
        "{} events, {} before",
        found.len(),
        before.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_is_named_by_salvage_and_nothing_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("letter.txt");
    std::fs::write(&file, "nothing that a store would be".repeat(400))?;
    let output = salvage(&file, &[]).await?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("letter.txt") && told.contains("no redb file"),
        "{told}"
    );
    Ok(())
}

/// A number as people read it.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let from_the_end = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = from_the_end.map(String::from_utf8_lossy).collect();
    groups.join(",")
}
