//! The delivery contract names the tests that hold it; they are there.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use levada_tests::place;

/// Names in backquotes that are made like those of tests: at least four words.
fn named(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.matches('_').count() >= 3 && name.chars().all(plain)
    };
    quoted.filter(is_name).collect()
}

/// The functions of every test in the sources below a folder.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            tests_below(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            let functions = text.lines().filter_map(|line| {
                let line = line.trim_start().trim_start_matches("async ");
                let (name, _) = line.strip_prefix("fn ")?.split_once(['(', '<'])?;
                Some(name.to_owned())
            });
            found.extend(functions);
        }
    }
    Ok(())
}

#[test]
fn every_test_that_the_delivery_contract_names_is_there() -> Result<()> {
    let root = place::root();
    let text = fs::read_to_string(root.join("host/DELIVERY.md"))?;
    let mut found = BTreeSet::new();
    for folder in ["host", "tests"] {
        tests_below(&root.join(folder), &mut found)?;
    }
    let named = named(&text);
    assert!(named.len() >= 60, "only {} tests are named", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !found.contains(**name))
        .collect();
    assert!(missing.is_empty(), "no test is called {missing:?}");
    Ok(())
}
