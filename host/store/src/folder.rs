//! The folder of a store: made durable, and a file in it that is whole or not there.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use levada_core::Incarnation;
use redb::Database;

use crate::{
    ballast::Ballast,
    disk::Disk,
    file::{Ahead, FileBackend, Thrift},
    pages::{Check, open_pages},
    params::OpenError,
    scan::{self, FORMAT, Meta},
    trouble::{Trouble, guarded},
};

/// The store's file in its folder.
pub(crate) const FILE: &str = "store.redb";

/// The first bytes of a redb file (redb, `docs/design.md`).
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// Memory for the few pages of an empty store.
const CACHE: usize = 1 << 20;

/// Makes the folder (0750) and those above it, if they are not there.
pub(crate) fn make(dir: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io {
        attempt: "create the folder",
        path: dir.to_owned(),
        source,
    };
    if dir.is_dir() {
        return Ok(());
    }
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|dir| !dir.exists())
        .map(Path::to_owned)
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(failed)?;
    // A folder is there after a power cut only when its parent was synced.
    for made in missing {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    }
    Ok(())
}

/// Whether there is a file of that name.
pub(crate) fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|source| OpenError::Io {
        attempt: "look for",
        path: path.to_owned(),
        source,
    })
}

/// Makes the file of a new store. It is made under another name and moved to its own when the
/// first commits, which are `fill`, are in it: a store of that name is always whole, and what is not is never taken for
/// an empty one.
pub(crate) fn make_file(
    path: &Path,
    fill: impl FnOnce(&Database) -> Result<(), redb::Error>,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io {
        attempt: "create",
        path: path.to_owned(),
        source,
    };
    let unreadable = |trouble: Trouble| OpenError::of(path, trouble);
    let new = path.with_extension("redb.new");
    let file = open_rw(&new, true).map_err(failed)?;
    let backend =
        FileBackend::new(Arc::new(file), Ahead::default(), Thrift::Normal).map_err(failed)?;
    let db = open_pages(backend, CACHE, Check::AsNeeded).map_err(unreadable)?;
    guarded(|| fill(&db)).map_err(unreadable)?;
    guarded(|| db.close()).map_err(unreadable)?;
    let moved = File::open(&new).and_then(|file| file.sync_all());
    moved
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| sync(path.parent().unwrap_or(path)))
        .map_err(failed)
}

/// An empty store.
pub(crate) fn empty(db: &Database, incarnation: Incarnation) -> Result<(), redb::Error> {
    let meta = Meta {
        format: FORMAT,
        incarnation,
        channels: BTreeMap::new(),
    };
    scan::write_meta(db, &meta)
}

/// Renames a damaged file to `<name>.corrupt-<n>`, and says what that is.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let aside = |n: u32| path.with_extension(format!("redb.corrupt-{n}"));
    let free = (1..).map(aside).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| aside(0));
    fs::rename(path, &aside)
        .and_then(|()| sync(path.parent().unwrap_or(path)))
        .map_err(|source| OpenError::Io {
            attempt: "set aside",
            path: path.to_owned(),
            source,
        })?;
    Ok(aside)
}

/// Opens the file of a store for reading only, if it looks like one.
pub(crate) fn open_to_read(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io {
        attempt: "open",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let reason = if looks_like_redb(&file).map_err(failed)? {
        return Ok(file);
    } else if length < 2 * 4096 {
        format!("it has only {length} bytes: no store is that short")
    } else {
        "it is no redb file".into()
    };
    let path = path.to_owned();
    Err(OpenError::Damaged { path, reason })
}

/// Opens the file of a store, if it looks like one, with the space that is kept in it and beside
/// it on the disk it lies on.
pub(crate) fn open_file(path: &Path) -> Result<(File, Ahead, Ballast), OpenError> {
    open_to_read(path)?;
    let open = || {
        let file = open_rw(path, false)?;
        let (space, used) = (Disk::space(&file)?, file.metadata()?.len());
        Ok((file, space, used))
    };
    let (file, space, used) = open().map_err(|source| OpenError::Io {
        attempt: "open",
        path: path.to_owned(),
        source,
    })?;
    let ahead = Ahead::on(space, used);
    let ballast = Ballast::new(path.parent().unwrap_or(path), ahead.least);
    if space.is_none_or(|space| space.free > space.left_free() + 2 * ahead.least) {
        ballast.take_on();
    }
    Ok((file, ahead, ballast))
}

/// Whether the file begins as redb's do and has the two pages that even an empty one has. Checked
/// before anything is cut off its end.
fn looks_like_redb(file: &File) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    let long_enough = file.metadata()?.len() >= 2 * 4096;
    if long_enough {
        file.read_exact_at(&mut magic, 0)?;
    }
    Ok(long_enough && magic == *MAGIC)
}

fn open_rw(path: &Path, make: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    if make {
        options.create(true).truncate(true);
    }
    options.open(path)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
