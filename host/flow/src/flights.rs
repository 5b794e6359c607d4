//! Batches that a sink has in hand; those of a lane in the order in which they were given.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

/// Futures that run side by side and are answered in the order of their lanes.
///
/// Each is polled once before the next can be added. All run in the task that owns this; dropping
/// it drops them.
pub(crate) struct Flights<'a, T> {
    inner: VecDeque<(u32, Flight<'a, T>)>,
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
    pub(crate) async fn launch(&mut self, lane: u32, future: impl Future<Output = T> + Send + 'a) {
        let mut flight = Flight::Flying(Box::pin(future));
        poll_fn(|cx| {
            flight.poll(cx);
            Poll::Ready(())
        })
        .await;
        self.inner.push_back((lane, flight));
    }

    /// The answer to the oldest of a lane, once it is there; waits for ever if there is none. Safe to
    /// cancel.
    pub(crate) async fn next(&mut self) -> T {
        poll_fn(|cx| {
            self.poll_all(cx);
            let landed = self.landed().and_then(|at| self.inner.remove(at));
            match landed {
                Some((_, Flight::Landed(answer))) => Poll::Ready(answer),
                Some((_, Flight::Flying(_))) | None => Poll::Pending,
            }
        })
        .await
    }

    /// Where the first is that has landed and has none of its lane before it.
    fn landed(&self) -> Option<usize> {
        let is_next = |at: &usize| {
            let (lane, flight) = &self.inner[*at];
            let mut before = self.inner.iter().take(*at);
            matches!(flight, Flight::Landed(_)) && before.all(|(other, _)| other != lane)
        };
        (0..self.inner.len()).find(is_next)
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
        let flights = self.inner.iter_mut();
        flights.for_each(|(_, flight)| flight.poll(cx));
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
