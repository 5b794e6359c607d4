//! The file on a real file system.

use std::{fs::OpenOptions, path::Path, sync::Arc};

use redb::StorageBackend;

use super::{Ahead, FileBackend, Thrift};

fn open(path: &Path) -> FileBackend {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    FileBackend::new(Arc::new(file), Ahead::default(), Thrift::Normal).unwrap()
}

/// Waits until the thread has nothing more to do: it works under the lock that this takes.
fn ahead_of(backend: &FileBackend) -> u64 {
    loop {
        let physical = backend.shared.lock().physical;
        if physical >= backend.shared.target() {
            return physical;
        }
        std::thread::yield_now();
    }
}

#[test]
fn zeros_are_kept_ahead_and_never_over_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let backend = open(&path);
    backend.set_len(1 << 20).unwrap();
    let page = vec![7; 4096];
    for n in 0..256 {
        backend.write(n * 4096, &page).unwrap();
    }
    assert!(ahead_of(&backend) >= (1 << 20) + Ahead::default().least);
    assert_eq!(backend.len().unwrap(), 1 << 20);
    let mut read = vec![0; 4096];
    for n in 0..256 {
        backend.read(n * 4096, &mut read).unwrap();
        assert_eq!(read, page);
    }
    // Growing into it finds zeros.
    backend.set_len(2 << 20).unwrap();
    backend.read(1 << 20, &mut read).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    backend.close().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 << 20);
}

#[test]
fn a_torn_end_is_cut_to_whole_pages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, vec![1; 3 * 4096 + 17]).unwrap();
    let backend = open(&path);
    assert_eq!(backend.len().unwrap(), 3 * 4096);
    drop(backend);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * 4096);
}

#[test]
fn nothing_is_read_or_written_beyond_the_length() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(&dir.path().join("f"));
    backend.set_len(4096).unwrap();
    assert!(backend.write(4095, &[1, 2]).is_err());
    assert!(backend.read(4096, &mut [0]).is_err());
}

#[test]
fn space_that_was_given_up_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let backend = open(&path);
    backend.set_len(512 << 20).unwrap();
    backend.set_len(1 << 20).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() <= 65 << 20);
    assert_eq!(backend.len().unwrap(), 1 << 20);
}
