//! The table `[agent]`.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use levada_core::{
    ByteSize, Name, Params, Problems, Table, Value, choice, params, settings::Setting,
};

params! {
    /// What belongs to the process as a whole.
    pub struct AgentSettings {
        /// The agent's name, as peers, metrics and logs show it.
        pub name: Name,
        /// The data folder: the store, compiled handlers and admin.sock. Made if it is not there.
        pub data: PathBuf,
        /// Where health and metrics are served over TCP; everything else is on admin.sock.
        pub admin: Door = "127.0.0.1:4180",
        /// Certificates for `admin`, as `tls` of a source: `{ cert, key }`, with `ca` also the
        /// client's. With them it is HTTPS.
        pub admin_tls: Option<Table>,
        /// `production` refuses what is meant for trying things out: `insecure-skip-verify`.
        pub profile: Option<Profile>,
        /// Events that nobody can handle: how many bytes are kept, and what happens then.
        pub dead_letters: Option<DeadLetterSettings>,
        /// How long a stop in order may take; then what is left is cancelled.
        pub shutdown_deadline: Duration = "10s",
        /// Address space per handler memory: `full` is fast, `small` is for devices with little.
        pub memory_reservation: MemoryReservation = "full",
        /// Memory that the store may use to keep pages at hand.
        pub cache: ByteSize = "16MiB",
        /// What happens to a store whose file is damaged.
        pub on_corruption: OnCorruption = "quarantine",
        /// How log lines look, and which are written.
        pub log: Option<LogSettings>,
    }
    later {
        "flume-monitoring", "commit", "durability",
        "require-signature", "trusted-keys", "trusted-compilers", "watch"
    }
}

params! {
    /// The table of dead letters.
    pub struct DeadLetterSettings {
        /// Most bytes of dead letters.
        pub capacity: ByteSize = "64MiB",
        /// What happens to one more.
        pub on_full: DeadLettersFull = "block",
    }
}

choice! {
    /// What happens when there is no room for a dead letter.
    pub enum DeadLettersFull {
        /// The flow waits.
        Block = "block",
        /// The oldest goes, counted.
        DropOldest = "drop-oldest",
    }
}

choice! {
    /// What an agent is for.
    pub enum Profile {
        /// Risky settings are errors.
        Production = "production",
    }
}

choice! {
    /// What happens to a store whose file is damaged.
    pub enum OnCorruption {
        /// It is set aside as `store.redb.corrupt-<n>`, and a fresh one takes over.
        Quarantine = "quarantine",
        /// Nothing durable is taken or given until somebody has looked at it.
        Halt = "halt",
    }
}

choice! {
    /// How much address space a handler's memory reserves.
    pub enum MemoryReservation {
        /// 4 GiB each.
        Full = "full",
        /// What it uses, at a cost of about a third of the speed.
        Small = "small",
    }
}

params! {
    /// Logs on standard error.
    pub struct LogSettings {
        /// For people or for programs.
        pub format: LogLook = "human",
        /// As in RUST_LOG: `info`, `levada_store=debug,info`.
        pub filter: String = "info",
    }
}

choice! {
    /// How log lines look.
    pub enum LogLook {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        defaults()
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        defaults()
    }
}

/// Settings whose every key may be left out.
pub(crate) fn defaults<P: Params>() -> P {
    P::read_fields(&Table::default(), &mut Problems::new()).expect("every key has a default")
}

/// A TCP door for operators: an address, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    At(SocketAddr),
    Off,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl Setting for Door {
    fn allowed() -> String {
        format!("{}, or \"off\"", SocketAddr::allowed())
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let text = value.text().unwrap_or_default();
        if text == "off" {
            return Some(Self::Off);
        }
        let read = text.parse().ok().map(Self::At);
        if read.is_none() {
            let problem = value.problem(key, "not an address");
            problems.push(problem.allowed(Self::allowed()));
        }
        read
    }
}
