use std::{collections::BTreeSet, process::Command};

use super::*;
use crate::handler::{build, build::BuildArgs};

/// The SDK's files as they lie in the repository, tests left out.
fn sources(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}/{name}");
        if entry.path().is_dir() {
            sources(&entry.path(), &path, found);
        } else if name != "tests.rs" {
            found.insert(path);
        }
    }
}

#[test]
fn the_whole_sdk_is_copied() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/rust");
    let mut wanted = BTreeSet::from(["Cargo.toml".to_owned(), "macros/Cargo.toml".to_owned()]);
    sources(&home.join("src"), "src", &mut wanted);
    sources(&home.join("macros/src"), "macros/src", &mut wanted);
    let copied: BTreeSet<_> = sdk::FILES
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    assert_eq!(copied, wanted);
    let manifest = fs::read_to_string(home.join("Cargo.toml")).unwrap();
    for feature in ["default = [\"arena\"]", "arena = []"] {
        assert!(
            manifest.contains(feature),
            "the copy's manifest is out of date"
        );
    }
}

#[test]
fn names_are_checked() {
    for good in ["a", "my-filter", "x2"] {
        assert!(name(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "2x",
        "-x",
        "x-",
        "My",
        "a b",
        "a/b",
        "..",
        "test",
        "levada-sdk",
        &"x".repeat(65),
    ] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine"), "precious").unwrap();
    let args = NewArgs {
        name: "filter".to_owned(),
        lang: Language::Rust,
        into: Some(folder.path().to_owned()),
        sdk: None,
    };
    assert!(run(&args).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What a user does first: make, test, build; without a network.
#[test]
fn a_new_project_passes_its_tests_and_builds() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("my-filter");
    let args = NewArgs {
        name: "my-filter".to_owned(),
        lang: Language::Rust,
        into: Some(project.clone()),
        sdk: None,
    };
    run(&args).unwrap();

    let tested = Command::new("cargo")
        .args(["test", "--quiet", "--offline"])
        .current_dir(&project)
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stderr);
    assert!(
        tested.status.success() && !said.contains("warning"),
        "{said}"
    );

    build::run(&BuildArgs {
        project: project.clone(),
        output: None,
        offline: true,
    })
    .unwrap();
    let component = fs::read(project.join("my-filter.wasm")).unwrap();
    let inspection = levada_wasm::inspect(&component).unwrap();
    assert_eq!(inspection.roles, [levada_wasm::Role::PackedInterceptor]);
    assert!(
        inspection
            .manifest
            .unwrap()
            .contains("\"name\":\"my-filter\"")
    );
    assert!(!project.join("my-filter.wasm.tmp").exists());
}
