//! OpenSearch as published, as a process: what speaks Elasticsearch's protocol for real.
//!
//! `cargo x peers fetch` puts it below `target/peers`.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use serde_json::Value;
use tokio::process::Command;

use crate::{http::Connection, place, process::Process, wait};

/// A server with a folder of its own. It is killed when dropped.
#[derive(Debug)]
pub struct OpenSearch {
    pub at: SocketAddr,
    process: Process,
}

/// The distribution.
#[derive(Debug, Clone)]
pub struct Distribution(PathBuf);

const VERSION: &str = "2.19.3";

/// How long it may take until it answers, on a machine that does much else.
const START: Duration = Duration::from_secs(120);

/// The user that it runs as where the tests run as root, which it refuses.
const NOBODY: u32 = 65534;

impl Distribution {
    /// Finds it.
    ///
    /// # Errors
    /// It was not fetched.
    pub fn find() -> Result<Self> {
        let folder = place::target().join(format!("peers/opensearch-{VERSION}"));
        if !folder.join("complete").exists() {
            let folder = folder.display();
            bail!(
                "OpenSearch {VERSION} is not in `{folder}`; `cargo x peers fetch` brings it, with \
                 Java 17 and Maven"
            );
        }
        Ok(Self(folder.join(format!("lib/opensearch-{VERSION}"))))
    }
}

impl OpenSearch {
    /// Starts a server with its settings and data in this folder, and waits until it answers.
    ///
    /// # Errors
    /// It does not in time; the end of its log is part of the message.
    pub async fn start(of: &Distribution, folder: &Path) -> Result<Self> {
        let at = place::free_address()?;
        let config = folder.join("config");
        let mut owned = vec![folder.to_owned()];
        for name in ["config", "data", "logs", "tmp"] {
            let below = folder.join(name);
            fs::create_dir_all(&below)?;
            owned.push(below);
        }
        for (name, text) in settings(at, folder)? {
            fs::write(config.join(name), text)?;
            owned.push(config.join(name));
        }
        let mut command = Command::new(of.0.join("bin/opensearch"));
        command
            .env("OPENSEARCH_PATH_CONF", &config)
            .env("OPENSEARCH_JAVA_HOME", java_home()?)
            .env("HOME", folder);
        if geteuid().is_root() {
            for path in owned {
                chown(&path, Some(NOBODY), Some(NOBODY))?;
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        let log = folder.join("opensearch.log");
        let mut process = Process::start("OpenSearch", command, &log)?;
        let answers = wait::until("OpenSearch answers", START, || {
            let alive = process.check();
            async move {
                alive?;
                Ok(send(at, "GET", "/", None).await.ok())
            }
        });
        let answered = answers.await;
        answered.with_context(|| process.tail())?;
        Ok(Self { at, process })
    }

    /// Sends a request, with a body if there is one, and gives what it answers.
    ///
    /// # Errors
    /// It does not take it.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let sent = send(self.at, method, path, body).await;
        sent.with_context(|| self.process.tail())
    }
}

/// Where the `java` of the command line is at home.
fn java_home() -> Result<PathBuf> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let mut programs = env::split_paths(&paths).map(|folder| folder.join("java"));
    let java = programs.find_map(|program| fs::canonicalize(program).ok());
    let home = java.as_deref().and_then(|java| java.ancestors().nth(2));
    home.map(Path::to_owned).context("there is no `java`")
}

async fn send(at: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let kind = [("content-type", "application/json")];
    let mut connection = Connection::open(at).await?;
    let body = body.map(Value::to_string).unwrap_or_default().into();
    let answer = connection.send(method, path, &kind, body).await?;
    ensure!(answer.status < 300, "{}: {}", answer.status, answer.text());
    Ok(serde_json::from_str(&answer.text())?)
}

/// Files with their texts.
fn settings(at: SocketAddr, folder: &Path) -> Result<[(&'static str, String); 3]> {
    let (http, peers) = (at.port(), place::free_address()?.port());
    let folder = folder.display();
    let server = format!(
        "cluster.name: test\nnode.name: one\nnetwork.host: 127.0.0.1\nhttp.port: {http}\n\
         transport.port: {peers}\ndiscovery.type: single-node\npath.data: {folder}/data\n\
         path.logs: {folder}/logs\n"
    );
    let machine = format!(
        "-Xms256m\n-Xmx256m\n-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1\n\
         -Djava.io.tmpdir={folder}/tmp\n"
    );
    let log = "appender.console.type = Console\nappender.console.name = console\n\
               appender.console.layout.type = PatternLayout\n\
               appender.console.layout.pattern = %d %p %c{1.} %m%n\n\
               rootLogger.level = info\nrootLogger.appenderRef.console.ref = console\n";
    Ok([
        ("opensearch.yml", server),
        ("jvm.options", machine),
        ("log4j2.properties", log.to_owned()),
    ])
}
