//! Batches that a sink has in hand, in the order in which they were given.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

/// Futures that run side by side and are answered in order.
///
/// Each is polled once before the next can be added. All run in the task that owns this; dropping
/// it drops them.
pub(crate) struct Flights<'a, T> {
    inner: VecDeque<Flight<'a, T>>,
}

enum Flight<'a, T> {
    Flying(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
    Landed(T),
}

impl<'a, T: Unpin> Flights<'a, T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Adds a future and polls it once.
    pub(crate) async fn launch(&mut self, future: impl Future<Output = T> + Send + 'a) {
        let mut flight = Flight::Flying(Box::pin(future));
        poll_fn(|cx| {
            flight.poll(cx);
            Poll::Ready(())
        })
        .await;
        self.inner.push_back(flight);
    }

    /// The answer to the oldest, once it is there; waits for ever if there is none. Safe to cancel.
    pub(crate) async fn next(&mut self) -> T {
        poll_fn(|cx| {
            self.poll_all(cx);
            match self.inner.pop_front() {
                Some(Flight::Landed(answer)) => Poll::Ready(answer),
                Some(flying @ Flight::Flying(_)) => {
                    self.inner.push_front(flying);
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for `other` while all in flight go on.
    pub(crate) async fn beside<U>(&mut self, other: impl Future<Output = U>) -> U {
        let mut other = std::pin::pin!(other);
        poll_fn(|cx| {
            self.poll_all(cx);
            other.as_mut().poll(cx)
        })
        .await
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) {
        self.inner.iter_mut().for_each(|flight| flight.poll(cx));
    }
}

impl<T> Flight<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Self::Flying(future) = self
            && let Poll::Ready(answer) = future.as_mut().poll(cx)
        {
            *self = Self::Landed(answer);
        }
    }
}
