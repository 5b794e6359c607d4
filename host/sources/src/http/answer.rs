//! What a client is told.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{
        ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use levada_core::PutError;
use serde::Serialize;

/// A response with a short JSON body.
pub(crate) type Reply = Response<Full<Bytes>>;

/// When to try again after a refusal that says nothing else.
const SOON: Duration = Duration::from_secs(1);

/// When to try again after a failure that a human may have to mend.
const LATER: Duration = Duration::from_secs(10);

/// Why a request is not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub error: String,
    /// The place of the bad event, counted from 0.
    pub index: Option<usize>,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let error = error.into();
        Self {
            status,
            error,
            index: None,
            retry_after: None,
            challenge: None,
        }
    }

    pub(crate) fn unauthorized(challenge: &'static str) -> Self {
        let error = "wrong or no credentials";
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, error)
        }
    }

    pub(crate) fn busy(error: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, error);
        Self {
            retry_after: Some(SOON),
            ..refusal
        }
    }

    /// The answer to a batch that was not stored.
    pub(crate) fn of_put(error: &PutError) -> Self {
        if let PutError::TooLarge { .. } = error {
            return Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
        }
        let after = match error {
            PutError::Later { after, .. } => after.unwrap_or(SOON),
            PutError::Fatal { .. } | PutError::Store { .. } => LATER,
            _ => SOON,
        };
        Self {
            retry_after: Some(after),
            ..Self::busy(error.to_string())
        }
    }

    pub(crate) fn reply(&self) -> Reply {
        let mut reply = json(
            self.status,
            &Refused {
                error: &self.error,
                index: self.index,
            },
        );
        let headers = reply.headers_mut();
        if let Some(after) = self.retry_after {
            // A second is the unit, and 0 would mean at once.
            let seconds = after.as_millis().div_ceil(1000).clamp(1, 3600);
            if let Ok(value) = HeaderValue::try_from(seconds.to_string()) {
                headers.insert(RETRY_AFTER, value);
            }
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE
        ) {
            // The rest of the body is not waited for.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// The answer to a batch that is stored.
pub(crate) fn accepted(events: usize) -> Reply {
    json(StatusCode::OK, &Accepted { accepted: events })
}

/// The answer to a batch that was stored before, by a request with the same key.
pub(crate) fn replayed(events: usize) -> Reply {
    let mut reply = accepted(events);
    let header = HeaderName::from_static("idempotent-replayed");
    reply
        .headers_mut()
        .insert(header, HeaderValue::from_static("true"));
    reply
}

fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(body).expect("numbers and text into memory cannot fail");
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}
