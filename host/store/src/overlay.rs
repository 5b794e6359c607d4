//! A file that is read but never written: what redb writes to repair it stays in memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

const PAGE: u64 = 4096;

/// A copy-on-write view of a store's file.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the file ends.
    on_disk: u64,
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let found = file.metadata()?.len();
        let len = found - found % PAGE;
        Ok(Self {
            file,
            state: Mutex::new(State {
                on_disk: len,
                len,
                pages: BTreeMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, state: &State, at: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = state.pages.get(&at) {
            return Ok(page.clone());
        }
        let mut page = vec![0; usize::try_from(PAGE).unwrap_or(4096)];
        if at < state.on_disk {
            self.file.read_exact_at(&mut page, at)?;
        }
        Ok(page)
    }
}

/// The pages that a range touches: each with the part of it, and where that lies in the range.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let end = offset + len as u64;
    let first = offset - offset % PAGE;
    (0..)
        .map(move |n| first + n * PAGE)
        .take_while(move |at| *at < end)
        .map(move |at| {
            let (from, to) = (offset.max(at), end.min(at + PAGE));
            let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            (at, small(from - at)..small(to - at), small(from - offset))
        })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        if offset + out.len() as u64 > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (at, part, to) in pages(offset, out.len()) {
            let page = self.page(&state, at)?;
            out[to..to + part.len()].copy_from_slice(&page[part]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.len = len;
        state.on_disk = state.on_disk.min(len);
        state.pages.split_off(&len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if offset + data.len() as u64 > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (at, part, from) in pages(offset, data.len()) {
            let mut page = self.page(&state, at)?;
            let len = part.len();
            page[part].copy_from_slice(&data[from..from + len]);
            state.pages.insert(at, page);
        }
        Ok(())
    }
}
