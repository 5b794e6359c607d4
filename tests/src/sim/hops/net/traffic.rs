//! Bytes on their way from one end to the other.

use std::io;

use bytes::Bytes;
use tokio::time::Instant;

use super::{End, May, Net, RECORDED, crc};

impl Net {
    /// What `end` may read now.
    pub(in crate::sim::hops) fn may_read(&mut self, id: u64, end: usize) -> io::Result<May> {
        let [from, to] = [1 - end, end];
        let net = &mut *self;
        let connection = net
            .connections
            .get_mut(&id)
            .expect("no connection is forgotten");
        connection.is_open(end)?;
        let carries = !net
            .closed
            .contains(&(connection.hosts[from], connection.hosts[to]));
        let way = &connection.ways[from];
        let Some((at, bytes)) = way.segments.front() else {
            return Ok(May::Wait(None));
        };
        if connection.hung || !carries {
            return Ok(May::Wait(None));
        }
        if *at > Instant::now() {
            return Ok(May::Wait(Some(*at)));
        }
        if bytes.is_empty() {
            return Ok(May::End);
        }
        let fate = connection.fate.filter(|fate| fate.way == from);
        let Some(fate) = fate else {
            return Ok(May::Pass(bytes.len()));
        };
        let left = usize::try_from(fate.after - way.passed).unwrap_or(usize::MAX);
        if left > 0 {
            return Ok(May::Pass(left.min(bytes.len())));
        }
        connection.fate = None;
        if fate.hangs {
            connection.hung = true;
            net.counts.hangs += 1;
            return Ok(May::Wait(None));
        }
        connection.ends = [End::Reset; 2];
        net.counts.resets += 1;
        net.wake_one(id);
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Takes so many bytes from the front.
    pub(in crate::sim::hops) fn take(&mut self, id: u64, end: usize, count: usize) -> Bytes {
        let way = &mut self.connection(id).ways[1 - end];
        let Some((_, front)) = way.segments.front_mut() else {
            return Bytes::new();
        };
        let taken = front.split_to(count);
        if front.is_empty() {
            way.segments.pop_front();
        }
        way.bytes -= count;
        way.passed += count as u64;
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
        let hash = crc(&taken);
        self.note([2, id, end as u64, count as u64, hash]);
        taken
    }

    /// How many bytes `end` may write now.
    pub(in crate::sim::hops) fn may_write(&mut self, id: u64, end: usize) -> io::Result<May> {
        let capacity = self.capacity;
        let connection = self.connection(id);
        connection.is_open(end)?;
        let [from, to] = [connection.hosts[end], connection.hosts[1 - end]];
        let (hung, peer) = (connection.hung, connection.ends[1 - end]);
        let room = capacity.saturating_sub(connection.ways[end].bytes);
        // The system of a peer that is gone says so, if it hears and is heard.
        if peer != End::Open && !hung && self.answers(from, to).is_some() {
            self.connection(id).ends[end] = End::Reset;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(match room {
            0 => May::Wait(None),
            room => May::Pass(room),
        })
    }

    /// Sends bytes on their way; none at all is the end.
    pub(in crate::sim::hops) fn send(&mut self, id: u64, end: usize, bytes: Bytes) {
        let connection = self.connection(id);
        let [from, to] = [connection.hosts[end], connection.hosts[1 - end]];
        let at = Instant::now() + self.delay(from, to);
        let connection = self.connection(id);
        let ends = bytes.is_empty();
        let bytes = match &mut connection.forger {
            Some(forger) if end == 0 && !ends => forger.pass(&bytes),
            Some(_) | None => bytes,
        };
        if bytes.is_empty() && !ends {
            return;
        }
        if end == 0 && connection.said.len() < RECORDED {
            connection.said.extend_from_slice(&bytes);
        }
        let way = &mut connection.ways[end];
        let before = way.segments.back();
        if before.is_some_and(|(_, last)| last.is_empty()) {
            return;
        }
        let at = before.map_or(at, |(last, _)| at.max(*last));
        way.bytes += bytes.len();
        way.segments.push_back((at, bytes));
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
    }

    /// An end is dropped. What it has not read is lost, and its peer may be told so by a reset.
    pub(in crate::sim::hops) fn close(&mut self, id: u64, end: usize) {
        let connection = self.connection(id);
        if connection.ends[end] != End::Open {
            connection.ends[end] = End::Gone;
            return;
        }
        let unread = connection.ways[1 - end].bytes > 0 && !connection.hung;
        let [from, to] = [connection.hosts[end], connection.hosts[1 - end]];
        self.send(id, end, Bytes::new());
        let resets = unread && self.answers(from, to).is_some() && self.chance.below(2) == 0;
        let connection = self.connection(id);
        connection.ends[end] = End::Gone;
        if resets && connection.ends[1 - end] == End::Open {
            connection.ends[1 - end] = End::Reset;
        }
        self.wake_one(id);
    }
}
