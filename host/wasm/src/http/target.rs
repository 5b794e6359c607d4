//! Which URLs a guest may send requests to: what is looked at is what is sent.

use std::net::IpAddr;

use url::{Host, Url};

use crate::grants::Destination;

/// The longest URL that is looked at.
const LONGEST: usize = 8 << 10;

/// A URL that is granted, as it will be sent.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// Scheme, host, port and path, as grants are written.
    pub(crate) destination: Destination,
}

impl Target {
    /// Reads a guest's URL and looks for a grant.
    ///
    /// # Errors
    /// Why not, in words for the guest and the log, with the line that would grant it.
    pub(crate) fn read(text: &str, granted: &[Destination]) -> Result<Self, String> {
        let target = Self::parse(text)?;
        let wanted = &target.destination;
        let mut same_host = granted
            .iter()
            .filter(|grant| without_dot(grant).is_same_host(wanted))
            .peekable();
        let origin = origin_of(wanted);
        if same_host.peek().is_none() {
            return Err(format!(
                "`{origin}` is not granted; this line grants it: grants = {{ http = [\"{origin}\"] }}"
            ));
        }
        let mut covering = same_host.filter(|grant| covers(&grant.path, &wanted.path));
        let path = &wanted.path;
        let Some(first) = covering.next() else {
            return Err(format!(
                "`{origin}{path}` is not granted; this line grants it: \
                 grants = {{ http = [\"{origin}{path}\"] }}"
            ));
        };
        // A server may take these for separators, and what follows for another path.
        let whole = |grant: &Destination| grant.path == "/";
        if is_ambiguous(path) && !whole(first) && !covering.any(whole) {
            return Err(format!(
                "the path `{path}` has an encoded separator, and only a part of `{origin}` is granted"
            ));
        }
        Ok(target)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "a URL of {} bytes; {LONGEST} are allowed",
                text.len()
            ));
        }
        // What a parser would skip is not skipped here.
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("not a URL: it has a space or a control character".into());
        }
        let mut url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("`{}` is neither `http` nor `https`", url.scheme()));
        }
        if authority(text).contains('@') {
            return Err("a URL with a user name: bind it to the server with `credentials`".into());
        }
        url.set_fragment(None);
        if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')) {
            let name = name.to_owned();
            let set = url.set_host(Some(&name));
            set.map_err(|error| format!("not a URL: {error}"))?;
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if port == 0 {
            return Err("port 0 is no server's".into());
        }
        let destination = Destination {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port,
            path: url.path().to_owned(),
        };
        Ok(Self { url, destination })
    }

    /// The address, if the host is one and no name.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }
}

/// Host and port of a URL as it was written, with the user before them if there is one.
fn authority(text: &str) -> &str {
    let (_, rest) = text.split_once(':').unwrap_or_default();
    let rest = rest.trim_start_matches(['/', '\\']);
    rest.split(['/', '\\', '?', '#']).next().unwrap_or_default()
}

/// Whether what is granted under a path covers another: the same, or below it.
pub(crate) fn covers(granted: &str, path: &str) -> bool {
    match path.strip_prefix(granted) {
        Some(rest) => rest.is_empty() || granted.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

/// Scheme, host and port, as a grant would be written.
pub(crate) fn origin_of(destination: &Destination) -> String {
    let Destination {
        scheme, host, port, ..
    } = destination;
    format!("{scheme}://{host}:{port}")
}

/// The dot at the end of a name that is whole says nothing here.
pub(crate) fn without_dot(destination: &Destination) -> Destination {
    let host = destination.host.strip_suffix('.');
    Destination {
        host: host.unwrap_or(&destination.host).to_owned(),
        ..destination.clone()
    }
}

/// `%2f` and `%5c`: a slash and a backslash.
fn is_ambiguous(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.contains("%2f") || path.contains("%5c")
}

#[cfg(test)]
mod tests;
