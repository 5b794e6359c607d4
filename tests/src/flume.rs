//! Apache Flume as published: its agents, its command-line client and its SDK, as processes.
//!
//! `cargo x peers fetch` puts the jars below `target/peers`.

mod agent;
mod certificates;
mod client;
mod files;
mod properties;
mod wire;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use tokio::process::Command;

pub use crate::flume::{
    agent::FlumeAgent,
    certificates::Certificates,
    client::{Answer, SdkClient, avro_client},
    files::read_containers,
    properties::{FlumeChannel, FlumeFlow, FlumeSink, properties},
    wire::Wire,
};
use crate::place;

/// A release of Flume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// The last with the old Avro and Netty.
    V1_9,
    /// The newest.
    V1_11,
}

impl Version {
    /// Each that the tests meet.
    pub const ALL: [Self; 2] = [Self::V1_9, Self::V1_11];

    /// As Maven names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_9 => "1.9.0",
            Self::V1_11 => "1.11.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How Java runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Starts fast and takes little beside other programs.
    Small,
    /// As it comes, with half a gigabyte of memory: for measurements.
    Usual,
}

impl Machine {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Small => &["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"],
            Self::Usual => &["-Xmx512m"],
        }
    }
}

/// The jars of one version.
#[derive(Debug, Clone)]
pub struct Flume {
    pub version: Version,
    folder: PathBuf,
}

impl Flume {
    /// Finds the jars.
    ///
    /// # Errors
    /// They were not fetched.
    pub fn find(version: Version) -> Result<Self> {
        let folder = place::target().join(format!("peers/flume-{version}"));
        if !folder.join("complete").exists() {
            bail!(
                "Flume {version} is not in `{}`; `cargo x peers fetch` brings it, with Java 17 and \
                 Maven",
                folder.display()
            );
        }
        Ok(Self { version, folder })
    }

    /// A Java command with all jars, and before them the folder `settings`, where it finds how to
    /// log.
    fn java(&self, settings: &Path, machine: Machine) -> Command {
        let mut command = Command::new("java");
        command.args(machine.options());
        let jars = self.folder.join("lib/*");
        let own = self.folder.join("client");
        let folders = [settings, &jars, &own].map(|path| path.display().to_string());
        command.args(["-cp", &folders.join(":")]);
        command
    }
}
