//! The zoo (F62-F78) by its own command.

use anyhow::{Context, Result};
use levada_tests::place;
use levada_wasm::zoo;
use serde_json::Value;
use tokio::process::Command;

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
