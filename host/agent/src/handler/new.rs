//! `levada handler new`: a project that builds and has a test.
//!
//! The project carries the SDK's sources and the contract with it, so that it builds on a machine
//! with cargo and nothing else, with or without a network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::sdk;
use crate::output::say;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada handler new my-filter
  levada handler new my-filter --sdk ../levada/sdk/rust     use sources of the SDK elsewhere

The project holds the SDK under vendor/levada-sdk; nothing is downloaded.")]
pub(crate) struct NewArgs {
    /// The handler's name: lower-case letters, digits and `-`
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// The language to write it in
    #[arg(long, value_enum, default_value_t)]
    pub(crate) lang: Language,
    /// The project's folder; by default one of the handler's name, here
    #[arg(long, value_name = "FOLDER")]
    pub(crate) into: Option<PathBuf>,
    /// The folder of the SDK's sources, instead of a copy in the project
    #[arg(long, value_name = "FOLDER")]
    pub(crate) sdk: Option<PathBuf>,
}

/// Languages that there is a template for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    #[default]
    Rust,
}

/// The project's own files, with `{{name}}` and `{{sdk}}` to fill in.
const RUST: &[(&str, &str)] = &[
    (
        ".cargo/config.toml",
        include_str!("template/rust/config.toml.in"),
    ),
    (".gitignore", include_str!("template/rust/gitignore.in")),
    ("Cargo.toml", include_str!("template/rust/Cargo.toml.in")),
    ("README.md", include_str!("template/rust/README.md.in")),
    ("levada.toml", include_str!("template/rust/levada.toml.in")),
    ("src/lib.rs", include_str!("template/rust/lib.rs.in")),
    ("src/tests.rs", include_str!("template/rust/tests.rs.in")),
    (
        "wit/handler.wit",
        include_str!("../../../../wit/handler.wit"),
    ),
];

/// Makes the project.
///
/// # Errors
/// If the folder is there and not empty, the SDK is not where `--sdk` says, or a file cannot be
/// written.
pub(crate) fn run(args: &NewArgs) -> Result<()> {
    let Language::Rust = args.lang;
    let folder = args
        .into
        .clone()
        .unwrap_or_else(|| PathBuf::from(&args.name));
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("`{}` is there already and not empty", folder.display());
    }
    let sdk = match &args.sdk {
        Some(sdk) => elsewhere(sdk)?,
        None => {
            for (path, bytes) in sdk::FILES {
                write(&folder.join(sdk::FOLDER).join(path), bytes)?;
            }
            sdk::FOLDER.to_owned()
        }
    };
    for (path, template) in RUST {
        let text = template
            .replace("{{name}}", &args.name)
            .replace("{{sdk}}", &quoted(&sdk)?);
        write(&folder.join(path), text.as_bytes())?;
    }
    say(&format!(
        "made {name} in {folder}\n\
         next: cd {folder}; cargo test; levada handler build\n",
        name = args.name,
        folder = folder.display(),
    ))
}

/// The absolute path of an SDK that is not copied.
fn elsewhere(sdk: &Path) -> Result<String> {
    let manifest = sdk.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read `{}`", manifest.display()))?;
    if !text.contains("name = \"levada-sdk\"") {
        bail!("`{}` is not the manifest of levada-sdk", manifest.display());
    }
    let path = fs::canonicalize(sdk).with_context(|| format!("cannot open `{}`", sdk.display()))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("`{}` is not UTF-8", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}

/// A text in quotes. What JSON escapes, and how, is good TOML too.
fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).context("cannot write a path")
}

/// A name that is good for a crate, a file and a table of the configuration.
fn name(text: &str) -> Result<String, String> {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    let rest = text
        .chars()
        .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
    if !first || !rest || text.len() > 64 || text.ends_with('-') {
        return Err(
            "a name has 1 to 64 lower-case letters, digits and `-`, and begins with a \
                    letter"
                .to_owned(),
        );
    }
    // Words that cargo refuses as the name of a package, or that would hide a crate.
    if matches!(
        text,
        "test" | "core" | "std" | "alloc" | "levada-sdk" | "levada-sdk-macros"
    ) || matches!(
        text,
        "fn" | "mod" | "use" | "type" | "match" | "self" | "crate" | "super"
    ) {
        return Err("this name means something else to cargo".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
