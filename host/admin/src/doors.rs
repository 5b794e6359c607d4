//! Binding the two doors and answering at them.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use levada_core::Stop;
use levada_net::{
    Accepted, ConnectionLimits, Connections, Inbound, Listener, Stream, Transport, accept_until,
};
use thiserror::Error;
use tokio::net::UnixListener;
use tracing::debug;

use crate::{
    routes::{Door, answer},
    view::View,
};

/// The socket's name in the data folder.
pub const SOCKET: &str = "admin.sock";

/// Operators are few; a scraper that forgets to close must not fill the agent.
const CONNECTIONS: ConnectionLimits = ConnectionLimits {
    total: 64,
    per_ip: 32,
};
/// On the socket everybody comes from the same place.
const SOCKET_CONNECTIONS: ConnectionLimits = ConnectionLimits {
    total: 64,
    per_ip: 64,
};
/// How long a request's head may take, and how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head (security model 4.6).
const HEAD_BYTES: usize = 16 << 10;

/// The doors: bound, not yet answering.
#[derive(Debug)]
pub struct Doors {
    tcp: Option<(Box<dyn Listener>, Inbound)>,
    socket: Option<Socket>,
}

/// Why a door could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on `{at}` for operators{hint}")]
pub struct OpenError {
    at: String,
    /// What to do, if that is known.
    hint: &'static str,
    #[source]
    source: io::Error,
}

impl Doors {
    /// Binds the TCP door, if there is to be one, and the socket in the data folder. What comes to
    /// the TCP door goes through `inbound`.
    ///
    /// The caller holds the lock of the data folder: a socket that is there is left over from an
    /// agent that was killed.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn open(
        tcp: Option<(SocketAddr, Inbound)>,
        data: &Path,
        transport: &dyn Transport,
    ) -> Result<Self, OpenError> {
        let tcp = match tcp {
            None => None,
            Some((at, inbound)) => Some((bind(at, transport).await?, inbound)),
        };
        let path = data.join(SOCKET);
        let socket = Socket::bind(&path).map_err(|source| OpenError {
            at: path.display().to_string(),
            hint: "",
            source,
        })?;
        Ok(Self {
            tcp,
            socket: Some(socket),
        })
    }

    /// Where the TCP door is, with the port that was taken.
    #[must_use]
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.0.local_addr().ok()
    }

    /// Answers until `stop` drains, then finishes what was asked.
    pub async fn serve(self, view: View, stop: &Stop) {
        let Self { tcp, socket } = self;
        let tcp = async {
            if let Some((listener, inbound)) = tcp {
                let nobody = Arc::default();
                serve(listener, inbound, (Door::Tcp, nobody), &view, stop).await;
            }
        };
        let socket = async {
            if let Some(listener) = socket {
                let inbound = Inbound::default();
                let door = (Door::Socket, Arc::clone(&listener.callers));
                serve(Box::new(listener), inbound, door, &view, stop).await;
            }
        };
        tokio::join!(tcp, socket);
    }
}

async fn bind(at: SocketAddr, transport: &dyn Transport) -> Result<Box<dyn Listener>, OpenError> {
    transport.bind(at).await.map_err(|source| OpenError {
        at: at.to_string(),
        hint: match source.kind() {
            io::ErrorKind::AddrInUse => {
                ": the port is in use; set another under `admin`, or \"off\""
            }
            _ => "",
        },
        source,
    })
}

async fn serve(
    listener: Box<dyn Listener>,
    inbound: Inbound,
    (door, callers): (Door, Callers),
    view: &View,
    stop: &Stop,
) {
    let connections = Connections::new(match door {
        Door::Tcp => CONNECTIONS,
        Door::Socket => SOCKET_CONNECTIONS,
    });
    let (view, stopped) = (view.clone(), stop.clone());
    let handle = move |accepted: Accepted| {
        let mut callers = callers.lock().unwrap_or_else(PoisonError::into_inner);
        let by = callers.remove(&accepted.peer.port()).unwrap_or_default();
        connection(accepted, (door, by), view.clone(), stopped.clone())
    };
    accept_until(listener, inbound, &connections, "admin", stop, handle).await;
}

async fn connection(accepted: Accepted, (door, by): (Door, String), view: View, stop: Stop) {
    let Accepted {
        stream,
        peer,
        identity: _,
        admission,
    } = accepted;
    let service = service_fn(|request| {
        let (view, by) = (&view, &by);
        async move { Ok::<_, Infallible>(answer(view, door, by, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "an operator's connection ended early");
    }
    drop(admission);
}

/// The unix socket; its file goes when it is dropped.
#[derive(Debug)]
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    callers: Callers,
    accepted: AtomicU16,
}

/// Who is calling, as the system says; by the number that stands for the port of a peer.
type Callers = Arc<Mutex<HashMap<u16, String>>>;

impl Socket {
    fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            callers: Callers::default(),
            accepted: AtomicU16::default(),
        })
    }
}

#[async_trait]
impl Listener for Socket {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, _) = self.listener.accept().await?;
        let who = stream.peer_cred()?;
        let pid = who.pid().map(|pid| format!(" pid {pid}"));
        let who = format!("uid {}{}", who.uid(), pid.unwrap_or_default());
        // Far fewer connections are open at once than there are numbers.
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.insert(number, who);
        Ok((Box::new(stream), SocketAddr::new(NOWHERE.ip(), number)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }
}

/// What stands for the address of a peer on the socket, which has none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!(%error, "the admin socket was gone already");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
