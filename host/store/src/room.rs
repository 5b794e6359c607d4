//! Who may put how much: reservations in front of the writer, fair and all at once. No I/O here.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::params::OnFull;

/// A place that can be full: a channel, or the table of dead letters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) capacity_bytes: u64,
    pub(crate) capacity_events: u64,
    pub(crate) on_full: OnFull,
    /// One reservation may exceed the capacity while nothing else is in.
    pub(crate) elastic: bool,
    /// What is in it lies on the disk, under the ceiling of all such rooms.
    pub(crate) on_disk: bool,
    pub(crate) bytes: u64,
    pub(crate) events: u64,
}

/// What one reservation takes of one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) room: usize,
    pub(crate) bytes: u64,
    pub(crate) events: u64,
}

/// The answer to a reservation: granted, or the room that refuses.
pub(crate) type Granted = Result<(), usize>;

/// The number of the room for dead letters.
pub(crate) const DEAD: usize = usize::MAX;

/// All rooms, and the reservations that wait, in the order they came.
#[derive(Debug)]
pub(crate) struct Rooms {
    rooms: Vec<Room>,
    dead: Room,
    /// How many bytes all rooms on the disk may hold together.
    ceiling: u64,
    waiting: VecDeque<Waiter>,
    tickets: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    needs: Vec<Need>,
    tx: oneshot::Sender<Granted>,
}

/// What became of a reservation at once.
#[derive(Debug)]
pub(crate) enum Reserve {
    Granted,
    Refused(usize),
    Waits {
        ticket: u64,
        rx: oneshot::Receiver<Granted>,
    },
}

impl Room {
    fn fits(&self, need: &Need) -> bool {
        let bytes = self.bytes.saturating_add(need.bytes) <= self.capacity_bytes;
        let events = self.events.saturating_add(need.events) <= self.capacity_events;
        (bytes && events) || (self.elastic && self.events == 0)
    }

    /// Whether the need could ever be met.
    fn could_fit(&self, need: &Need) -> bool {
        self.elastic || (need.bytes <= self.capacity_bytes && need.events <= self.capacity_events)
    }
}

impl Rooms {
    pub(crate) fn new(rooms: Vec<Room>, dead: Room) -> Self {
        Self {
            rooms,
            dead,
            ceiling: u64::MAX,
            waiting: VecDeque::new(),
            tickets: 0,
        }
    }

    /// The room of a channel, or that of the dead letters.
    pub(crate) fn get(&self, room: usize) -> &Room {
        match room {
            DEAD => &self.dead,
            channel => &self.rooms[channel],
        }
    }

    fn get_mut(&mut self, room: usize) -> &mut Room {
        match room {
            DEAD => &mut self.dead,
            channel => &mut self.rooms[channel],
        }
    }

    /// Adds the room of one more channel.
    pub(crate) fn push(&mut self, room: Room) {
        self.rooms.push(room);
    }

    /// Gives a room the limits of another; who waits may fit now.
    pub(crate) fn resize(&mut self, room: usize, like: &Room) {
        let (bytes, events) = (self.get(room).bytes, self.get(room).events);
        *self.get_mut(room) = Room {
            bytes,
            events,
            ..*like
        };
        self.grant();
    }

    /// The first room that is too small for its need even when empty.
    pub(crate) fn too_small(&self, needs: &[Need]) -> Option<usize> {
        needs
            .iter()
            .find(|need| !self.get(need.room).could_fit(need))
            .map(|need| need.room)
    }

    /// Bytes in all rooms on the disk.
    pub(crate) fn on_disk(&self) -> u64 {
        let rooms = self.rooms.iter().chain([&self.dead]);
        let on_disk = rooms.filter(|room| room.on_disk);
        on_disk.map(|room| room.bytes).sum()
    }

    /// Says how many bytes all rooms on the disk may hold together, and grants what fits now.
    pub(crate) fn set_ceiling(&mut self, bytes: u64) {
        self.ceiling = bytes;
        self.grant();
    }

    fn fits(&self, need: &Need) -> bool {
        let room = self.get(need.room);
        let below = self.ceiling == u64::MAX
            || !room.on_disk
            || self.on_disk().saturating_add(need.bytes) <= self.ceiling;
        below && room.fits(need)
    }

