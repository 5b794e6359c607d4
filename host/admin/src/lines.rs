//! Answers without an end: lines for as long as somebody reads them.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use levada_core::Stop;

/// Where lines come from.
#[async_trait]
pub trait Lines: Send {
    /// Waits for the next line, which ends with a newline; `None` at the end. It is asked only when
    /// the reader has taken what was before, and dropped when the reader has gone.
    async fn next(&mut self) -> Option<String>;
}

type Source = Box<dyn Lines>;
type Step = Pin<Box<dyn Future<Output = Option<(String, Source)>> + Send>>;

/// The body of an answer: one line after the other, until the agent stops.
pub(crate) struct LineBody {
    /// The next line, and where the ones after it come from; none after the end.
    next: Option<Step>,
    stop: Stop,
}

impl LineBody {
    pub(crate) fn new(source: Source, stop: &Stop) -> Self {
        Self {
            next: Some(step(source, stop.clone())),
            stop: stop.clone(),
        }
    }
}

fn step(mut source: Source, stop: Stop) -> Step {
    Box::pin(async move {
        let line = tokio::select! {
            line = source.next() => line?,
            () = stop.draining() => return None,
        };
        Some((line, source))
    })
}

impl Body for LineBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let Some((line, source)) = ready!(next.as_mut().poll(cx)) else {
            self.next = None;
            return Poll::Ready(None);
        };
        self.next = Some(step(source, self.stop.clone()));
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}

impl fmt::Debug for LineBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineBody").finish_non_exhaustive()
    }
}
