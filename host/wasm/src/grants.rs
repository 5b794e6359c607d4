//! What the operator lets a handler use beside its own batch and settings.
//!
//! A capability is two-sided: the component imports it and a line of the configuration grants it.
//! An import without its grant is refused when the handler is loaded; a grant without its import
//! is worth a warning.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use levada_core::{ByteSize, Problem, Problems, Secret, Table, Value, params, settings::Setting};
use url::Url;

use crate::inspect::{Given, Inspection};

params! {
    /// What a handler may use.
    pub struct GrantParams {
        /// State of its own that outlives the process; at most so much of it.
        pub state: Option<ByteSize>,
        /// Where it may send requests; what is called must begin with one of these.
        pub http: Option<Vec<Destination>>,
        /// Networks that are private, local or reserved and may be called nevertheless.
        pub allow_private: Option<Vec<Network>>,
        /// Tables that it may look things up in, by the names it knows them under.
        pub lookup: Option<BTreeMap<String, LookupParams>>,
        /// Secrets that it may read, by the names it knows them under.
        pub secrets: Option<BTreeMap<String, Secret>>,
        /// Whether its clocks are real; else they stand still within a call.
        pub wall_clock: bool = false,
        /// Whether its random numbers are the system's; else they come from a seed.
        pub random: bool = false,
    }
}

params! {
    /// A table to look things up in: a CSV file with a header row, or a JSON file.
    pub struct LookupParams {
        /// The file, `.csv` or `.json`; read again when it changes.
        pub file: PathBuf,
        /// The column or member that rows are found by; of a CSV file the first if not set.
        pub key: Option<String>,
    }
}

params! {
    /// A header that the host adds to requests to a destination. The handler never sees it.
    pub struct CredentialParams {
        /// The header's name.
        pub header: String = "authorization",
        /// Its value.
        pub value: Secret,
    }
}

/// What a handler may use, checked. Nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// Most bytes of state; `None`: it has none.
    pub state: Option<ByteSize>,
    pub http: Vec<Destination>,
    pub allow_private: Vec<Network>,
    pub lookup: BTreeMap<String, LookupParams>,
    pub secrets: BTreeMap<String, Secret>,
    pub wall_clock: bool,
    pub random: bool,
}

impl From<GrantParams> for Grants {
    fn from(params: GrantParams) -> Self {
        Self {
            state: params.state,
            http: params.http.unwrap_or_default(),
            allow_private: params.allow_private.unwrap_or_default(),
            lookup: params.lookup.unwrap_or_default(),
            secrets: params.secrets.unwrap_or_default(),
            wall_clock: params.wall_clock,
            random: params.random,
        }
    }
}

/// One thing that can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    State,
    Http,
    Lookup,
    Secrets,
    WallClock,
    Random,
}

impl Grant {
    const ALL: [Self; 6] = [
        Self::State,
        Self::Http,
        Self::Lookup,
        Self::Secrets,
        Self::WallClock,
        Self::Random,
    ];

    /// Its key under `grants`.
    fn key(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Http => "http",
            Self::Lookup => "lookup",
            Self::Secrets => "secrets",
            Self::WallClock => "wall-clock",
            Self::Random => "random",
        }
    }

    /// The line that gives it.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::State => r#"grants = { state = "1MiB" }"#,
            Self::Http => r#"grants = { http = ["https://host:443/path"] }"#,
            Self::Lookup => r#"grants = { lookup = { TABLE = { file = "/path/to/table.csv" } } }"#,
            Self::Secrets => r#"grants = { secrets = { NAME = "${file:/path/to/secret}" } }"#,
            Self::WallClock => "grants = { wall-clock = true }",
            Self::Random => "grants = { random = true }",
        }
    }

    /// What an import needs, by its name without a version; `None` if it needs none.
    pub(crate) fn of_import(path: &str) -> Option<Self> {
        Some(match path {
            "levada:handler/state" => Self::State,
            "levada:handler/http-client" | "wasi:http/types" | "wasi:http/outgoing-handler" => {
                Self::Http
            }
            "levada:handler/lookup" => Self::Lookup,
            "levada:handler/secrets" => Self::Secrets,
            _ => return None,
        })
    }

    /// Whether an import, by its name without a version, makes use of it.
    fn is_used_by(self, path: &str) -> bool {
        match self {
            Self::WallClock => path.starts_with("wasi:clocks/"),
            Self::Random => path.starts_with("wasi:random/"),
            Self::State | Self::Http | Self::Lookup | Self::Secrets => {
                Self::of_import(path) == Some(self)
            }
        }
    }

    fn is_imported(self, seen: &Inspection) -> bool {
        let mut imports = seen.imports.iter();
        imports.any(|import| self.is_used_by(path_of(&import.name)))
    }

    /// The keys of those that a component cannot but use.
    pub(crate) fn used_for_certain(seen: &Inspection) -> Vec<&'static str> {
        let certain = [Self::State, Self::Http, Self::Lookup, Self::Secrets].into_iter();
        let used = certain.filter(|grant| grant.is_imported(seen));
        used.map(Self::key).collect()
    }

    /// Whether a component has an import that the grant of that key is for.
    pub(crate) fn may_be_used(seen: &Inspection, key: &str) -> bool {
        let mut all = Self::ALL.into_iter();
        all.any(|grant| grant.key() == key && grant.is_imported(seen))
    }

    fn is_in(self, grants: &Grants) -> bool {
        match self {
            Self::State => grants.state.is_some(),
            Self::Http => !grants.http.is_empty(),
            Self::Lookup => !grants.lookup.is_empty(),
            Self::Secrets => !grants.secrets.is_empty(),
            Self::WallClock => grants.wall_clock,
            Self::Random => grants.random,
        }
    }
}

