//! Several events in one request, and what becomes of each.

use std::ops::Range;

use levada_sdk::{Batch, Event, Failure, Outcome, Outcomes, http::Response};

use crate::batch_key;

/// What a server said of the events of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It has all of them for good.
    Done,
    /// It said something of each, in the order of the request.
    Each(Vec<Outcome>),
    /// It did not take the request, because of its size or of something in it: smaller requests show
    /// what that is. If the server says which event it is, `at` is its place in the request.
    Refused { reason: String, at: Option<usize> },
}

/// The events of one request: some of a batch that stand together.
#[derive(Debug)]
pub struct Part<'a, T> {
    /// The events as the sink wrote them.
    pub items: &'a [T],
    place: Range<usize>,
    of: usize,
}

impl Reply {
    /// The request was not taken, because of its size or of something in it.
    pub fn refused(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Refused { reason, at: None }
    }

    /// What a status says, where a service has no words of its own for it: 2xx is done; 400, 413
    /// and 422 are the request's fault.
    ///
    /// # Errors
    /// What is no event's fault: [`Response::failure`].
    pub fn of(response: &Response) -> Result<Self, Failure> {
        match response.status {
            200..=299 => Ok(Self::Done),
            400 | 413 | 422 => Ok(Self::refused(response.reason())),
            _ => Err(response.failure()),
        }
    }
}

impl<T> Part<'_, T> {
    /// A key that is the same for every attempt at the same events, and differs for others.
    #[must_use]
    pub fn key(&self) -> String {
        let Range { start, end } = self.place;
        match end - start == self.of {
            true => batch_key(),
            false => format!("{}.{start}-{end}", batch_key()),
        }
    }
}

/// Delivers a batch in as few requests as the server lets.
///
/// `write` makes of each event, with its place in the batch, what the server wants; an event of
/// which nothing can be made is rejected with the reason. `send` sends some of them. What the server
/// refuses is sent again in smaller requests, until the event that is to blame stands alone and is
/// rejected; for `n` events that takes fewer than `2 n` requests, which a host allows. Requests go
/// out one after the other, in the order of the events. After one that failed none is sent: what
/// was not sent comes again.
///
/// # Errors
/// What `send` fails with before anything was delivered.
pub fn deliver<T>(
    batch: &Batch<'_>,
    outcomes: &mut Outcomes,
    write: impl Fn(usize, &Event<'_>) -> Result<T, String>,
    send: impl Fn(&Part<'_, T>) -> Result<Reply, Failure>,
) -> Result<(), Failure> {
    let mut items = Vec::with_capacity(batch.len());
    let mut faults = Vec::with_capacity(batch.len());
    for (place, event) in batch.iter().enumerate() {
        match write(place, &event) {
            Ok(item) => {
                items.push(item);
                faults.push(None);
            }
            Err(why) => faults.push(Some(why)),
        }
    }
    let mut said = send_all(&items, send)?.into_iter();
    for fault in faults {
        match fault {
            Some(why) => outcomes.reject(&why),
            None => outcomes.push(said.next().expect("something is said of every item")),
        }
    }
    Ok(())
}

/// What becomes of each item.
fn send_all<T>(
    items: &[T],
    send: impl Fn(&Part<'_, T>) -> Result<Reply, Failure>,
) -> Result<Vec<Outcome>, Failure> {
    let mut said = Vec::with_capacity(items.len());
    // What is to be sent, the first one last.
    let whole = 0..items.len();
    let mut waiting = vec![whole];
    while let Some(place) = waiting.pop() {
        if place.is_empty() {
            continue;
        }
        let part = Part {
            items: &items[place.clone()],
            place: place.clone(),
            of: items.len(),
        };
        match send(&part).and_then(|reply| counted(reply, place.len())) {
            Ok(Reply::Done) => said.resize(place.end, Outcome::Done),
            Ok(Reply::Each(each)) => said.extend(each),
            Ok(Reply::Refused { reason, .. }) if place.len() == 1 => {
                said.push(Outcome::reject(reason));
            }
            Ok(Reply::Refused { at, .. }) => waiting.extend(smaller(&place, at)),
            Err(failure) if said.is_empty() => return Err(failure),
            Err(failure) => {
                said.resize(items.len(), failure.into());
                break;
            }
        }
    }
    Ok(said)
}

/// A server that says something of another number of events says nothing of any.
fn counted(reply: Reply, sent: usize) -> Result<Reply, Failure> {
    match &reply {
        Reply::Each(each) if each.len() != sent => Err(Failure::retry(format!(
            "the server says something of {} events; {sent} were sent",
            each.len()
        ))),
        Reply::Done | Reply::Each(_) | Reply::Refused { .. } => Ok(reply),
    }
}

/// The parts of what was refused, the last one first: halves, or what is before the event that the
/// server named, that event, and what is behind it.
fn smaller(refused: &Range<usize>, at: Option<usize>) -> [Range<usize>; 3] {
    let Range { start, end } = *refused;
    match at.filter(|at| *at < refused.len()).map(|at| start + at) {
        // The server may count otherwise than it says: the event is not rejected unheard.
        Some(named) => [named + 1..end, named..named + 1, start..named],
        None => {
            let middle = start + refused.len() / 2;
            [end..end, middle..end, start..middle]
        }
    }
}

#[cfg(test)]
mod tests;
