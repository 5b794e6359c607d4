//! Reload by difference (D7.1, F80, F81): what is the same is not touched, what is wrong changes
//! nothing, and no event is missing whatever is swapped.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use levada_core::TaskSet;
use levada_tests::{agent::Agent, http::Connection, place, wait};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// How often to reload under load; `LEVADA_RELOADS` says otherwise.
const RELOADS: u32 = 12;

struct Changing {
    agent: Agent,
    web: SocketAddr,
    folder: TempDir,
}

impl Changing {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let web = place::free_address()?;
        let mut agent = Agent::new(folder.path(), "changing", &base(web, 500, ""))?;
        agent.start()?;
        agent.ready().await?;
        Ok(Self { agent, web, folder })
    }

    /// Writes a configuration and reloads; the exit code and what was said.
    async fn reload(&self, parts: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        self.agent.configure(parts)?;
        let arguments = [&["reload"], arguments].concat();
        let output = self.agent.levada(&arguments).await?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    async fn must_reload(&self, parts: &str, arguments: &[&str]) -> Result<String> {
        let (code, said) = self.reload(parts, arguments).await?;
        if code != Some(0) {
            bail!("not reloaded ({code:?}): {said}\n{}", self.agent.tail());
        }
        Ok(said)
    }

    /// Open files of the process.
    fn files(&self) -> Result<usize> {
        let id = self.agent.id().context("the agent does not run")?;
        Ok(fs::read_dir(format!("/proc/{id}/fd"))?.count())
    }

    /// Waits until all is delivered, stops, and checks the books.
    async fn balance(&mut self, posted: u64) -> Result<()> {
        let agent = &self.agent;
        wait::until("all is delivered", WITHIN, || async move {
            let audit = agent.audit().await?;
            Ok((audit.count("channels.main", "delivered") == Some(posted)).then_some(()))
        })
        .await
        .with_context(|| agent.tail())?;
        assert!(self.agent.stop().await?.success(), "{}", self.agent.tail());
        let audit = self.agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
        assert_eq!(audit.count("sources.web", "accepted"), Some(posted));
        Ok(())
    }
}

/// A source that always stays as it is, in front of a sink that may be replaced.
fn base(web: SocketAddr, events: u32, more: &str) -> String {
    format!(
        r#"[sources.web]
type = "http"
listen = "{web}"
channels = ["main"]

[channels.main]
type = "durable"
capacity = "16MiB"

[sinks.out]
type = "null"
channel = "main"
batch = {{ events = {events} }}

{more}"#
    )
}

/// Parts that come and go.
fn guests(more: SocketAddr) -> String {
    format!(
        r#"[sources.more]
type = "http"
listen = "{more}"
interceptors = ["mark"]
channels = ["other"]

[sources.gen]
type = "seq"
total = 1000
channels = ["other"]

[interceptors.mark]
type = "static"
key = "n"
value = "1"

[channels.other]
type = "durable"
capacity = "16MiB"

[sinks.other]
type = "null"
channel = "other"
"#
    )
}

/// Posts over one connection until told to stop; every post must be answered on it.
struct Load {
    posted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    failed: Arc<Mutex<Option<String>>>,
    tasks: TaskSet,
}

impl Load {
    async fn start(to: SocketAddr) -> Result<Self> {
        let mut connection = Connection::open(to).await?;
        let (posted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let failed = Arc::<Mutex<Option<String>>>::default();
        let mut tasks = TaskSet::new();
        let (count, end, error) = (Arc::clone(&posted), Arc::clone(&stop), Arc::clone(&failed));
        tasks.spawn("posts", async move {
            while !end.load(Ordering::Relaxed) {
                match post(&mut connection).await {
                    Ok(events) => drop(count.fetch_add(events, Ordering::Relaxed)),
                    Err(why) => {
                        return *error.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some(format!("{why:#}"));
                    }
                }
            }
        });
        Ok(Self {
            posted,
            stop,
            failed,
            tasks,
        })
    }

    async fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join(WITHIN).await;
        match self
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(why) => bail!("the connection of an unchanged source was dropped: {why}"),
            None => Ok(self.posted.load(Ordering::Relaxed)),
        }
    }
}

