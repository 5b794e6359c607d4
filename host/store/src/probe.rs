//! Whether the disk does what it is asked: a sync that takes no time wrote nothing.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

/// The file that is written and synced, in the store's folder.
const NAME: &str = "store.probe";
/// How often.
const TIMES: usize = 32;
/// No disk that survives a loss of power is faster in the median.
const PLAUSIBLE: Duration = Duration::from_micros(20);

/// Whether a median sync is too fast to be true.
pub(crate) fn is_implausible(median: Duration) -> bool {
    median < PLAUSIBLE
}

/// The median of some syncs in this folder; warns if it is implausible (delivery contract D0).
pub(crate) fn measure(dir: &Path) -> Option<Duration> {
    let path = dir.join(NAME);
    let measured = File::create(&path).and_then(|file| median(&file));
    let removed = fs::remove_file(&path);
    match measured.and_then(|median| removed.map(|()| median)) {
        Ok(median) => {
            debug!(?median, "measured the syncs of the store's disk");
            if is_implausible(median) {
                warn!(
                    median_us = median.as_micros(),
                    "the store's disk syncs faster than a disk can: what is acknowledged may not \
                     survive a loss of power"
                );
            }
            Some(median)
        }
        Err(error) => {
            warn!(%error, "cannot measure the syncs of the store's disk");
            None
        }
    }
}

fn median(file: &File) -> io::Result<Duration> {
    let mut took = Vec::with_capacity(TIMES);
    for n in 0..TIMES {
        // Something else each time: what did not change need not be written.
        let page = vec![u8::try_from(n % 251).unwrap_or(0) + 1; 4096];
        file.write_all_at(&page, 0)?;
        let started = Instant::now();
        file.sync_data()?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(took[TIMES / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_microseconds_are_the_least_that_is_believed() {
        assert!(is_implausible(Duration::from_nanos(19_999)));
        assert!(!is_implausible(Duration::from_micros(20)));
    }
}
