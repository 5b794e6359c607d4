//! What every server of the tests begins with: a port on loopback, and a task for each connection.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use tokio::net::{TcpListener, TcpStream};

/// Serves every connection to a free port; where that is, and the tasks that do it. A client that
/// goes away is its own test's business.
///
/// # Errors
/// No socket can be bound.
pub(crate) async fn listen<F>(
    name: &str,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> Result<(SocketAddr, TaskSet)>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.with_context(|| format!("cannot bind the {name}"))?;
    let at = listener.local_addr()?;
    let mut tasks = TaskSet::new();
    tasks.spawn(name, async move {
        let mut connections = TaskSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let serving = serve(stream);
            connections.spawn("connection", async move {
                serving.await.ok();
            });
        }
    });
    Ok((at, tasks))
}
