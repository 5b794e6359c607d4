//! The binary as a process: it runs, is asked, stops, and says how it went.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the tests themselves"
)]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A process that is killed when the test ends early.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = levada(folder, &["run", "--conf", "a.toml"]);
        Self(command.stderr(log).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("the agent ends", || self.0.try_wait().unwrap())
    }
}

fn levada(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    command.args(arguments).current_dir(folder);
    command
}

fn ask(folder: &Path, arguments: &[&str]) -> Output {
    levada(folder, arguments)
        .args(["--conf", "a.toml"])
        .output()
        .unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = ask(folder, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "not within a minute: {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a configuration with a generator in front of one channel.
fn folder(channel: &str, rest: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[agent]\nname = \"t\"\ndata = \"data\"\nadmin = \"127.0.0.1:0\"\n\n\
         [sources.gen]\ntype = \"seq\"\ntotal = 5000\nchannels = [\"main\"]\n\n\
         [channels.main]\ntype = \"{channel}\"\ncapacity = \"64MiB\"\n\n{rest}"
    );
    fs::write(folder.path().join("a.toml"), text).unwrap();
    folder
}

#[test]
fn an_agent_is_asked_while_it_runs_and_afterwards() {
    let folder = folder(
        "durable",
        "[sinks.out]\ntype = \"null\"\nchannel = \"main\"\n",
    );
    let folder = folder.path();
    let mut agent = Agent::start(folder);
    let delivered = |counts: &Value| {
        let counts = counts["counts"].as_array().into_iter().flatten();
        let of_main = |c: &&Value| c["part"] == "channels.main" && c["counter"] == "delivered";
        counts
            .filter(of_main)
            .filter_map(|c| c["amount"].as_u64())
            .sum::<u64>()
    };
    eventually("all is delivered", || {
        (delivered(&json(folder, &["audit"])) == 5000).then_some(())
    });
    let status = json(folder, &["status"]);
    assert_eq!(status["running"], true, "{status}");
    assert_eq!(status["health"]["status"], "ok", "{status}");
    let text = String::from_utf8(ask(folder, &["status"]).stdout).unwrap();
    for part in [
        "t is ok",
        "sources.gen  running",
        "sinks.out",
        "main     durable",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert_eq!(
        ask(folder, &["dlq", "ls"]).stdout,
        b"There are no dead letters.\n"
    );
    assert_eq!(ask(folder, &["dlq", "show", "7"]).status.code(), Some(1));

    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().code(), Some(0));
    assert!(!folder.join("data/admin.sock").exists());
    let status = json(folder, &["status"]);
    assert_eq!(status["running"], false, "{status}");
    assert_eq!(status["channels"][0]["capacity-bytes"], 64 << 20);
    let audit = json(folder, &["audit"]);
    assert_eq!(
        (&audit["holds"], delivered(&audit)),
        (&true.into(), 5000),
        "{audit}"
    );
}

#[test]
fn what_a_memory_channel_loses_is_in_the_exit_code() {
    // Nobody listens there: the channel cannot be emptied.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let sink = format!("[sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{gone}\"\n");
    let folder = folder("memory", &sink);
    let folder = folder.path();
    let mut agent = Agent::start(folder);
    eventually("the channel holds all", || {
        (json(folder, &["channel", "ls"])[0]["events"] == 5000).then_some(())
    });
    let text = eventually("the sink is retrying", || {
        let text = String::from_utf8(ask(folder, &["status"]).stdout).unwrap();
        text.contains("t is degraded").then_some(text)
    });
    assert!(text.contains("degraded: sinks.up is retrying"), "{text}");
    agent.signal(Signal::INT);
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().code(), Some(3));
}

#[test]
fn a_part_that_cannot_be_opened_is_shown_with_its_place() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let folder = folder(
        "durable",
        &format!(
            "[sinks.out]\ntype = \"null\"\nchannel = \"main\"\n\n\
             [sources.in]\ntype = \"avro\"\nlisten = \"{at}\"\nchannels = [\"main\"]\n"
        ),
    );
    let output = ask(folder.path(), &["run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["error[sources.in]", "a.toml:19:1", &at.to_string()] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
}
