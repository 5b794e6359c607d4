//! One file on a disk that loses, tears and reorders what was not synced.

mod medium;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use levada_core::Chance;
use levada_store::testing::Disk;

use medium::{Medium, Pending};

/// What the disk does when it is told to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// A sync that has returned holds.
    Honest,
    /// A sync does nothing, and says that it did.
    Lies,
}

/// How a life on this disk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// What was not synced is kept, lost, torn or reordered.
    PowerCut,
    /// The process is killed: the system has its writes, the medium has not.
    Kill,
}

/// Which operations a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Write,
    SetLength,
    Sync,
    Read,
    /// Whatever changes something.
    Change,
}

/// An error of the disk, planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How many of these operations work before it.
    pub after: u64,
    pub on: On,
    /// The system's number of the error.
    pub errno: i32,
    /// Whether it stays until [`SimDisk::repair`].
    pub sticky: bool,
}

/// The system's number of an error of the device.
pub const EIO: i32 = 5;
/// The system's number of a lack of space.
pub const ENOSPC: i32 = 28;

/// The file. Clones are the same file.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// What a running process reads.
    view: Vec<u8>,
    medium: Medium,
    chance: Chance,
    honesty: Honesty,
    /// Operations that change something, since the beginning.
    operations: u64,
    /// The operation during which the life ends.
    end_at: Option<u64>,
    ended: bool,
    fault: Option<Fault>,
    /// Whether a fault was met since it was planned.
    met: bool,
    /// A running hash of every operation: equal for equal runs.
    trace: u64,
}

impl SimDisk {
    /// An empty file.
    #[must_use]
    pub fn new(chance: Chance, honesty: Honesty) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            view: Vec::new(),
            medium: Medium::default(),
            chance,
            honesty,
            operations: 0,
            end_at: None,
            ended: false,
            fault: None,
            met: false,
            trace: 0,
        })))
    }

    /// Lets the life end during the operation that is this many after the next one.
    pub fn end_after(&self, operations: u64) {
        let mut platter = self.lock();
        platter.end_at = Some(platter.operations + operations + 1);
    }

    /// Lets the life go on: an end that was planned does not come.
    pub fn go_on(&self) {
        self.lock().end_at = None;
    }

    /// Ends the life now, between two operations.
    pub fn end_now(&self) {
        self.lock().ended = true;
    }

    /// Whether the life has ended: every operation fails until [`restart`](Self::restart).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Begins another life on what the last one left.
    pub fn restart(&self, end: End) {
        let mut platter = self.lock();
        let platter = &mut *platter;
        if end == End::PowerCut {
            platter.medium.cut(&mut platter.view, &platter.chance);
        }
        platter.ended = false;
        platter.end_at = None;
    }

    /// Plans a fault, in place of the one before.
    pub fn plan(&self, fault: Fault) {
        let mut platter = self.lock();
        platter.fault = Some(fault);
        platter.met = false;
    }

    /// Ends every fault.
    pub fn repair(&self) {
        self.lock().fault = None;
    }

    /// Whether the planned fault was met since this was asked last.
    #[must_use]
    pub fn take_failed(&self) -> bool {
        std::mem::take(&mut self.lock().met)
    }

    /// How many operations there were that change something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// A hash of every operation so far: two runs that did the same have the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// The file as a copy tool would read it now.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.lock().view.clone()
    }

    /// Puts an older copy of the file back, synced.
    pub fn put_back(&self, image: Vec<u8>) {
        let mut platter = self.lock();
        platter.medium = Medium::of(image.clone());
        platter.view = image;
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    /// Counts an operation; whether the life ends during it.
    fn begin(&mut self, what: u64, at: u64, data: u64) -> io::Result<bool> {
        if self.ended {
            return Err(power_is_off());
        }
        self.operations += 1;
        for word in [what, at, data] {
            self.trace = (self.trace ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
        self.ended = self.end_at == Some(self.operations);
        Ok(self.ended)
    }

    /// The planned error, if it is this operation's turn.
    fn fault(&mut self, on: On) -> Option<io::Error> {
        let fault = self.fault.as_mut()?;
        let change = fault.on == On::Change && on != On::Read;
        if fault.on != on && !change {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let error = io::Error::from_raw_os_error(fault.errno);
        self.met = true;
        if !fault.sticky {
            self.fault = None;
        }
        Some(error)
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (from, to) = (size(offset), size(offset) + data.len());
        let before = self.view.len();
        if before < to {
            self.view.resize(to, 0);
        }
        self.view[from..to].copy_from_slice(data);
        self.medium.pend(Pending::Write {
            offset: from,
            data: data.into(),
        });
        if before < to {
            self.medium.pend(Pending::Length { from: before, to });
        }
    }
}

impl Disk for SimDisk {
    fn length(&self) -> io::Result<u64> {
        let platter = self.lock();
        if platter.ended {
            return Err(power_is_off());
        }
        Ok(platter.view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.lock();
        if platter.ended {
            return Err(power_is_off());
        }
        if let Some(error) = platter.fault(On::Read) {
            return Err(error);
        }
        let from = size(offset);
        let there = platter
            .view
            .get(from..from + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        let ends = platter.begin(1, offset, hash(data))?;
        if let Some(error) = platter.fault(On::Write) {
            // Some of it may have been written.
            let most = data.len() as u64 / 512 + 1;
            let part = size(platter.chance.below(most)) * 512;
            platter.write(offset, &data[..part]);
            return Err(error);
        }
        platter.write(offset, data);
        if ends { Err(power_is_off()) } else { Ok(()) }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut platter = self.lock();
        let ends = platter.begin(2, length, 0)?;
        if let Some(error) = platter.fault(On::SetLength) {
            return Err(error);
        }
        let (from, to) = (platter.view.len(), size(length));
        platter.view.resize(to, 0);
        platter.medium.pend(Pending::Length { from, to });
        if ends { Err(power_is_off()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = self.lock();
        let platter = &mut *platter;
        if platter.begin(3, 0, 0)? {
            return Err(power_is_off());
        }
        if let Some(error) = platter.fault(On::Sync) {
            platter.medium.forget(&platter.chance);
            return Err(error);
        }
        if platter.honesty == Honesty::Honest {
            platter.medium.settle();
        }
        Ok(())
    }

    fn forget_cache(&self) -> io::Result<()> {
        // As for a file: only what is clean can be forgotten.
        self.sync()?;
        let mut platter = self.lock();
        let platter = &mut *platter;
        platter.medium.reread(&mut platter.view);
        Ok(())
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

/// Files of a simulation fit into memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a simulated file is small")
}

/// Enough to tell two runs apart.
fn hash(data: &[u8]) -> u64 {
    data.chunks(8).fold(data.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
    })
}

#[cfg(test)]
mod tests;
