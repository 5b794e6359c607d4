//! The loop of every listening part.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use levada_core::{Stop, TaskSet, tasks::Ended};
use tokio::time;
use tracing::{debug, error, warn};

use crate::{
    Admission, Connections, Identity, Inbound, Listener, Stream, Throttle, inbound,
    plain::Complaints,
};

/// A connection that was let in. It counts until `admission` is dropped.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Box<dyn Stream>,
    pub peer: SocketAddr,
    /// Who the peer has proved to be.
    pub identity: Identity,
    pub admission: Admission,
}

/// How long to wait after a lack of the machine's means, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// At most one line in this time says who was refused and what failed.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Accepts until `stop` drains; each connection is a task of its own, made by `handle` after the
/// handshake of `inbound`. Who fails in that is logged, ten seconds long at most once.
///
/// Draining closes the listener first and then waits for the tasks, which must listen to `stop`
/// themselves; a stop at once cancels them. A panic ends its own connection only. Dropped, all
/// connections are cancelled.
pub async fn accept_until<Task>(
    listener: Box<dyn Listener>,
    inbound: Inbound,
    connections: &Connections,
    part: &str,
    stop: &Stop,
    handle: impl Fn(Accepted) -> Task + Send + Sync + 'static,
) where
    Task: Future<Output = ()> + Send + 'static,
{
    let mut tasks = TaskSet::new();
    let (refusals, failures) = (Throttle::new(LOG_EVERY), Throttle::new(LOG_EVERY));
    let door = Arc::new(Door {
        inbound,
        complaints: Complaints::new(part, Throttle::new(LOG_EVERY)),
        stop: stop.clone(),
        handle,
    });
    loop {
        let arrived = tokio::select! {
            biased;
            () = stop.draining() => break,
            Some(ended) = tasks.next() => { report(part, &ended); continue }
            arrived = listener.accept() => arrived,
        };
        let (stream, peer) = match arrived {
            Ok(arrived) => arrived,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if let Some(unsaid) = failures.pass() {
                    warn!(part, %error, unsaid, "cannot accept connections");
                }
                tokio::select! {
                    () = stop.draining() => break,
                    () = time::sleep(PAUSE) => continue,
                }
            }
        };
        match connections.admit(peer) {
            Ok(admission) => {
                let door = Arc::clone(&door);
                let task = async move { door.let_in(stream, peer, admission).await };
                tasks.spawn(format!("{part} {peer}"), task);
            }
            Err(refusal) => {
                if let Some(unsaid) = refusals.pass() {
                    warn!(part, %peer, reason = %refusal, unsaid, "connection refused");
                }
            }
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = finish(part, &mut tasks) => return,
        () = stop.now() => {}
    }
    tasks.abort().await;
}

/// What every connection of a listener passes.
struct Door<Handle> {
    inbound: Inbound,
    complaints: Complaints,
    stop: Stop,
    handle: Handle,
}

impl<Handle, Task> Door<Handle>
where
    Handle: Fn(Accepted) -> Task,
    Task: Future<Output = ()>,
{
    async fn let_in(&self, stream: Box<dyn Stream>, peer: SocketAddr, admission: Admission) {
        let entered = tokio::select! {
            biased;
            () = self.stop.draining() => return,
            entered = self.inbound.enter(stream, peer, &self.complaints) => entered,
        };
        match entered {
            Ok(Some((stream, identity))) => {
                let accepted = Accepted {
                    stream,
                    peer,
                    identity,
                    admission,
                };
                (self.handle)(accepted).await;
            }
            Ok(None) => debug!(%peer, "a peer left without a word"),
            Err(error) if inbound::is_silent(&error) => debug!(%peer, %error, "a peer left"),
            Err(error) => self.complaints.say(peer, &error),
        }
    }
}

async fn finish(part: &str, tasks: &mut TaskSet) {
    while let Some(ended) = tasks.next().await {
        report(part, &ended);
    }
}

fn report(part: &str, ended: &Ended) {
    if let Some(panic) = &ended.panic {
        error!(part, task = %ended.name, panic, "connection ended by a panic");
    }
}

/// Whether an error of `accept` speaks of the connection that was to be accepted (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, NotConnected, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
    )
}

#[cfg(test)]
mod tests;
