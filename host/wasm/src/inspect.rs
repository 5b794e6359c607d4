//! Looking at a component without compiling it: what it can do, what it wants, what it would get.

use ring::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use wasmparser::{ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload};

use crate::grants::Grant;

/// The largest component that is loaded (security model 4.3).
pub(crate) const LARGEST_COMPONENT: usize = 32 << 20;

/// The custom section that `levada handler build` writes.
const MANIFEST: &str = "levada:manifest";

/// What is known about a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    /// `sha256:` and the digest of the bytes in lower-case hex.
    pub digest: String,
    pub bytes: usize,
    /// What it can be used as in this version, the preferred form first.
    pub roles: Vec<Role>,
    /// Every import, in the order of the component.
    pub imports: Vec<Import>,
    /// Every export's name.
    pub exports: Vec<String>,
    /// The text of its `levada:manifest` section, if it has one.
    pub manifest: Option<String>,
}

/// What a component can be used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Exports `levada:handler/packed-interceptor`.
    PackedInterceptor,
    /// Exports `levada:handler/interceptor`.
    Interceptor,
    /// Exports `levada:handler/packed-sink`.
    PackedSink,
    /// Exports `levada:handler/sink`.
    Sink,
    /// Exports `levada:handler/source`.
    Source,
}

impl Role {
    /// Every role, the preferred form of each first.
    pub(crate) const ALL: [Self; 5] = [
        Self::PackedInterceptor,
        Self::Interceptor,
        Self::PackedSink,
        Self::Sink,
        Self::Source,
    ];

    /// Whether it gives events away.
    #[must_use]
    pub fn is_sink(self) -> bool {
        match self {
            Self::PackedSink | Self::Sink => true,
            Self::PackedInterceptor | Self::Interceptor | Self::Source => false,
        }
    }

    /// Whether it stands between others; a sink and a source have their other side outside.
    pub(crate) fn is_interceptor(self) -> bool {
        match self {
            Self::PackedInterceptor | Self::Interceptor => true,
            Self::PackedSink | Self::Sink | Self::Source => false,
        }
    }

    /// The function of the interface.
    pub(crate) fn function(self) -> &'static str {
        match self {
            Self::PackedInterceptor | Self::Interceptor => "intercept",
            Self::PackedSink | Self::Sink => "deliver",
            Self::Source => "poll",
        }
    }

    /// The interface's name in `levada:handler`.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::PackedInterceptor => "packed-interceptor",
            Self::Interceptor => "interceptor",
            Self::PackedSink => "packed-sink",
            Self::Sink => "sink",
            Self::Source => "source",
        }
    }
}

/// One import of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    pub name: String,
    pub given: Given,
}

/// What a component gets for an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Given {
    /// It works, without any grant.
    Always,
    /// It is there and does nothing.
    Inert,
    /// It works once the operator grants it; the text is the line that does.
    Granted(String),
    /// It is refused; the text says what to do.
    Refused(String),
}

/// Why bytes are no component that could ever be a handler.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InspectError {
    #[error("the component has {bytes} bytes, more than the {allowed} allowed")]
    TooLarge { bytes: usize, allowed: usize },
    #[error("this is a core WebAssembly module, not a component")]
    CoreModule,
    #[error("this is text, not a component")]
    Text,
    #[error("this is not WebAssembly")]
    Foreign,
    #[error("the component is damaged at byte {at}: {reason}")]
    Damaged { at: u64, reason: String },
}

impl InspectError {
    /// What to do next.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "strip it, or build it with optimisation for size",
            Self::CoreModule => {
                "build it with `levada handler build`, for the target `wasm32-wasip2`, or make a \
                 component of it with `wasm-tools component new`"
            }
            Self::Text => "the binary is wanted: for WAT text, `wasm-tools parse` makes it",
            Self::Foreign => "give the path of a `.wasm` file",
            Self::Damaged { .. } => "build it again, or copy it again",
        }
    }
}

impl Inspection {
    /// The digest's first 12 hex digits, enough to tell versions apart.
    #[must_use]
    pub fn short_digest(&self) -> &str {
        short(&self.digest)
    }

