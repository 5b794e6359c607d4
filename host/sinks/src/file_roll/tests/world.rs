//! A file system in memory that can die at any step, and lose what was not synced.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use levada_core::Chance;

use crate::file_roll::disk::{Disk, DiskFile};

/// A file: its bytes now, and as they were when they were last synced.
#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

type FileId = u64;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileId, Content>,
    /// The names now, and those that a power cut leaves for certain.
    names: BTreeMap<PathBuf, FileId>,
    synced_names: BTreeMap<PathBuf, FileId>,
    made: FileId,
    /// Steps until the process dies.
    left: Option<u64>,
    /// A step that fails once, without anything dying.
    fail: Option<u64>,
}

/// The file system. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct World(Arc<Mutex<State>>);

#[derive(Debug)]
struct Handle {
    world: World,
    id: FileId,
}

impl World {
    /// The process dies after so many steps.
    pub(super) fn die_after(&self, steps: u64) {
        self.0.lock().unwrap().left = Some(steps);
    }

    /// One step fails, as on a full disk.
    pub(super) fn fail_after(&self, steps: u64) {
        self.0.lock().unwrap().fail = Some(steps);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.lock().unwrap().left == Some(0)
    }

    /// A new process. After a power cut what was not synced is there in part or not at all.
    pub(super) fn revive(&self, power_cut: bool, chance: &Chance) {
        let mut state = self.0.lock().unwrap();
        (state.left, state.fail) = (None, None);
        if !power_cut {
            return;
        }
        for content in state.files.values_mut() {
            let (now, synced) = (content.now.len(), content.synced.len());
            let kept = match now > synced {
                true => synced + usize::try_from(chance.below((now - synced) as u64 + 1)).unwrap(),
                false => now,
            };
            let mut after = content.now[..kept].to_vec();
            // What was written and not synced may also be garbage.
            for byte in after.iter_mut().skip(synced) {
                if chance.below(4) == 0 {
                    *byte = 0;
                }
            }
            // A cut that was not synced may not have happened.
            if now < synced && chance.below(2) == 0 {
                after = content.synced.clone();
            }
            *content = Content {
                now: after.clone(),
                synced: after,
            };
        }
        if chance.below(2) == 0 {
            state.names = state.synced_names.clone();
        } else {
            state.synced_names = state.names.clone();
        }
    }

    /// Every file by name.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let state = self.0.lock().unwrap();
        let text = |(path, id): (&PathBuf, &FileId)| {
            let text = String::from_utf8_lossy(&state.files[id].now).into_owned();
            (path.to_str().unwrap().to_owned(), text)
        };
        state.names.iter().map(text).collect()
    }

    /// Counts one step; none goes through once the process is dead.
    fn step<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        if let Some(fail) = &mut state.fail {
            if *fail == 0 {
                state.fail = None;
                return Err(io::ErrorKind::StorageFull.into());
            }
            *fail -= 1;
        }
        match &mut state.left {
            Some(0) => return Err(io::Error::other("dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        work(&mut state)
    }

    fn handle(&self, id: FileId) -> Box<dyn DiskFile> {
        Box::new(Handle {
            world: self.clone(),
            id,
        })
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for World {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let id = self.step(|state| {
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.made += 1;
            let id = state.made;
            state.files.insert(id, Content::default());
            state.names.insert(path.to_owned(), id);
            Ok(id)
        })?;
        Ok(self.handle(id))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let id = self.step(|state| state.names.get(path).copied().ok_or_else(missing))?;
        Ok(self.handle(id))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.step(|state| {
            Ok(state
                .names
                .get(path)
                .map(|id| state.files[id].now.len() as u64))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|state| {
            let id = state.names.remove(from).ok_or_else(missing)?;
            assert!(
                !state.names.contains_key(to),
                "{} is overwritten",
                to.display()
            );
            state.names.insert(to.to_owned(), id);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|state| state.names.remove(path).map(drop).ok_or_else(missing))
    }

    fn create_folders(&self, _path: &Path) -> io::Result<()> {
        self.step(|_| Ok(()))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            let here = |(name, _): &(&PathBuf, &FileId)| name.parent() == Some(path);
            let fresh: BTreeMap<_, _> = state.names.iter().filter(here).map(pair).collect();
            state
                .synced_names
                .retain(|name, _| name.parent() != Some(path));
            state.synced_names.extend(fresh);
            Ok(())
        })
    }

    fn walk(&self, root: &Path, _depth: usize) -> io::Result<Vec<PathBuf>> {
        let under = |name: &&PathBuf| name.starts_with(root);
        self.step(|state| Ok(state.names.keys().filter(under).cloned().collect()))
    }
}

fn pair((name, id): (&PathBuf, &FileId)) -> (PathBuf, FileId) {
    (name.clone(), *id)
}

impl Handle {
    fn step<T>(&self, work: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        self.world.step(|state| {
            let content = state.files.get_mut(&self.id).ok_or_else(missing)?;
            Ok(work(content))
        })
    }
}

impl DiskFile for Handle {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        // A write can end in its middle: the first half is there when the second step dies.
        let half = bytes.len() / 2;
        for (from, part) in [(at, &bytes[..half]), (at + half, &bytes[half..])] {
            self.step(|content| {
                content
                    .now
                    .resize(content.now.len().max(from + part.len()), 0);
                content.now[from..from + part.len()].copy_from_slice(part);
            })?;
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.step(|content| content.now.resize(length, 0))
    }

    fn sync(&self) -> io::Result<()> {
        self.step(|content| content.synced = content.now.clone())
    }

    fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}
