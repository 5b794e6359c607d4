//! Guests that loop, grow, overflow, flood and lie, through the real binary (F62-F66, F72, F77): the
//! agent goes on, what happened is named in its log, its metrics and the dead letter, the
//! neighbours of the guilty event are delivered, and the books balance.

use std::{fmt::Write, net::SocketAddr};

use anyhow::{Context, Result};
use levada_tests::{
    agent::{Agent, Audit},
    http::Connection,
    outputs::Line,
    place,
};
use serde_json::{Value, json};

use crate::gateway::Gateway;

/// A packed interceptor in text that does as the bodies say; broken here in ways that no tool chain
/// would produce.
const PUPPET: &str = include_str!("../../host/wasm/src/tests/puppet.wat");

/// The line of it that a start function is put behind.
const MEMORY: &str = r#"(memory (export "memory") 4)"#;

/// What the guest `hostile` does to a batch with a poisoned event: its mode, the limit that ends
/// it, and words of the reason.
const MISDEEDS: [(&str, Option<&str>, &str); 26] = [
    ("loop", Some("cpu"), "the limit `cpu` of 50ms was reached"),
    ("grow", Some("memory"), "`memory` of 16MiB"),
    ("huge", Some("memory"), "`memory` of 16MiB"),
    ("overflow", Some("wasm-stack"), "`wasm-stack` of 256KiB"),
    ("call-flood", Some("host-calls"), "the limit `host-calls`"),
    ("log-flood", Some("host-calls"), "the limit `host-calls`"),
    ("print-flood", Some("host-calls"), "the limit `host-calls`"),
    ("panic", None, "unreachable"),
    ("divide", None, "unreachable"),
    ("unreachable", None, "unreachable"),
    ("out-of-bounds", None, "out of bounds memory access"),
    ("exit", None, "leave the process"),
    ("far", None, "out of bounds"),
    ("empty", None, "broken contract"),
    ("none", None, "not covered"),
    ("long", None, "events covered where"),
    ("zero", None, "covers no event"),
    ("unknown-op", None, "operation 7 is not one"),
    ("past-end", None, "past the end"),
    ("reason-utf8", None, "a reason that is not UTF-8"),
    ("header-utf8", None, "a header that is not UTF-8"),
    ("varint", None, "shortest form"),
    ("twice", None, "a name twice"),
    ("event-cut", None, "ends inside a value"),
    ("many", None, "are allowed"),
    ("large-event", None, "allowed"),
];

/// Where one handler stands, behind a source of its own.
struct Bed {
    name: String,
    http: SocketAddr,
}

impl Bed {
    /// Adds the source and its handler to a configuration. `settings` are lines of the handler.
    fn lay(configuration: &mut String, name: &str, settings: &str) -> Result<Self> {
        let http = place::free_address()?;
        write!(
            configuration,
            r#"[sources.{name}]
type = "http"
listen = "{http}"
interceptors = ["{name}"]
channels = ["main"]

[handlers.{name}]
{settings}

"#
        )?;
        let name = name.to_owned();
        Ok(Self { name, http })
    }

    /// Posts three good events around a poisoned one.
    async fn post(&self) -> Result<()> {
        let name = &self.name;
        let bodies = [
            format!("{name} a"),
            format!("{name} b"),
            self.poison(),
            format!("{name} c"),
        ];
        let events: Vec<_> = bodies
            .iter()
            .map(|body| json!({ "headers": {}, "body": body }))
            .collect();
        let status = post(self.http, &json!(events)).await?;
        assert_eq!(status, 200, "{name}");
        Ok(())
    }

    fn poison(&self) -> String {
        format!("{} POISON", self.name)
    }

    /// What came out of the good events, in order.
    fn delivered<'a>(&self, events: &'a [Line]) -> Vec<&'a Line> {
        let own = format!("{} ", self.name);
        events
            .iter()
            .filter(|event| event.body.starts_with(&own))
            .collect()
    }

    fn count(&self, audit: &Audit, counter: &str) -> u64 {
        let source = format!("sources.{}", self.name);
        audit.count(&source, counter).unwrap_or_default()
    }
}

async fn post(to: SocketAddr, events: &Value) -> Result<u16> {
    let json = [("content-type", "application/json")];
    let mut connection = Connection::open(to).await?;
    let answer = connection
        .send("POST", "/", &json, events.to_string().into())
        .await?;
    Ok(answer.status)
}

