//! Which crate may import which, and who owns which outside crate. The drawing is the design's;
//! an arrow more than these is a decision, and is made here first.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// What each crate of the host may import of the others; the agent may import all of them.
const ARROWS: [(&str, &[&str]); 13] = [
    ("core", &[]),
    ("config", &["core"]),
    ("telemetry", &["core"]),
    ("net", &["core"]),
    ("store", &["core", "telemetry"]),
    ("wasm", &["core", "telemetry", "net"]),
    ("rpc", &["core", "net"]),
    ("interceptors", &["core", "telemetry"]),
    ("sources", &["core", "telemetry", "net", "rpc"]),
    ("sinks", &["core", "telemetry", "net", "rpc"]),
    ("flow", &["core", "telemetry", "config"]),
    ("admin", &["core", "telemetry", "net", "flow"]),
    (
        "agent",
        &[
            "core",
            "config",
            "telemetry",
            "net",
            "store",
            "wasm",
            "rpc",
            "interceptors",
            "sources",
            "sinks",
            "flow",
            "admin",
        ],
    ),
];

/// Outside crates with an owner: nobody else in the host imports them.
const OWNERS: [(&str, &[&str]); 11] = [
    ("wasmtime", &["wasm"]),
    ("redb", &["store"]),
    ("apache-avro", &["sinks"]),
    ("rumqttc", &["sources", "sinks"]),
    ("rumqttc-v4-next", &["sources", "sinks"]),
    ("rumqttc-v5-next", &["sources", "sinks"]),
    ("tokio-rustls", &["net"]),
    ("zstd", &["rpc"]),
    ("rcgen", &["agent"]),
    ("clap", &["agent"]),
    ("anyhow", &["agent"]),
];

/// A crate of the workspace: its folder, and what it needs when it is built for users. What only
/// its tests need is exempt.
struct Package {
    name: String,
    folder: String,
    needs: BTreeSet<String>,
}

#[test]
fn the_host_has_the_crates_that_are_drawn() {
    let drawn: BTreeSet<_> = ARROWS
        .iter()
        .map(|(name, _)| format!("levada-{name}"))
        .collect();
    let there: BTreeSet<_> = host().into_iter().map(|package| package.name).collect();
    assert_eq!(there, drawn);
}

#[test]
fn nobody_imports_more_than_is_drawn() {
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for package in host() {
        let own = allowed
            .get(short(&package.name))
            .copied()
            .unwrap_or_default();
        for need in package
            .needs
            .iter()
            .filter(|need| need.starts_with("levada-"))
        {
            if !own.contains(&short(need)) {
                wrong.push(format!("{} -> {need}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not drawn: {wrong:#?}");
}

#[test]
fn every_outside_crate_has_one_owner() {
    let mut wrong = Vec::new();
    for package in host() {
        for (outside, owners) in OWNERS {
            if package.needs.contains(outside) && !owners.contains(&short(&package.name)) {
                wrong.push(format!(
                    "{} -> {outside}, owned by {owners:?}",
                    package.name
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "outside crates imported by others than their owner: {wrong:#?}"
    );
}

#[test]
fn the_sdk_knows_nothing_of_the_host() {
    let sdk: Vec<_> = packages()
        .into_iter()
        .filter(|p| p.folder.starts_with("sdk/"))
        .collect();
    assert!(!sdk.is_empty());
    for package in sdk {
        let host = |need: &&String| need.starts_with("levada-") && !need.starts_with("levada-sdk");
        assert_eq!(package.needs.iter().find(host), None, "{}", package.name);
    }
}

#[test]
fn folders_are_words_and_crates_are_named_after_them() {
    for package in host() {
        assert_eq!(package.folder, format!("host/{}", short(&package.name)));
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("levada-").unwrap_or(name)
}

fn host() -> Vec<Package> {
    packages()
        .into_iter()
        .filter(|package| package.folder.starts_with("host/"))
        .collect()
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(levada_tests::place::root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo speaks JSON");
    let root = metadata["workspace_root"]
        .as_str()
        .expect("a root")
        .to_owned()
        + "/";
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| read_package(package, &root))
        .collect()
}

fn read_package(package: &Value, root: &str) -> Package {
    let manifest = package["manifest_path"].as_str().expect("a manifest");
    let folder = manifest
        .trim_start_matches(root)
        .trim_end_matches("/Cargo.toml")
        .to_owned();
    let ships = |need: &&Value| need["kind"].as_str() != Some("dev");
    let needs = package["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter()
        .filter(ships);
    Package {
        name: package["name"].as_str().expect("a name").to_owned(),
        folder,
        needs: needs
            .filter_map(|need| Some(need["name"].as_str()?.to_owned()))
            .collect(),
    }
}