async fn post(connection: &mut Connection) -> Result<u64> {
    let events: Vec<_> = (0..10)
        .map(|n| json!({ "headers": {}, "body": format!("event {n}") }))
        .collect();
    let body = serde_json::Value::from(events).to_string();
    let json = ("content-type", "application/json");
    let answer = connection.send("POST", "/", &[json], body.into()).await?;
    if answer.status != 200 {
        bail!("{} {}", answer.status, answer.text());
    }
    Ok(10)
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_lose_nothing_and_drop_no_connection() -> Result<()> {
    let reloads = match std::env::var("LEVADA_RELOADS") {
        Ok(text) => text.parse().context("LEVADA_RELOADS is no number")?,
        Err(_) => RELOADS,
    };
    let mut changing = Changing::start().await?;
    let more = place::free_address()?;
    let load = Load::start(changing.web).await?;
    let mut files = Vec::new();
    for round in 0..reloads {
        let before = load.posted.load(Ordering::Relaxed);
        let parts = match round % 4 {
            0 => base(changing.web, 100 + round, ""),
            1 => base(changing.web, 100 + round, &guests(more)),
            2 => base(
                changing.web,
                100 + round,
                &guests(more).replace("\"1\"", "\"2\""),
            ),
            _ => base(changing.web, 100 + round, ""),
        };
        changing
            .must_reload(
                &parts,
                &["--drain", "other"][..if round % 4 == 3 { 2 } else { 0 }],
            )
            .await?;
        if round % 4 == 1 {
            // The source that came with the reload takes what is posted.
            post(&mut Connection::open(more).await?).await?;
        }
        let posted = &load.posted;
        wait::until("the load goes on", WITHIN, || async {
            Ok((posted.load(Ordering::Relaxed) > before).then_some(()))
        })
        .await?;
        if round % 4 == 3 {
            let agent = &changing.agent;
            wait::until("the drained channel is gone", WITHIN, || async {
                let output = agent.levada(&["channel", "ls", "--json"]).await?;
                let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
                Ok((listed.as_array().map(Vec::len) == Some(1)).then_some(()))
            })
            .await?;
            files.push(changing.files()?);
        }
    }
    let posted = load.finish().await?;
    println!("{reloads} reloads, {posted} events posted over one connection, open files {files:?}");
    assert!(
        files.iter().max() <= files.iter().min().map(|few| few + 2).as_ref(),
        "open files grow: {files:?}"
    );
    let status = changing.agent.levada(&["status"]).await?;
    let status = String::from_utf8(status.stdout)?;
    assert!(!status.contains("sources.more"), "{status}");
    changing.balance(posted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_its_place_and_changes_nothing() -> Result<()> {
    let mut changing = Changing::start().await?;
    let web = changing.web;
    let load = Load::start(web).await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken_at = taken.local_addr()?;
    let another = format!(
        "[sources.more]\ntype = \"http\"\nlisten = \"{taken_at}\"\nchannels = [\"main\"]\n"
    );
    let file = changing.folder.path().join("a file");
    fs::write(&file, "")?;
    let nowhere = format!(
        "type = \"file-roll\"\ndirectory = {:?}",
        file.display().to_string()
    );
    let cases: [(&str, String, i32, &[&str]); 5] = [
        (
            "an unknown key",
            base(web, 1, "[channels.x]\ncapasity = 1\n"),
            2,
            &["changing.toml:", "channels.x.capasity"],
        ),
        (
            "a setting of the process",
            format!("cache = \"32MiB\"\n\n{}", base(web, 500, "")),
            2,
            &["agent.cache", "restart the agent"],
        ),
        (
            "another type",
            base(web, 500, "").replace("\"durable\"", "\"memory\""),
            2,
            &["channels.main.type"],
        ),
        (
            "an address in use",
            base(web, 500, &another),
            1,
            &["sources.more", &taken_at.to_string()],
        ),
        (
            "a sink that cannot open",
            base(web, 7, "").replace("type = \"null\"", &nowhere),
            1,
            &["sinks.out"],
        ),
    ];
    for (what, parts, code, words) in cases {
        let (ended, said) = changing.reload(&parts, &[]).await?;
        assert_eq!(ended, Some(code), "{what}: {said}");
        for word in words {
            assert!(said.contains(word), "{what}: no `{word}` in\n{said}");
        }
        assert!(said.contains("nothing has changed"), "{what}: {said}");
    }
    // The sink that could not be replaced was built again, and delivers.
    let posted = load.finish().await?;
    changing.balance(posted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_change_and_changes_nothing() -> Result<()> {
    let mut changing = Changing::start().await?;
    let more = place::free_address()?;
    let parts = base(changing.web, 9, &guests(more));
    let said = changing.must_reload(&parts, &["--dry-run"]).await?;
    for line in [
        "would change:",
        "added     sources.more",
        "replaced  sinks.out",
        "added     channels.other",
    ] {
        assert!(said.contains(line), "no `{line}` in\n{said}");
    }
    assert!(!said.contains("sources.web"), "{said}");
    assert!(
        Connection::open(more).await.is_err(),
        "nobody listens there"
    );
    let same = changing
        .must_reload(&base(changing.web, 500, ""), &[])
        .await?;
    assert!(same.contains("nothing changes"), "{same}");
    changing.must_reload(&parts, &[]).await?;
    assert_eq!(post(&mut Connection::open(more).await?).await?, 10);
    let logged = changing.agent.logged();
    let line = logged
        .lines()
        .find(|line| line.contains("configuration reloaded"));
    let line = logged
        .lines()
        .rfind(|line| line.contains("configuration reloaded"))
        .or(line);
    let line = line.context("no word of it")?;
    assert!(
        line.contains("by=uid ") && line.contains("replaced sinks.out"),
        "{line}"
    );
    assert!(changing.agent.stop().await?.success());
    let audit = changing.agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_as_well() -> Result<()> {
    let mut changing = Changing::start().await?;
    let more = place::free_address()?;
    changing
        .agent
        .configure(&base(changing.web, 500, &guests(more)))?;
    changing.agent.signal(Signal::HUP)?;
    wait::until("the new source listens", WITHIN, || async {
        Ok(Connection::open(more).await.ok())
    })
    .await?;
    changing.agent.configure("nonsense")?;
    changing.agent.signal(Signal::HUP)?;
    let agent = &changing.agent;
    wait::until("the mistake is in the log", WITHIN, || async move {
        let logged = agent.logged();
        let line = logged.lines().find(|line| line.contains("reload refused"));
        Ok(line
            .filter(|line| line.contains("by=SIGHUP") && line.contains("changing.toml:"))
            .map(|_| ()))
    })
    .await?;
    assert_eq!(post(&mut Connection::open(more).await?).await?, 10);
    assert!(changing.agent.stop().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_with_events_goes_only_when_that_is_said() -> Result<()> {
    let mut changing = Changing::start().await?;
    let (old, nobody) = (place::free_address()?, place::free_address()?);
    let parts = |more: &str| base(changing.web, 500, more);
    let with_old = format!(
        "[sources.old]\ntype = \"http\"\nlisten = \"{old}\"\nchannels = [\"old\"]\n\n\
         [channels.old]\ntype = \"durable\"\ncapacity = \"16MiB\"\n\n\
         [sinks.old]\ntype = \"avro\"\nchannel = \"old\"\nto = \"{nobody}\"\n"
    );
    changing.must_reload(&parts(&with_old), &[]).await?;
    post(&mut Connection::open(old).await?).await?;
    let (code, said) = changing.reload(&parts(""), &[]).await?;
    assert_eq!(code, Some(2), "{said}");
    for word in [
        "channels.old",
        "holds 10 events",
        "--drain old",
        "--discard old",
    ] {
        assert!(said.contains(word), "no `{word}` in\n{said}");
    }
    let (code, said) = changing.reload(&parts(""), &["--discard", "main"]).await?;
    assert_eq!(code, Some(2), "it stays: {said}");
    // To be drained: its sink goes on, and when there is somebody to take them the events go.
    let said = changing
        .must_reload(&parts(""), &["--drain", "old"])
        .await?;
    assert!(said.contains("draining  channels.old"), "{said}");
    let aggregator = format!(
        "[sources.in]\ntype = \"avro\"\nlisten = \"{nobody}\"\nchannels = [\"main\"]\n\n\
         [channels.main]\ntype = \"durable\"\ncapacity = \"16MiB\"\n\n\
         [sinks.out]\ntype = \"null\"\nchannel = \"main\"\n"
    );
    let mut aggregator = Agent::new(changing.folder.path(), "aggregator", &aggregator)?;
    aggregator.start()?;
    aggregator.ready().await?;
    let agent = &changing.agent;
    wait::until("the drained channel is gone", WITHIN, || async move {
        Ok(agent
            .logged()
            .contains("a drained channel is gone")
            .then_some(()))
    })
    .await?;
    let taken = aggregator.audit().await?;
    assert_eq!(
        taken.count("sources.in", "accepted"),
        Some(10),
        "{taken:#?}"
    );
    // And once more, with the events thrown away: counted.
    aggregator.kill().await?;
    changing.must_reload(&parts(&with_old), &[]).await?;
    post(&mut Connection::open(old).await?).await?;
    changing
        .must_reload(&parts(""), &["--discard", "old"])
        .await?;
    changing.must_reload(&parts(&with_old), &[]).await?;
    let audit = changing.agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    assert_eq!(audit.count("channels.old", "discarded(removed)"), Some(10));
    assert_eq!(audit.count("channels.old", "delivered"), Some(10));
    assert!(changing.agent.stop().await?.success());
    Ok(())
}
