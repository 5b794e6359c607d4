//! The zoo (F62-F78): by its own command, and behind the sources of a running agent.

use std::{fmt::Write, fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use levada_tests::{http::Connection, place};
use levada_wasm::zoo::{self, Animal, Ends, HARMLESS, POISON};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::gateway::Gateway;

/// Events that the neighbour is sent while the animals are at work, and how many at once.
const NEIGHBOUR: u64 = 2_000;
const AT_ONCE: u64 = 100;

async fn levada_zoo(arguments: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new(place::levada()?);
    command.args(["handler", "zoo"]).args(arguments);
    Ok(command.output().await?)
}

#[tokio::test]
async fn every_animal_of_the_zoo_is_held() -> Result<()> {
    let output = levada_zoo(&["--json"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let visits: Value =
        serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    let visits = visits.as_array().context("visits are a list")?;
    let mut held = Vec::new();
    for visit in visits {
        let (row, name) = (&visit["row"], visit["name"].as_str().unwrap_or_default());
        if visit["found"] == "not-in-this-build" {
            let http = ["F68", "F69", "F70", "F71"];
            assert!(http.iter().any(|it| row == it), "{visit}");
            continue;
        }
        assert_eq!(visit["found"], "held", "{visit}");
        let beside = &visit["neighbour"];
        assert_eq!(beside["finished"], beside["of"], "{visit}");
        held.push(name);
    }
    for animal in zoo::animals() {
        assert!(held.contains(&animal.name), "{} was not there", animal.name);
    }
    assert!(held.contains(&"residue"));
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_small_device_holds_what_its_limits_end() -> Result<()> {
    let names = [
        "F63",
        "long-answer",
        "slow-leak",
        "--profile",
        "edge",
        "--json",
    ];
    let output = levada_zoo(&names).await?;
    let visits: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    for visit in &visits {
        assert_eq!(visit["found"], "held", "{visit}");
    }
    assert!(visits.len() >= 8, "{visits:?}");
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_not_in_the_zoo_is_answered_with_those_that_are() -> Result<()> {
    let output = levada_zoo(&["unicorn"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`unicorn`") && said.contains("slow-leak"),
        "{said}"
    );
    Ok(())
}

/// A source of its own, with a handler of its own.
struct Cage {
    name: String,
    http: SocketAddr,
}

impl Cage {
    fn build(
        parts: &mut String,
        folder: &Path,
        name: &str,
        component: &[u8],
        more: &str,
    ) -> Result<Self> {
        let path = folder.join(format!("{name}.wasm"));
        fs::write(&path, component)?;
        let http = place::free_address()?;
        write!(
            parts,
            r#"[sources.{name}]
type = "http"
listen = "{http}"
interceptors = ["{name}"]
channels = ["main"]

[handlers.{name}]
component = {:?}
limits = {{ deadline = "60s" }}
{more}
"#,
            path.display().to_string()
        )?;
        let name = name.to_owned();
        Ok(Self { name, http })
    }

    async fn post(&self, bodies: &[String]) -> Result<()> {
        let events: Vec<_> = bodies
            .iter()
            .map(|body| json!({ "headers": {}, "body": body }))
            .collect();
        let json = [("content-type", "application/json")];
        let mut connection = Connection::open(self.http).await?;
        let body = json!(events).to_string();
        let answer = connection.send("POST", "/", &json, body.into()).await?;
        assert_eq!(answer.status, 200, "{}: {}", self.name, answer.text());
        Ok(())
    }

    /// What the animal is sent: its prey between two others.
    fn bodies(&self) -> [String; 3] {
        let name = &self.name;
        [
            format!("{name} a"),
            format!("{POISON} {name}"),
            format!("{name} b"),
        ]
    }
}

/// Animals that are loaded, so that an agent starts with them.
fn loaded() -> Vec<&'static Animal> {
    let runs = |animal: &&Animal| !matches!(animal.ends, Ends::Refused(_));
    zoo::animals().filter(runs).collect()
}

fn grants(animal: &Animal) -> &'static str {
    match animal.granted {
        "state" => "grants = { state = \"1MiB\" }\n",
        "secrets" => "grants = { secrets = { own = \"of its own\" } }\n",
        _ => "",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_full_of_animals_serves_the_neighbour_and_keeps_their_prey() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut parts = String::new();
    let neighbour = Cage::build(&mut parts, folder.path(), "neighbour", HARMLESS, "")?;
    let animals = loaded();
    let mut cages = Vec::new();
    for animal in &animals {
        let component = (animal.component)();
        cages.push(Cage::build(
            &mut parts,
            folder.path(),
            animal.name,
            &component,
            grants(animal),
        )?);
    }
    let mut gateway = Gateway::start(&parts).await?;
    let flock = async {
        for _ in 0..NEIGHBOUR / AT_ONCE {
            let bodies: Vec<_> = (0..AT_ONCE).map(|n| format!("neighbour {n}")).collect();
            neighbour.post(&bodies).await?;
        }
        anyhow::Ok(())
    };
    let prey = async {
        for cage in &cages {
            cage.post(&cage.bodies()).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(flock, prey)?;
    gateway.goes_on().await?;

    let output = gateway.agent.levada(&["dlq", "ls", "--json"]).await?;
    let letters: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let mut delivered = NEIGHBOUR + 2;
    for (cage, animal) in cages.iter().zip(&animals) {
        let part = format!("handlers.{}", animal.name);
        let own: Vec<_> = letters.iter().filter(|it| it["part"] == part).collect();
        let prey = &cage.bodies()[1];
        let (limit, words) = match animal.ends {
            Ends::Limit(limit) => (Some(limit), limit),
            Ends::Trap(words) | Ends::Contract(words) => (None, words),
            Ends::Refused(_) | Ends::Harmless(_) => {
                assert!(own.is_empty(), "{own:?}");
                delivered += 3;
                continue;
            }
        };
        let [letter] = own[..] else {
            panic!("{}: {} dead letters", animal.name, own.len())
        };
        assert_eq!(letter["body"].as_str(), Some(&**prey), "{letter}");
        assert_eq!(letter["limit"].as_str(), limit, "{letter}");
        let reason = letter["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(words), "{}: {reason}", animal.name);
        delivered += 2;
    }
    let restarts = |line: &&str| line.starts_with("levada_part_restarts") && !line.ends_with(" 0");
    let metrics = gateway.agent.metrics().await?;
    assert_eq!(metrics.lines().find(restarts), None);
    let events = gateway.events(delivered).await?;
    let of = |name: &str| events.iter().filter(|it| it.body.starts_with(name)).count() as u64;
    assert_eq!(
        (events.len() as u64, of("neighbour ")),
        (delivered, NEIGHBOUR)
    );
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    Ok(())
}
