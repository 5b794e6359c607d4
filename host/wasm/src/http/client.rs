//! Sends the requests of one handler: to what is granted, over addresses that were checked.

use std::{
    error::Error as _,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{Clock, PartId};
use levada_net::Authorities;
use reqwest::{
    Client, Method, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect, retry,
};
use tokio::{net::lookup_host, sync::Semaphore, time};

use super::{
    Problem, Reply, Request, address,
    headers::{self, Bound},
    target::{self, Target},
};
use crate::{
    HandlerSpec, LoadError,
    grants::{Destination, Network},
};

/// Where names become addresses: the machine, or a test.
#[async_trait]
pub(crate) trait Names: fmt::Debug + Send + Sync {
    /// Every address of a name.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own names.
#[derive(Debug)]
pub(crate) struct MachineNames;

#[async_trait]
impl Names for MachineNames {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// What one handler may use of HTTP.
#[derive(Debug)]
pub(crate) struct HttpClient {
    client: Client,
    granted: Vec<Destination>,
    private: Arc<[Network]>,
    credentials: Vec<(Destination, Bound)>,
    slots: Semaphore,
    /// Most bytes of an answer's body.
    most_bytes: usize,
}

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Connections to one server that are kept between requests.
const KEPT: usize = 6;

impl HttpClient {
    /// Sets up what is granted to a handler; `None` if nothing is. Reads the machine's authorities
    /// if anything is granted over `https`.
    pub(crate) fn open(
        part: &PartId,
        spec: &HandlerSpec,
        clock: &Arc<dyn Clock>,
        names: Arc<dyn Names>,
    ) -> Result<Option<Self>, LoadError> {
        let granted = &spec.grants.http;
        if granted.is_empty() {
            return Ok(None);
        }
        let failed = |reason: String| LoadError::Http { reason };
        let authorities = match granted.iter().any(|grant| grant.scheme == "https") {
            true => Authorities::Machine,
            false => Authorities::Nobody,
        };
        let tls = levada_net::client_config(authorities, clock);
        let tls = tls.map_err(|error| failed(error.to_string()))?;
        let private: Arc<[Network]> = spec.grants.allow_private.clone().into();
        let resolver = CheckedNames {
            names,
            private: Arc::clone(&private),
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(resolver)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(KEPT)
            .user_agent(concat!("levada/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(chain(&error)))?;
        let bound = |(destination, params): &(Destination, crate::CredentialParams)| {
            let bound = Bound::read(&params.header, params.value.reveal());
            let wrong = |why| failed(format!("{part}.credentials.\"{destination}\": {why}"));
            Ok((destination.clone(), bound.map_err(wrong)?))
        };
        let credentials: Result<_, LoadError> = spec.credentials.iter().map(bound).collect();
        Ok(Some(Self {
            client,
            granted: granted.clone(),
            private,
            credentials: credentials?,
            slots: Semaphore::new(spec.limits.http_at_once),
            most_bytes: spec.limits.http_body,
        }))
    }

    /// Sends a request and waits for the whole answer, both within `within`.
    pub(crate) async fn send(&self, request: Request, within: Duration) -> Result<Reply, Problem> {
        let request = self.checked(request).map_err(Problem::Denied)?;
        let exchange = async {
            let slot = self.slots.acquire().await;
            let _slot = slot.expect("the semaphore is never closed");
            let response = self.client.execute(request).await;
            self.whole(response.map_err(problem_of)?).await
        };
        match time::timeout(within, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(Problem::Timeout),
        }
    }

    /// The request as it is sent.
    fn checked(&self, request: Request) -> Result<reqwest::Request, String> {
        let Request {
            method,
            url,
            headers,
            body,
            timeout_ms: _,
        } = request;
        let target = Target::read(&url, &self.granted)?;
        if let Some(address) = target.address() {
            address::check(address, &self.private)?;
        }
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(method.as_bytes()).ok();
        let refused = [Method::CONNECT, Method::TRACE];
        let Some(method) = method.filter(|method| is_method && !refused.contains(method)) else {
            return Err("not a method for a request".into());
        };
        let headers: Vec<_> = headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect();
        let bound: Vec<_> = self.bound_to(&target.destination).collect();
        let headers = headers::of_request(&headers, &bound)?;
        let mut checked = reqwest::Request::new(method, target.url);
        *checked.headers_mut() = headers;
        if !body.is_empty() {
            *checked.body_mut() = Some(body.into());
        }
        Ok(checked)
    }

    /// The headers that are bound to where a request goes.
    fn bound_to<'a>(&'a self, wanted: &'a Destination) -> impl Iterator<Item = &'a Bound> {
        let fits = move |destination: &Destination| {
            target::without_dot(destination).is_same_host(wanted)
                && target::covers(&destination.path, &wanted.path)
        };
        let credentials = self.credentials.iter();
        credentials.filter_map(move |(destination, bound)| fits(destination).then_some(bound))
    }

    async fn whole(&self, mut response: Response) -> Result<Reply, Problem> {
        let announced = response.content_length();
        let most = self.most_bytes as u64;
        if announced.is_some_and(|bytes| bytes > most) {
            return Err(Problem::TooLarge);
        }
        let Some(headers) = headers::of_response(response.headers()) else {
            return Err(Problem::TooLarge);
        };
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(problem_of)? {
            if body.len() + chunk.len() > self.most_bytes {
                return Err(Problem::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply::new(status, headers, body))
    }
}

/// Names whose addresses are checked; what is dialled are these addresses and no others, so that a
/// name cannot mean something else a moment later.
struct CheckedNames {
    names: Arc<dyn Names>,
    private: Arc<[Network]>,
}

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, private) = (Arc::clone(&self.names), Arc::clone(&self.private));
        Box::pin(async move {
            let name = name.as_str();
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in names.addresses(name).await? {
                match address::check(address, &private) {
                    Ok(()) => allowed.push(SocketAddr::new(address, 0)),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(Denied(format!("`{name}` is {why}")).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// An address that may not be dialled, on its way through the client's errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Denied(String);

fn problem_of(error: reqwest::Error) -> Problem {
    let error = error.without_url();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Denied(why)) = inner.downcast_ref() {
            return Problem::Denied(why.clone());
        }
        cause = inner.source();
    }
    if error.is_timeout() && !error.is_connect() {
        Problem::Timeout
    } else if error.is_connect() {
        Problem::Connect(chain(&error))
    } else {
        Problem::Protocol(chain(&error))
    }
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
