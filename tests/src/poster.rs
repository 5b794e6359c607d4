//! Posts numbered events over HTTP until each batch is acknowledged.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use serde_json::json;
use tokio::time;

use crate::{event, http::Connection};

/// What to post.
#[derive(Debug, Clone)]
pub struct Posts {
    pub to: SocketAddr,
    /// The name that the events carry.
    pub source: String,
    pub events: u64,
    pub batch: u64,
    /// The pause between two batches.
    pub pause: Duration,
    /// How long one batch may be refused before posting gives up.
    pub patience: Duration,
    /// Set to end before all events are posted; the batch in hand is finished.
    pub stop: Arc<AtomicBool>,
}

/// How often a refused or lost batch is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Posts all events in order, each batch again and again until it is acknowledged. `acknowledged`
/// rises with every batch; the number of repeated posts is returned.
///
/// # Errors
/// A batch was refused for good, or not taken within the patience.
pub async fn post(posts: &Posts, acknowledged: &Arc<AtomicU64>) -> Result<u64> {
    let mut connection = None;
    let mut repeated = 0;
    let mut next = 0;
    while next < posts.events && !posts.stop.load(Ordering::Relaxed) {
        let end = (next + posts.batch).min(posts.events);
        let key = format!("{}-{next}", posts.source);
        let body = batch(&posts.source, next..end);
        repeated += post_one(posts, &mut connection, (&key, &body)).await?;
        acknowledged.fetch_add(end - next, Ordering::Relaxed);
        next = end;
        time::sleep(posts.pause).await;
    }
    Ok(repeated)
}

/// A batch as Flume's JSON.
#[must_use]
pub fn batch(source: &str, numbers: std::ops::Range<u64>) -> Bytes {
    let event = |n: u64| json!({ "headers": { "via": "http" }, "body": event::body(source, n) });
    serde_json::Value::Array(numbers.map(event).collect())
        .to_string()
        .into()
}

/// Posts a batch under its `Idempotency-Key` until it is taken: once, however often it is sent.
async fn post_one(
    posts: &Posts,
    connection: &mut Option<Connection>,
    batch: (&str, &Bytes),
) -> Result<u64> {
    let start = time::Instant::now();
    let mut repeated = 0;
    loop {
        match try_post(posts.to, connection, batch).await {
            Ok(Posted::Taken) => return Ok(repeated),
            Ok(Posted::Later) => {}
            Ok(Posted::Never(why)) => bail!("a batch was refused for good: {why}"),
            // The agent was killed: nobody knows whether it took the batch.
            Err(_) => *connection = None,
        }
        if start.elapsed() > posts.patience {
            bail!("a batch was not taken within {:?}", posts.patience);
        }
        repeated += 1;
        time::sleep(AGAIN).await;
    }
}

enum Posted {
    Taken,
    Later,
    Never(String),
}

async fn try_post(
    to: SocketAddr,
    connection: &mut Option<Connection>,
    (key, body): (&str, &Bytes),
) -> Result<Posted> {
    let open = match connection.take() {
        Some(open) => open,
        None => Connection::open(to).await?,
    };
    let open = connection.insert(open);
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let answer = open.send("POST", "/", &headers, body.clone()).await?;
    Ok(match answer.status {
        200 => Posted::Taken,
        429 | 500..=599 => Posted::Later,
        status => Posted::Never(format!("{status} {}", answer.text())),
    })
}