async fn letters(agent: &Agent) -> Result<Vec<Value>> {
    let output = agent.levada(&["dlq", "ls", "--json"]).await?;
    let letters: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let letters = letters.as_array().context("letters are a list")?;
    Ok(letters.clone())
}

/// The letters of one handler.
fn of<'a>(letters: &'a [Value], bed: &Bed) -> Vec<&'a Value> {
    let part = format!("handlers.{}", bed.name);
    letters
        .iter()
        .filter(|letter| letter["part"].as_str() == Some(&part))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misdeed_costs_the_event_it_is_done_on_and_no_other() -> Result<()> {
    let component = place::guest("hostile")?;
    let settings = |mode: &str| {
        format!(
            "component = {:?}\nconfig = {{ mode = \"{mode}\", poison = \"POISON\" }}\n\
             limits = {{ memory = \"16MiB\", cpu = \"50ms\", deadline = \"60s\" }}",
            component.display().to_string()
        )
    };
    let mut configuration = String::new();
    let mut beds = Vec::new();
    for (mode, ..) in MISDEEDS {
        beds.push(Bed::lay(&mut configuration, mode, &settings(mode))?);
    }
    let mut gateway = Gateway::start(&configuration).await?;
    gateway.goes_on().await?;
    for bed in &beds {
        bed.post().await?;
    }
    gateway.goes_on().await?;

    let letters = letters(&gateway.agent).await?;
    let log = gateway.agent.logged();
    for (bed, (mode, limit, words)) in beds.iter().zip(MISDEEDS) {
        let own = of(&letters, bed);
        let [letter] = own[..] else {
            panic!("{mode}: {} dead letters", own.len())
        };
        assert_eq!(letter["body"].as_str(), Some(&*bed.poison()), "{letter}");
        assert_eq!(letter["limit"].as_str(), limit, "{letter}");
        let reason = letter["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(words), "{mode}: {reason}");
        let digest = letter["handler"].as_str().unwrap_or_default();
        assert!(digest.starts_with("sha256:"), "{letter}");
        let said = |line: &str| {
            line.contains("event set aside")
                && line.contains(&format!("handler={mode} "))
                && line.contains(words)
        };
        assert!(log.lines().any(said), "{mode} is not in the log:\n{log}");
        let labels = format!("part=\"handlers.{mode}\",limit=\"{}\"", limit.unwrap_or(""));
        if limit.is_some() {
            let failures = gateway
                .agent
                .metric("levada_handler_failures_total", &labels)
                .await?;
            assert!(failures >= 2.0, "{mode}: {failures}");
        }
    }
    let events = gateway.events(4 + 3 * beds.len() as u64).await?;
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    for bed in &beds {
        let bodies = bed.delivered(&events);
        let bodies: Vec<_> = bodies.iter().map(|event| &*event.body).collect();
        let expected = ["a", "b", "c"].map(|good| format!("{} {good}", bed.name));
        assert_eq!(bodies, expected);
        let counts = ["accepted", "put", "dead-lettered"].map(|name| bed.count(&audit, name));
        assert_eq!(counts, [4, 3, 1], "{}", bed.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_do_not_pass() -> Result<()> {
    let component = place::guest("hostile")?;
    let mut configuration = String::new();
    let mut beds = Vec::new();
    for mode in ["forged", "forged-event"] {
        let settings = format!(
            "component = {:?}\nconfig = {{ mode = \"{mode}\" }}",
            component.display().to_string()
        );
        beds.push(Bed::lay(&mut configuration, mode, &settings)?);
    }
    let mut gateway = Gateway::start(&configuration).await?;
    for bed in &beds {
        bed.post().await?;
    }
    let events = gateway.events(8).await?;
    let reserved = |event: &Line| {
        let mut names = event.headers.keys();
        names.any(|name| name.starts_with("levada."))
    };
    assert!(!events.iter().any(reserved), "{events:?}");
    // What it added under a name of its own is there.
    assert_eq!(beds[0].delivered(&events)[0].headers["fair"], "yes");
    let made: Vec<_> = events.iter().filter(|event| event.body == "ok").collect();
    assert_eq!((made.len(), &*made[0].headers["a"]), (1, "b"));
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    Ok(())
}

/// Writes the puppet, changed, beside the agent's configuration.
fn puppet(folder: &std::path::Path, name: &str, from: &str, to: &str) -> Result<String> {
    assert!(PUPPET.contains(from), "{from}");
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, wat::parse_str(PUPPET.replacen(from, to, 1))?)?;
    // Wall time says nothing on a machine that runs other tests.
    Ok(format!(
        "component = {:?}\nlimits = {{ deadline = \"60s\" }}",
        path.display().to_string()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_beside_the_exported_function_is_contained_too() -> Result<()> {
    // The functions that the host calls around it: each batch fails whatever is in it.
    let after = r#"(realloc (core func $i "realloc"))"#;
    let post_return = format!(r#"{after} (post-return (core func $i "after"))"#);
    let result = r#"(func $deep (param i64"#;
    let with_after = |body: &str| {
        let export = format!(r#"(func (export "after") (param i32) {body}) {result}"#);
        PUPPET
            .replacen(result, &export, 1)
            .replacen(after, &post_return, 1)
    };
    let realloc = "(local.set $at (global.get $heap))";
    let cases = [
        (
            "realloc-trap",
            PUPPET.replacen(realloc, "unreachable", 1),
            "unreachable",
        ),
        (
            "realloc-loop",
            PUPPET.replacen(realloc, "(loop $ever (br $ever))", 1),
            "the limit `cpu`",
        ),
        (
            "realloc-lie",
            PUPPET.replacen(realloc, "(return (i32.const -8))", 1),
            "realloc",
        ),
        ("after-trap", with_after("unreachable"), "unreachable"),
        (
            "after-loop",
            with_after("(loop $ever (br $ever))"),
            "the limit `cpu`",
        ),
    ];
    let folder = tempfile::tempdir()?;
    let mut configuration = String::new();
    let mut beds = Vec::new();
    for (name, wat, _) in &cases {
        let path = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&path, wat::parse_str(wat).with_context(|| wat.clone())?)?;
        let settings = format!(
            "component = {:?}\nlimits = {{ cpu = \"20ms\", deadline = \"60s\" }}",
            path.display().to_string()
        );
        beds.push(Bed::lay(&mut configuration, name, &settings)?);
    }
    let mut gateway = Gateway::start(&configuration).await?;
    for bed in &beds {
        bed.post().await?;
    }
    gateway.goes_on().await?;
    let letters = letters(&gateway.agent).await?;
    for (bed, (name, _, words)) in beds.iter().zip(&cases) {
        let own = of(&letters, bed);
        assert_eq!(own.len(), 4, "{name}");
        for letter in own {
            let reason = letter["reason"].as_str().unwrap_or_default();
            assert!(reason.contains(words), "{name}: {reason}");
        }
    }
    gateway.events(2).await?;
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    for bed in &beds {
        assert_eq!(bed.count(&audit, "dead-lettered"), 4, "{}", bed.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_start_is_refused_by_name_and_nothing_starts() -> Result<()> {
    let beside = |more: &str| format!("{MEMORY} {more}");
    let instances = "(core instance (instantiate $e))".repeat(200);
    let instances = format!("(core module $e) {instances} (core module $m");
    let cases = [
        (
            "a loop in a start function",
            MEMORY,
            beside("(func $s (loop $l (br $l))) (start $s)"),
            "the limit `cpu` of 250ms was reached",
        ),
        (
            "a trap in a start function",
            MEMORY,
            beside("(func $s unreachable) (start $s)"),
            "unreachable",
        ),
        (
            "4 GiB of memory",
            MEMORY,
            r#"(memory (export "memory") 65536)"#.to_owned(),
            "the limit `memory` of 64MiB was reached",
        ),
        (
            "nine memories",
            MEMORY,
            beside(&"(memory 0)".repeat(9)),
            "the limit `memories`",
        ),
        (
            "a table bomb",
            MEMORY,
            beside("(table 1000000000 funcref)"),
            "the limit `table-elements` of 65536 was reached",
        ),
        (
            "200 instances",
            "(core module $m",
            instances,
            "the limit `core-instances`",
        ),
    ];
    let folder = tempfile::tempdir()?;
    for (n, (what, from, to, words)) in cases.iter().enumerate() {
        let settings = puppet(folder.path(), &n.to_string(), from, to)?;
        is_refused(folder.path(), &format!("case-{n}"), &settings, &[words])
            .await
            .with_context(|| (*what).to_owned())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_wants_more_than_it_is_granted_is_refused_by_name() -> Result<()> {
    let component = place::guest("wants-more")?;
    let settings = format!("component = {:?}", component.display().to_string());
    let folder = tempfile::tempdir()?;
    let name = "example:more/secrets-of-others";
    is_refused(
        folder.path(),
        "more",
        &settings,
        &[name, "not in this version"],
    )
    .await
}

/// Neither `check` nor `run` accepts a handler with these settings, and both say why.
async fn is_refused(
    folder: &std::path::Path,
    name: &str,
    settings: &str,
    words: &[&str],
) -> Result<()> {
    let mut configuration = String::new();
    let bed = Bed::lay(&mut configuration, "bad", settings)?;
    configuration.push_str("[channels.main]\ntype = \"durable\"\n\n");
    configuration.push_str("[sinks.nowhere]\ntype = \"null\"\nchannel = \"main\"\n");
    let agent = Agent::new(folder, name, &configuration)?;
    for verb in ["check", "run"] {
        let output = agent.levada(&[verb]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        assert!(said.contains("handlers.bad"), "{verb}: {said}");
        for word in words {
            assert!(said.contains(word), "{verb}: {word} is not in: {said}");
        }
    }
    assert!(
        Connection::open(bed.http).await.is_err(),
        "a source listens"
    );
    assert!(
        !agent.data().join("store.redb").exists(),
        "there is a store"
    );
    Ok(())
}

/// Every second instance of it loops in its start function.
fn sick_half_of_the_time() -> Result<Vec<u8>> {
    let import = r#"(import "wasi:random/random@0.2.6" (instance $random
        (export "get-random-u64" (func (result u64)))))
      (core func $random (canon lower (func $random "get-random-u64")))
      (core instance $host (export "random" (func $random)))
      (core module $m (import "host" "random" (func $random (result i64)))"#;
    let start = format!(
        "{MEMORY} (func $s (if (i64.lt_s (call $random) (i64.const 0)) (then (loop $l (br $l))))) \
         (start $s)"
    );
    let text = PUPPET
        .replacen("(core module $m", import, 1)
        .replacen(MEMORY, &start, 1)
        .replacen(
            "(core instance $i (instantiate $m))",
            r#"(core instance $i (instantiate $m (with "host" (instance $host))))"#,
            1,
        );
    wat::parse_str(&text).context("the guest is well-formed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_start_again_refuses_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sick.wasm");
    std::fs::write(&path, sick_half_of_the_time()?)?;
    let settings = format!(
        "component = {:?}\ninstance = \"fresh\"\nlimits = {{ cpu = \"20ms\", deadline = \"60s\" }}",
        path.display().to_string()
    );
    let mut configuration = String::new();
    let bed = Bed::lay(&mut configuration, "sick", &settings)?;
    let mut gateway = Gateway::start_until(&configuration, "the limit `cpu` of 20ms").await?;
    let (mut taken, mut refused) = (Vec::new(), 0);
    for n in 0.. {
        let body = format!("{n}");
        match post(bed.http, &json!([{ "headers": {}, "body": body }])).await? {
            200 => taken.push(body),
            503 => refused += 1,
            other => panic!("{other}\n{}", gateway.agent.tail()),
        }
        if refused >= 2 && taken.len() >= 5 {
            break;
        }
    }
    gateway.goes_on().await?;
    let log = gateway.agent.logged();
    assert!(log.contains("no new instance of the handler"), "{log}");
    let label = r#"part="handlers.sick",limit="cpu""#;
    let failures = gateway
        .agent
        .metric("levada_handler_failures_total", label)
        .await?;
    assert!(failures >= 2.0, "{failures}");
    let events = gateway.events(taken.len() as u64 + 2).await?;
    let bodies: Vec<_> = events
        .iter()
        .map(|event| &event.body)
        .filter(|body| *body != "good")
        .collect();
    assert_eq!(bodies, taken.iter().collect::<Vec<_>>());
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    assert_eq!(bed.count(&audit, "put"), taken.len() as u64);
    Ok(())
}
