//! What can be set about TLS.

use std::path::PathBuf;

use levada_core::{
    Problem, Problems, Table, choice, params,
    settings::{Span, parse_params},
};
use rustls::{DEFAULT_VERSIONS, SupportedProtocolVersion, pki_types::ServerName, version::TLS12};

params! {
    /// Certificates of a listener.
    pub struct ListenerTls {
        /// This side's certificate and those above it (PEM); read again when the file changes.
        pub cert: PathBuf,
        /// The key of `cert` (PEM).
        pub key: PathBuf,
        /// Who may sign the certificates of peers (PEM); with it peers must show one.
        pub ca: Option<PathBuf>,
        /// Certificates that are not believed any more, though not expired: a list (PEM) from each
        /// authority in `ca`. Read again when the file changes; for new connections.
        pub crl: Option<PathBuf>,
        /// With `ca`: whether a peer may come without a certificate, as a Flume does. What it shows
        /// is checked in any case.
        pub client_auth: Option<ClientAuth>,
        /// The newest TLS that is spoken. "1.2" is for peers that say they speak 1.3 and get stuck in
        /// its handshake, as a Flume 1.9 on a Java of today.
        pub max_version: TlsVersion = "1.3",
    }
}

choice! {
    /// A version of TLS. Older ones are never spoken.
    pub enum TlsVersion {
        /// RFC 5246.
        V1_2 = "1.2",
        /// RFC 8446, and 1.2 with peers that know no better.
        V1_3 = "1.3",
    }
}

choice! {
    /// Whether a peer must show a certificate.
    pub enum ClientAuth {
        /// No certificate, no connection.
        Required = "required",
        /// A peer without one is not authenticated.
        Optional = "optional",
    }
}

params! {
    /// Certificates of a client.
    pub struct ClientTls {
        /// Who may sign the server's certificate (PEM); without it whom the machine trusts.
        pub ca: Option<PathBuf>,
        /// This side's certificate and those above it (PEM); read again when the file changes.
        pub cert: Option<PathBuf>,
        /// The key of `cert` (PEM).
        pub key: Option<PathBuf>,
        /// Certificates that are not believed any more, though not expired: a list (PEM) from each
        /// authority in `ca`. Read again when the file changes; for new connections.
        pub crl: Option<PathBuf>,
        /// The name that the server's certificate must have; by default the host it is reached by.
        pub server_name: Option<String>,
        /// Whether any server is believed to be the right one. Anybody on the way can then read and
        /// change everything.
        pub insecure_skip_verify: bool = false,
        /// The newest TLS that is spoken: "1.2" for servers that get stuck with 1.3.
        pub max_version: TlsVersion = "1.3",
    }
}

static ONLY_OLD: [&SupportedProtocolVersion; 1] = [&TLS12];

impl TlsVersion {
    /// What is offered to a peer if this is the newest.
    pub(super) fn and_older(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::V1_2 => &ONLY_OLD,
            Self::V1_3 => DEFAULT_VERSIONS,
        }
    }
}

impl ListenerTls {
    /// Reads the table of these keys itself, and finds everything that is wrong with it.
    pub fn read(table: &Table, problems: &mut Problems) -> Option<Self> {
        let read: Self = parse_params(table, &[], problems)?;
        read.check_inside(table, problems);
        Some(read)
    }

    /// Finds what is wrong beyond single keys with the key `tls` of a part's table.
    pub fn check(&self, part: &Table, problems: &mut Problems) {
        if let Some(table) = inside(part) {
            self.check_inside(table, problems);
        }
    }

    fn check_inside(&self, table: &Table, problems: &mut Problems) {
        if self.client_auth.is_some() && self.ca.is_none() {
            let message = "says how to check peers, and there is no `ca` to check them with";
            problems.push(problem(table, "client-auth", message));
        }
        check_crl(table, (&self.crl, &self.ca), problems);
    }
}

impl Default for ClientTls {
    /// Whom the machine trusts; no certificate of its own.
    fn default() -> Self {
        Self {
            ca: None,
            cert: None,
            key: None,
            crl: None,
            server_name: None,
            insecure_skip_verify: false,
            max_version: TlsVersion::V1_3,
        }
    }
}

impl ClientTls {
    /// Finds what is wrong beyond single keys with the key `tls` of a part's table.
    pub fn check(&self, part: &Table, problems: &mut Problems) {
        let Some(table) = inside(part) else {
            return;
        };
        if self.cert.is_some() != self.key.is_some() {
            let message = "`cert` and `key` go together";
            let key = if self.cert.is_some() { "cert" } else { "key" };
            problems.push(problem(table, key, message));
        }
        check_crl(table, (&self.crl, &self.ca), problems);
        let name = self.server_name.as_deref();
        if name.is_some_and(|name| ServerName::try_from(name).is_err()) {
            let problem = problem(table, "server-name", "not a name that a server can have");
            problems.push(problem.allowed("a DNS name or an address, without a port"));
        }
        if self.insecure_skip_verify {
            let message = "any server is believed to be the right one";
            let key = "insecure-skip-verify";
            let problem = Problem::warning(span(table, key), table.path_of(key), message);
            problems.push(problem.help(
                "anybody on the way can read and change what is sent; name the authority with `ca`",
            ));
        }
    }
}

/// A list is from an authority that is named: all of a list's authority's certificates are looked up
/// in it, and those of others are refused.
fn check_crl(
    table: &Table,
    (crl, ca): (&Option<PathBuf>, &Option<PathBuf>),
    problems: &mut Problems,
) {
    if crl.is_some() && ca.is_none() {
        let message = "says which certificates are revoked, and there is no `ca` that could have \
                       signed them";
        problems.push(problem(table, "crl", message));
    }
}

/// The table under `tls` of a part.
fn inside(part: &Table) -> Option<&Table> {
    part.get("tls").and_then(|(_, value)| value.table())
}

fn problem(table: &Table, key: &str, message: &str) -> Problem {
    Problem::error(span(table, key), table.path_of(key), message)
}

fn span(table: &Table, key: &str) -> Option<Span> {
    Some(table.get(key).map_or(table.span, |(_, value)| value.span))
}
