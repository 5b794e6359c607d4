//! The loop of every listening part.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use levada_core::{Stop, TaskSet, tasks::Ended};
use tokio::time;
use tracing::{error, warn};

use crate::{Admission, Connections, Listener, Stream, Throttle};

/// A connection that was let in. It counts until `admission` is dropped.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Box<dyn Stream>,
    pub peer: SocketAddr,
    pub admission: Admission,
}

/// How long to wait after a lack of the machine's means, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// At most one line in this time says who was refused and what failed.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Accepts until `stop` drains; each connection is a task of its own, made by `handle`.
///
/// Draining closes the listener first and then waits for the tasks, which must listen to `stop`
/// themselves; a stop at once cancels them. A panic ends its own connection only. Dropped, all
/// connections are cancelled.
pub async fn accept_until<Task>(
    listener: Box<dyn Listener>,
    connections: &Connections,
    part: &str,
    stop: &Stop,
    mut handle: impl FnMut(Accepted) -> Task,
) where
    Task: Future<Output = ()> + Send + 'static,
{
    let mut tasks = TaskSet::new();
    let (refusals, failures) = (Throttle::new(LOG_EVERY), Throttle::new(LOG_EVERY));
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
                let task = handle(Accepted {
                    stream,
                    peer,
                    admission,
                });
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
