//! Reading a request's body within limits of size, memory and time.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, HeaderMap},
};
use levada_core::tasks;
use tokio::time;

use super::answer::Refusal;

/// Bytes of bodies that all connections of a source hold together, at least.
const BUFFERED: usize = 64 << 20;

/// The memory that bodies of one source may take: what slow or many clients have sent so far.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    held: Arc<AtomicUsize>,
    most: usize,
}

/// Bytes counted against a budget until they are dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Room for a few bodies of the largest size.
    pub(crate) fn for_bodies_of(max_body: usize) -> Self {
        let most = BUFFERED.max(max_body.saturating_mul(4));
        Self {
            held: Arc::default(),
            most,
        }
    }

    pub(crate) fn hold(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.budget.most {
            return Err(Refusal::busy("too many requests are in memory"));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
}

impl Packing {
    /// What the head says.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let first = codings
            .next()
            .map(|value| value.to_str().unwrap_or("?").trim());
        let known = match first {
            None => Some(Self::Plain),
            Some(word) if word.eq_ignore_ascii_case("identity") => Some(Self::Plain),
            Some(word)
                if ["gzip", "x-gzip"]
                    .iter()
                    .any(|g| word.eq_ignore_ascii_case(g)) =>
            {
                Some(Self::Gzip)
            }
            Some(_) => None,
        };
        known.filter(|_| codings.next().is_none()).ok_or_else(|| {
            let error = "unknown content encoding; `gzip` is understood";
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error)
        })
    }
}

/// Reads and unpacks a body of at most `most` bytes within `timeout`.
pub(crate) async fn read(
    body: &mut Incoming,
    packing: Packing,
    most: usize,
    timeout: Duration,
    held: &mut Held,
) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > most as u64 {
        return Err(too_large(most));
    }
    let collected = time::timeout(timeout, collect(body, most, held)).await;
    let data = collected.map_err(|_| {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
    })??;
    match packing {
        Packing::Plain => Ok(data),
        Packing::Gzip => tasks::in_place(|| unpack(&data, most, held)),
    }
}

async fn collect(body: &mut Incoming, most: usize, held: &mut Held) -> Result<Bytes, Refusal> {
    let mut data = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {error}"),
            )
        })?;
        // Trailers say nothing here.
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if data.len() + chunk.len() > most {
            return Err(too_large(most));
        }
        held.grow(chunk.len())?;
        data.extend_from_slice(&chunk);
    }
    Ok(data.into())
}

/// Bytes of a refused request that are read all the same, and the time that may take.
const REST: usize = 64 << 20;
const REST_TIME: Duration = Duration::from_secs(5);

/// A client that has sent nothing for so long waits for its answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Reads on after a refusal and drops what comes. A client that is still sending would meet a
/// broken pipe otherwise, and never see its answer.
pub(crate) async fn drop_rest(body: &mut Incoming) {
    let read = async {
        let mut left = REST;
        while let Ok(Some(Ok(frame))) = time::timeout(PAUSE, body.frame()).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else {
                return;
            };
            left = rest;
        }
    };
    // What is left after that is the client's loss.
    let _ended = time::timeout(REST_TIME, read).await.is_ok();
}

/// Unpacks until the end or one byte beyond `most`: a bomb stops there.
fn unpack(packed: &[u8], most: usize, held: &mut Held) -> Result<Bytes, Refusal> {
    let mut reader = MultiGzDecoder::new(packed).take(most as u64 + 1);
    let mut data = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = reader.read(&mut chunk).map_err(|error| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("the body is no gzip: {error}"),
            )
        })?;
        if read == 0 {
            return Ok(data.into());
        }
        if data.len() + read > most {
            return Err(too_large(most));
        }
        held.grow(read)?;
        data.extend_from_slice(&chunk[..read]);
    }
}

fn too_large(most: usize) -> Refusal {
    let error = format!("a body of more than the {most} bytes of `max-body`");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}
