//! The README keeps its promises: short, the two commands, and a configuration that is in order.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use levada_tests::place;

/// Most lines of the README.
const LINES: usize = 60;

fn readme() -> Result<String> {
    fs::read_to_string(place::root().join("README.md")).context("cannot read the README")
}

#[test]
fn it_is_short_and_names_the_two_commands() -> Result<()> {
    let text = readme()?;
    assert!(
        text.lines().count() <= LINES,
        "{} lines",
        text.lines().count()
    );
    for command in ["cargo x demo", "cargo x test"] {
        assert!(text.contains(command), "`{command}` is not there");
    }
    Ok(())
}

#[test]
fn what_it_links_to_is_there() -> Result<()> {
    for link in readme()?
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let there = link.starts_with("https://") || place::root().join(link).exists();
        assert!(there, "`{link}` is not there");
    }
    Ok(())
}

#[test]
fn its_configuration_is_in_order() -> Result<()> {
    let text = readme()?;
    let indented = |line: &&str| line.is_empty() || line.starts_with("    ");
    let from = text.lines().skip_while(|line| line.trim() != "[agent]");
    let configuration = from
        .take_while(indented)
        .take_while(|line| !line.trim().starts_with("levada "))
        .map(|line| line.trim_start_matches("    "))
        .collect::<Vec<_>>()
        .join("\n");
    let folder = tempfile::tempdir()?;
    // The folders of a real machine are not this test's to make.
    let own = folder.path().display().to_string();
    let configuration = configuration.replace("/var/", &format!("{own}/var/"));
    check(&folder.path().join("aggregator.toml"), &configuration)
}

fn check(path: &Path, configuration: &str) -> Result<()> {
    fs::write(path, configuration)?;
    let output = Command::new(place::levada()?)
        .args(["check", "--conf"])
        .arg(path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{configuration}\n{said}");
    Ok(())
}
