//! Mistakes in configurations and what is said about them, and the files that people copy.
//!
//! Each `tests/cases/config/NN-name.toml` is a mistake, `NN-name.txt` beside it what the binary
//! writes to standard error about it. `BLESS=1` rewrites the latter; read the difference.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the tests themselves"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn levada(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_levada"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("LEVADA_TEST_IS_NOT_SET")
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .unwrap()
}

/// Files of a folder that end in `end`, by name.
fn files(folder: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(end)).collect();
    names.sort();
    names
}

/// A copy of the cases, to see that nothing is made beside them.
fn copied(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files(from, ".toml") {
        fs::copy(from.join(&name), folder.path().join(&name)).unwrap();
    }
    folder
}

#[test]
fn every_mistake_is_explained_and_nothing_is_started() {
    let cases = workspace().join("tests/cases/config");
    let names = files(&cases, ".toml");
    assert!(names.len() >= 30, "only {} cases", names.len());
    let folder = copied(&cases);
    let bless = env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for name in &names {
        let check = levada(folder.path(), &["check", "--conf", name]);
        let run = levada(folder.path(), &["run", "--conf", name]);
        let said = String::from_utf8(check.stderr).unwrap();
        let expected = cases.join(name).with_extension("txt");
        if bless {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{name} says:\n{said}"));
        }
        for (verb, ended) in [("check", check.status), ("run", run.status)] {
            if ended.code() != Some(2) {
                wrong.push(format!("{verb} --conf {name} ended with {ended}"));
            }
        }
        let started = String::from_utf8_lossy(&run.stderr).contains("levada runs");
        if started || folder.path().join("data/store.redb").exists() {
            wrong.push(format!("{name} started something"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_error_about_a_file_has_its_place() {
    let cases = workspace().join("tests/cases/config");
    let folder = copied(&cases);
    for name in files(&cases, ".toml") {
        let check = levada(folder.path(), &["check", "--json", "--conf", &name]);
        let checkup: Value = serde_json::from_slice(&check.stdout).unwrap();
        assert_eq!(checkup["ok"], false, "{name}");
        for problem in checkup["problems"].as_array().unwrap() {
            // What is not there at all has no place.
            let is_absent = problem["key"] == "agent" || problem["key"] == "";
            assert!(problem["line"].is_u64() || is_absent, "{name}: {problem}");
        }
        let said = String::from_utf8(check.stdout).unwrap();
        assert!(!said.contains("canary"), "{name}: {said}");
    }
}

#[test]
fn the_files_to_copy_are_in_order() {
    let conf = workspace().join("conf");
    let names = files(&conf, ".toml");
    assert!(names.len() >= 2, "{names:?}");
    for name in names {
        let check = levada(&conf, &["check", "--json", "--conf", &name]);
        let checkup: Value = serde_json::from_slice(&check.stdout).unwrap();
        for problem in checkup["problems"].as_array().unwrap() {
            // The component is built elsewhere.
            let key = problem["key"].as_str().unwrap();
            assert!(key.ends_with(".component"), "{name}: {problem}");
        }
    }
}

#[test]
fn the_unit_names_verbs_that_there_are() {
    let unit = fs::read_to_string(workspace().join("conf/systemd/levada.service")).unwrap();
    let mut verbs = Vec::new();
    for line in unit.lines().filter(|line| line.starts_with("ExecStart")) {
        let (_, command) = line.split_once('=').unwrap();
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("/usr/local/bin/levada"), "{line}");
        verbs.push(words.next().unwrap());
    }
    assert_eq!(verbs, ["check", "run"]);
    for verb in verbs {
        assert!(
            levada(&workspace(), &[verb, "--help"]).status.success(),
            "{verb}"
        );
    }
}