impl Grants {
    /// The imports of a component that would need a grant that is not here, with what to do.
    pub(crate) fn missing(&self, seen: &Inspection) -> Vec<(String, String)> {
        let missing = |import: &&crate::Import| match import.given {
            Given::Granted(_) => {
                Grant::of_import(path_of(&import.name)).is_some_and(|grant| !grant.is_in(self))
            }
            Given::Always | Given::Inert | Given::Refused(_) => false,
        };
        let line = |import: &crate::Import| match &import.given {
            Given::Granted(line) => (
                import.name.clone(),
                format!("not granted; this line grants it: `{line}`"),
            ),
            Given::Always | Given::Inert | Given::Refused(_) => Default::default(),
        };
        seen.imports.iter().filter(missing).map(line).collect()
    }

    /// The keys of what is granted.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        let granted = Grant::ALL.into_iter().filter(|grant| grant.is_in(self));
        granted.map(Grant::key).collect()
    }

    /// The keys of grants that the component has no use for.
    pub(crate) fn unused(&self, seen: &Inspection) -> Vec<&'static str> {
        let unused = Grant::ALL.into_iter();
        let unused = unused.filter(|grant| grant.is_in(self) && !grant.is_imported(seen));
        unused.map(Grant::key).collect()
    }
}

fn path_of(import: &str) -> &str {
    import.split_once('@').map_or(import, |(path, _)| path)
}

/// Where requests may go: scheme, host, port, and what the path must begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// `http` or `https`.
    pub scheme: String,
    /// A name in lower case and ASCII, or an address; an IPv6 one in brackets.
    pub host: String,
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
}

impl Destination {
    /// Reads a URL without user, query and fragment; `None` if it is none or has one of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let web = matches!(url.scheme(), "http" | "https");
        // An `@` without a user before it is not seen in what was parsed.
        if !web || !plain || text.contains('@') {
            return None;
        }
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
            path: url.path().to_owned(),
        })
    }
}

impl Destination {
    /// Whether scheme, host and port are the same.
    #[must_use]
    pub fn is_same_host(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.scheme.clone(), it.host.clone(), it.port);
        of(self) == of(other)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            host,
            port,
            path,
        } = self;
        write!(f, "{scheme}://{host}:{port}{path}")
    }
}

impl Setting for Destination {
    fn allowed() -> String {
        "a URL without user and query, such as \"https://api.example:443/v1\"".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let read = value.text().and_then(Self::parse);
        if read.is_none() {
            let problem = value.problem(key, "not a destination");
            problems.push(problem.allowed(Self::allowed()));
        }
        read
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Reads `10.0.0.0/8`, or a single address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let net = text.parse::<IpNet>().ok();
        let alone = || Some(IpNet::from(text.parse::<IpAddr>().ok()?));
        net.or_else(alone).map(Self)
    }

    /// Whether an address is in it; an IPv4 address that is written as IPv6 is the IPv4 one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl Setting for Network {
    fn allowed() -> String {
        "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let read = value.text().and_then(Self::parse);
        if read.is_none() {
            let problem = value.problem(key, "not a network");
            problems.push(problem.allowed(Self::allowed()));
        }
        read
    }
}

/// Reads the destinations of `credentials`: what the host adds to requests. One that nothing is
/// granted for is a problem. `table` has the places.
pub(crate) fn destinations(
    credentials: BTreeMap<String, CredentialParams>,
    granted: &[Destination],
    table: &Table,
    problems: &mut Problems,
) -> Option<Vec<(Destination, CredentialParams)>> {
    let written = table.get("credentials");
    let place = |name: &str| {
        let inner = written.and_then(|(_, value)| value.table()?.get(name));
        Some(inner.map_or(table.span, |(key, _)| key.span))
    };
    let mut read = Vec::new();
    let mut whole = true;
    for (name, credential) in credentials {
        let key = format!("{}.{name:?}", table.path_of("credentials"));
        let Some(destination) = Destination::parse(&name) else {
            let problem = Problem::error(place(&name), key, "not a destination");
            problems.push(problem.allowed(Destination::allowed()));
            whole = false;
            continue;
        };
        if !granted.iter().any(|other| other.is_same_host(&destination)) {
            let message = "no grant lets the handler call this destination";
            let problem = Problem::error(place(&name), key, message);
            problems.push(problem.help(format!("add it: grants = {{ http = [{name:?}] }}")));
            whole = false;
        }
        read.push((destination, credential));
    }
    whole.then_some(read)
}

#[cfg(test)]
mod tests;
