//! A recording as a file: JSON, one object a line.
//!
//! The first line is the call: `levada-recording` (the version of this form, 1), the handler, the
//! digest of its component, its role, its limits, the events. Then a line for each question, in
//! order: `ask`, `with`, and `answer` unless the call ended there. Then `end`: what the guest
//! answered, or why the call failed. The last line has the SHA-256 of all lines before it. Bytes
//! that are no text are `{"base64":"..."}`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::Exchange;
use crate::{Limits, Role, broken::Broken, event::EventText, inspect::digest_of};

/// The version of the form.
const VERSION: u32 = 1;

/// The largest file that is read.
const LARGEST_FILE: u64 = 128 << 20;

/// One call of a handler with all that it was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    pub(crate) head: Head,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) end: End,
}

/// What is known before the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Head {
    pub(crate) levada_recording: u32,
    /// The version that recorded it.
    pub(crate) host: String,
    pub(crate) at_ms: u64,
    pub(crate) handler: String,
    /// The digest of its component, and where that was.
    pub(crate) digest: String,
    pub(crate) component: PathBuf,
    pub(crate) role: Role,
    /// The source or sink it ran on.
    pub(crate) on: String,
    pub(crate) limits: Limits,
    /// Where the secrets are configured that asterisks stand for.
    #[serde(default)]
    pub(crate) masked: Vec<String>,
    pub(crate) events: Vec<EventText>,
}

impl Head {
    /// The version that is written.
    pub(crate) const VERSION: u32 = VERSION;
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct End {
    /// What the guest answered, if it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<Value>,
    /// Why the call failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<Fault>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backtrace: Option<String>,
}

impl From<&Broken> for Fault {
    fn from(broken: &Broken) -> Self {
        Self {
            reason: broken.reason.clone(),
            limit: broken.limit.map(|limit| limit.as_str().to_owned()),
            backtrace: broken.backtrace.clone(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct EndLine {
    end: End,
}

#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    sha256: String,
}

/// Why a file is no recording.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordingError {
    #[error("cannot read the recording `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the recording `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("`{path}` is no recording: `levada handler run --record FILE` makes one")]
    Foreign { path: PathBuf },
    #[error(
        "`{path}` is a recording of form {version}, this levada reads form {VERSION}: replay it \
         with the levada that made it, version {host}"
    )]
    Version {
        path: PathBuf,
        version: u64,
        host: String,
    },
    #[error("the recording `{path}` is damaged: {why}; copy it again")]
    Damaged { path: PathBuf, why: String },
}

impl Recording {
    /// The digest of the component it was made with.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.head.digest
    }

    /// Where that component was.
    #[must_use]
    pub fn component(&self) -> &Path {
        &self.head.component
    }

    /// The handler's name.
    #[must_use]
    pub fn handler(&self) -> &str {
        &self.head.handler
    }

    /// How many events the call had.
    #[must_use]
    pub fn events(&self) -> usize {
        self.head.events.len()
    }

    /// How many questions it answers.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.exchanges.len()
    }

    /// Where the secrets are configured that asterisks stand for.
    #[must_use]
    pub fn masked(&self) -> &[String] {
        &self.head.masked
    }

    /// Writes a file that only its owner can read, in the place of one that is there.
    ///
    /// # Errors
    /// [`RecordingError::Write`]
    pub fn write(&self, path: &Path) -> Result<(), RecordingError> {
        let beside = path.with_extension("tmp");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(&self.to_bytes()))
            .and_then(|()| fs::rename(&beside, path));
        written.map_err(|source| RecordingError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// [`RecordingError`]
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path);
        let read = file.and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut bytes));
        read.map_err(|source| RecordingError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(&bytes, path)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        line(&mut out, &self.head);
        self.exchanges.iter().for_each(|it| line(&mut out, it));
        let end = self.end.clone();
        line(&mut out, &EndLine { end });
        let sha256 = digest_of(&out);
        line(&mut out, &Seal { sha256 });
        out
    }

    fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, RecordingError> {
        let path = path.to_owned();
        let damaged = |why: &str| RecordingError::Damaged {
            path: path.clone(),
            why: why.to_owned(),
        };
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let first: Option<Value> = lines.first().and_then(|it| serde_json::from_slice(it).ok());
        let version = first
            .as_ref()
            .and_then(|it| it["levada-recording"].as_u64());
        let (Some(first), Some(version)) = (&first, version) else {
            return Err(RecordingError::Foreign { path });
        };
        if version != u64::from(VERSION) {
            let host = first["host"].as_str().unwrap_or("unknown").to_owned();
            return Err(RecordingError::Version {
                path,
                version,
                host,
            });
        }
        let [head, exchanges @ .., end, seal] = &lines[..] else {
            return Err(damaged("it ends early"));
        };
        let sealed: Seal = serde_json::from_slice(seal).map_err(|_| damaged("it ends early"))?;
        if sealed.sha256 != digest_of(&bytes[..bytes.len() - seal.len()]) {
            return Err(damaged("its checksum does not fit"));
        }
        let wrong = |error: serde_json::Error| damaged(&error.to_string());
        let end: EndLine = serde_json::from_slice(end).map_err(wrong)?;
        let exchanges = exchanges.iter().map(|it| serde_json::from_slice(it));
        Ok(Self {
            // Not by way of `Value`, which would sort the headers.
            head: serde_json::from_slice(head).map_err(wrong)?,
            exchanges: exchanges.collect::<Result<_, _>>().map_err(wrong)?,
            end: end.end,
        })
    }
}

fn line(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *out, value).expect("JSON into memory cannot fail");
    out.push(b'\n');
}
