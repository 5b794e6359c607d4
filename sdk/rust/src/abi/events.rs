//! Events on their way to the host, out of a timer or a source.

use super::{address, length};
use crate::NewEvent;

/// Events as the host reads them: a `list<event>`.
#[derive(Default)]
pub(super) struct EventList {
    events: Vec<NewEvent>,
    /// Name and value of every header: address and length of each.
    headers: Vec<[u32; 4]>,
    /// Headers and body of every event: address and length of each.
    records: Vec<[u32; 4]>,
}

impl EventList {
    pub(super) fn new(events: Vec<NewEvent>) -> Self {
        Self {
            events,
            ..Self::default()
        }
    }

    /// Address and length of the list, valid as long as this is.
    pub(super) fn lower(&mut self) -> [u32; 2] {
        for event in &self.events {
            for (name, value) in event.header_pairs() {
                let (name, value) = (name.as_bytes(), value.as_bytes());
                let header = [address(name), length(name), address(value), length(value)];
                self.headers.push(header);
            }
        }
        // All are there: they do not move any more.
        let mut rest = &self.headers[..];
        for event in &self.events {
            let (own, others) = rest.split_at(event.header_pairs().len());
            rest = others;
            let body = event.body_bytes();
            let headers = own.as_ptr().addr() as u32;
            self.records
                .push([headers, own.len() as u32, address(body), length(body)]);
        }
        [
            self.records.as_ptr().addr() as u32,
            self.records.len() as u32,
        ]
    }
}
