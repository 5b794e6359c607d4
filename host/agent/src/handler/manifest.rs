//! What a component says about itself: read from `levada.toml`, kept in its section
//! `levada:manifest` as JSON.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};
use levada_core::{ByteSize, settings::nearest};
use levada_wasm::Inspection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The file of a project.
const FILE: &str = "levada.toml";

/// The name of the section.
const SECTION: &str = "levada:manifest";

/// The version of the section's form.
const FORM: u32 = 1;

/// What a component can be granted: the keys under `grants`.
const USES: [&str; 6] = ["http", "lookup", "random", "secrets", "state", "wall-clock"];

/// What `levada.toml` holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    #[serde(default)]
    handler: HandlerKeys,
    /// Each setting in the words of JSON Schema.
    #[serde(default)]
    settings: BTreeMap<String, toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HandlerKeys {
    lowest_host: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    uses: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest<'a> {
    manifest: u32,
    name: &'a str,
    version: &'a str,
    lowest_host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<&'a str>,
    uses: &'a [String],
    settings: Value,
}

/// Reads the project's `levada.toml`; a project without one says nothing special.
///
/// # Errors
/// If the file cannot be read, or something in it is wrong.
pub(super) fn read(project: &Path) -> Result<About> {
    let path = project.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(About::default()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
    };
    parse(&text).with_context(|| format!("`{}` is wrong", path.display()))
}

fn parse(text: &str) -> Result<About> {
    let about: About = toml::from_str(text)?;
    let HandlerKeys {
        lowest_host,
        memory,
        uses,
    } = &about.handler;
    if let Some(word) = uses.iter().find(|word| !USES.contains(&word.as_str())) {
        let near = nearest(word, USES).map(|near| format!("; did you mean `{near}`?"));
        let near = near.unwrap_or_default();
        bail!(
            "`uses`: there is no `{word}`, but {}{near}",
            USES.join(", ")
        );
    }
    if let Some(memory) = memory
        && ByteSize::parse(memory).is_none()
    {
        bail!("`memory`: `{memory}` is no size; write it like `16MiB`");
    }
    if let Some(lowest) = lowest_host
        && !is_version(lowest)
    {
        bail!("`lowest-host`: `{lowest}` is no version; write it like `0.1.0`");
    }
    Ok(about)
}

impl About {
    /// Compares what a component imports with `uses`: what stands there and is not imported.
    ///
    /// # Errors
    /// It imports what `uses` does not say: who installs it would be told too little.
    pub(super) fn compare(&self, seen: &Inspection) -> Result<Vec<&str>> {
        let uses = &self.handler.uses;
        let imported = seen.uses().into_iter();
        let unsaid: Vec<_> = imported
            .filter(|key| !uses.iter().any(|it| it == key))
            .collect();
        if !unsaid.is_empty() {
            let all: Vec<_> = uses
                .iter()
                .map(String::as_str)
                .chain(unsaid.clone())
                .collect();
            bail!(
                "the component imports what `uses` in levada.toml does not say: {}; write \
                 uses = {}",
                unsaid.join(", "),
                json!(all)
            );
        }
        let unused = uses.iter().map(String::as_str);
        Ok(unused.filter(|key| !seen.may_use(key)).collect())
    }

    /// The manifest's text.
    ///
    /// # Errors
    /// If a setting cannot be written as JSON.
    pub(super) fn manifest(&self, name: &str, version: &str) -> Result<String> {
        let settings = serde_json::to_value(&self.settings).context("`settings` is no JSON")?;
        let manifest = Manifest {
            manifest: FORM,
            name,
            version,
            lowest_host: self
                .handler
                .lowest_host
                .as_deref()
                .unwrap_or(env!("CARGO_PKG_VERSION")),
            memory: self.handler.memory.as_deref(),
            uses: &self.handler.uses,
            settings: json!({
                "type": "object",
                "properties": settings,
                "additionalProperties": false,
            }),
        };
        serde_json::to_string(&manifest).context("cannot write the manifest")
    }
}

/// Adds the manifest as a custom section at the end of a component.
///
/// # Errors
/// If the component has one already: it was not made by the project's own build.
pub(super) fn add(mut component: Vec<u8>, manifest: &str) -> Result<Vec<u8>> {
    if levada_wasm::inspect(&component).is_ok_and(|found| found.manifest.is_some()) {
        bail!("the component has a section `{SECTION}` already");
    }
    let name_len = leb128(SECTION.len());
    let size = name_len.len() + SECTION.len() + manifest.len();
    component.push(0);
    component.extend(leb128(size));
    component.extend(name_len);
    component.extend_from_slice(SECTION.as_bytes());
    component.extend_from_slice(manifest.as_bytes());
    Ok(component)
}

/// An unsigned number as WebAssembly writes it.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Three numbers with dots between them.
fn is_version(text: &str) -> bool {
    let numbers: Vec<_> = text.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests;