    /// The grants that it makes use of for certain: keys under `grants`. Clocks and random numbers
    /// are not among them, since run-time libraries import them whether they are used or not.
    #[must_use]
    pub fn uses(&self) -> Vec<&'static str> {
        Grant::used_for_certain(self)
    }

    /// Whether it has an import that a grant is for.
    #[must_use]
    pub fn may_use(&self, grant: &str) -> bool {
        Grant::may_be_used(self, grant)
    }

    /// What keeps it from being loaded: each refused import with what to do.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.imports
            .iter()
            .filter_map(|import| match &import.given {
                Given::Refused(why) => Some((import.name.as_str(), why.as_str())),
                Given::Always | Given::Inert | Given::Granted(_) => None,
            })
    }
}

/// Looks at a component. Reads its sections' names only: nothing is compiled, little is allocated.
///
/// # Errors
/// [`InspectError`]
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    if bytes.len() > LARGEST_COMPONENT {
        return Err(InspectError::TooLarge {
            bytes: bytes.len(),
            allowed: LARGEST_COMPONENT,
        });
    }
    if !bytes.starts_with(b"\0asm") {
        let text = std::str::from_utf8(bytes).is_ok() && !bytes.is_empty();
        return Err(if text {
            InspectError::Text
        } else {
            InspectError::Foreign
        });
    }
    let mut found = Inspection {
        digest: digest_of(bytes),
        bytes: bytes.len(),
        roles: Vec::new(),
        imports: Vec::new(),
        exports: Vec::new(),
        manifest: None,
    };
    read(bytes, &mut found)?;
    for role in Role::ALL {
        if found
            .exports
            .iter()
            .any(|name| is_ours(name, role.interface()))
        {
            found.roles.push(role);
        }
    }
    Ok(found)
}

/// The first 12 hex digits of a digest.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(7..19).unwrap_or(digest)
}

/// `sha256:` and the digest in lower-case hex.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    format!("sha256:{}", hex(digest.as_ref()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Whether `name` is this interface of ours in a version that this host speaks.
pub(crate) fn is_ours(name: &str, interface: &str) -> bool {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    path.strip_prefix("levada:handler/") == Some(interface) && version.starts_with("0.1.")
}

fn read(bytes: &[u8], found: &mut Inspection) -> Result<(), InspectError> {
    let damaged = |error: wasmparser::BinaryReaderError| InspectError::Damaged {
        at: error.offset() as u64,
        reason: error.message().to_owned(),
    };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(InspectError::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(damaged)?;
                    // Types alone need nothing from the host.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        found.imports.push(judge(import.name.name));
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    if export.kind == ComponentExternalKind::Instance {
                        found.exports.push(export.name.name.to_owned());
                    }
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == MANIFEST => {
                found.manifest = Some(String::from_utf8_lossy(section.data()).into_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Interfaces of ours that every handler gets.
const OURS: [&str; 7] = [
    "types", "outcomes", "call", "logging", "settings", "text", "metrics",
];

/// Interfaces of ours that are there once they are granted.
const GRANTED: [&str; 4] = ["state", "http-client", "lookup", "secrets"];

/// The interfaces of `wasi:cli/imports` in 0.2.
const WASI: [&str; 29] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/timezone",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/network",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
    "clocks/types",
];

/// Decides what a component gets for an import of this name.
fn judge(name: &str) -> Import {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let ours = path.strip_prefix("levada:handler/");
    let wasi = path.strip_prefix("wasi:");
    let speaks = |version: &str| Given::Refused(format!("this host speaks {version}"));
    let given = match (ours, wasi, Grant::of_import(path)) {
        (Some(word), _, _) if OURS.contains(&word) && version.starts_with("0.1.") => Given::Always,
        (Some(word), _, Some(grant)) if GRANTED.contains(&word) && version.starts_with("0.1.") => {
            Given::Granted(grant.line().to_owned())
        }
        (Some(word), _, _) if OURS.contains(&word) || GRANTED.contains(&word) => {
            speaks("0.1 of `levada:handler`")
        }
        (_, _, Some(grant)) => Given::Refused(format!(
            "the line `{}` would grant it, but it is not in this version",
            grant.line()
        )),
        (_, Some(word), _) if WASI.contains(&word) && version.starts_with("0.2.") => Given::Inert,
        (_, Some(word), _) if WASI.contains(&word) => speaks("0.2 of WASI"),
        _ => Given::Refused("not in this version".into()),
    };
    Import {
        name: name.to_owned(),
        given,
    }
}