    /// Whether anybody waits for room at all.
    pub(crate) fn anybody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many wait for this room.
    pub(crate) fn waiting_for(&self, room: usize) -> usize {
        let wants = |waiter: &&Waiter| waiter.needs.iter().any(|need| need.room == room);
        self.waiting.iter().filter(wants).count()
    }

    /// Takes room in all, waits for all, or is refused by one; holds nothing while it waits.
    pub(crate) fn reserve(&mut self, needs: Vec<Need>) -> Reserve {
        let blocked: Vec<usize> = self.waited_for();
        match self.judge(&needs, &blocked) {
            Some(Ok(())) => {
                self.add(&needs);
                Reserve::Granted
            }
            Some(Err(room)) => Reserve::Refused(room),
            None => {
                self.tickets += 1;
                let (tx, rx) = oneshot::channel();
                self.waiting.push_back(Waiter {
                    ticket: self.tickets,
                    needs,
                    tx,
                });
                Reserve::Waits {
                    ticket: self.tickets,
                    rx,
                }
            }
        }
    }

    /// Takes room if there is some now and nobody waits for it.
    pub(crate) fn try_reserve(&mut self, need: Need) -> bool {
        let free = !self.waited_for().contains(&need.room) && self.fits(&need);
        if free {
            self.add(&[need]);
        }
        free
    }

    /// Withdraws a reservation that waits; whether it still did.
    pub(crate) fn withdraw(&mut self, ticket: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiter| waiter.ticket != ticket);
        let did = self.waiting.len() < before;
        if did {
            self.grant();
        }
        did
    }

    /// Gives room back and grants what fits now.
    pub(crate) fn release(&mut self, needs: &[Need]) {
        for need in needs {
            let room = self.get_mut(need.room);
            room.bytes = room.bytes.saturating_sub(need.bytes);
            room.events = room.events.saturating_sub(need.events);
        }
        self.grant();
    }

    /// Takes room without asking: for what is there already when the store opens.
    pub(crate) fn add(&mut self, needs: &[Need]) {
        for need in needs {
            let room = self.get_mut(need.room);
            room.bytes += need.bytes;
            room.events += need.events;
        }
    }

    /// Answers everybody who waits: the store has ended. Dropping the sender says so.
    pub(crate) fn end(&mut self) {
        self.waiting.clear();
    }

    /// Goes through the waiting in order; nobody overtakes another who waits for the same room.
    fn grant(&mut self) {
        let mut blocked = Vec::new();
        let mut still = VecDeque::new();
        for waiter in std::mem::take(&mut self.waiting) {
            let verdict = self.judge(&waiter.needs, &blocked);
            let Some(verdict) = verdict else {
                blocked.extend(self.short_of(&waiter));
                still.push_back(waiter);
                continue;
            };
            if verdict.is_ok() {
                self.add(&waiter.needs);
            }
            // The waiting side may be gone: then nobody holds what was granted.
            if waiter.tx.send(verdict).is_err() && verdict.is_ok() {
                for need in &waiter.needs {
                    let room = self.get_mut(need.room);
                    room.bytes -= need.bytes;
                    room.events -= need.events;
                }
            }
        }
        self.waiting = still;
    }

    /// Granted, refused, or `None` to wait.
    fn judge(&self, needs: &[Need], blocked: &[usize]) -> Option<Granted> {
        let full = |need: &&Need| !self.fits(need) || blocked.contains(&need.room);
        let rejects = |need: &&Need| self.get(need.room).on_full == OnFull::Reject;
        let mut short = needs.iter().filter(full).peekable();
        if short.peek().is_none() {
            return Some(Ok(()));
        }
        short.find(rejects).map(|need| Err(need.room))
    }

    fn waited_for(&self) -> Vec<usize> {
        self.waiting
            .iter()
            .flat_map(|waiter| self.short_of(waiter))
            .collect()
    }

    /// The rooms that keep a reservation waiting: only these are kept free for it.
    fn short_of(&self, waiter: &Waiter) -> Vec<usize> {
        let short = |need: &&Need| !self.fits(need);
        waiter
            .needs
            .iter()
            .filter(short)
            .map(|need| need.room)
            .collect()
    }
}

#[cfg(test)]
mod tests;
