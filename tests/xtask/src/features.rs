//! Which cargo features there are, from `cargo metadata`.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step::{self, Workspace};

/// One feature of one crate of the workspace.
#[derive(Debug)]
pub(crate) struct Feature {
    pub(crate) package: String,
    pub(crate) name: String,
}

/// Every feature of the host's crates but `default`, and one row without a name for each crate that
/// has any: it must also build with none.
pub(crate) fn of_host(workspace: &Workspace) -> Result<Vec<Feature>> {
    let mut cargo = workspace.cargo(["metadata", "--format-version", "1", "--no-deps"]);
    let text = step::read(&mut cargo, "mend the `Cargo.toml` named above")?;
    let metadata: Value = serde_json::from_str(&text).context("cannot read cargo's metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo's metadata has no packages")?;
    let mut rows = Vec::new();
    for package in packages {
        let (Some(name), Some(features)) =
            (package["name"].as_str(), package["features"].as_object())
        else {
            continue;
        };
        if !name.starts_with("levada-") || features.is_empty() {
            continue;
        }
        let names = features
            .keys()
            .map(String::as_str)
            .filter(|feature| *feature != "default");
        rows.extend([""].into_iter().chain(names).map(|feature| Feature {
            package: name.to_owned(),
            name: feature.to_owned(),
        }));
    }
    Ok(rows)
}
