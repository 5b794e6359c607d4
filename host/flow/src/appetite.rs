//! How much a sink takes at once.

use levada_core::Want;

/// Half as much after every delivery that did not get through, twice as much after one that did:
/// a link that is too slow for a whole batch within the sink's time carries at least a part of it,
/// and so does a peer whose transactions or whose room are small.
#[derive(Debug)]
pub(crate) struct Appetite {
    full: Want,
    halvings: u32,
}

/// Fewer bytes than this are not worth a delivery of their own.
const LEAST_BYTES: usize = 1 << 10;

impl Appetite {
    pub(crate) fn new(full: Want) -> Self {
        Self { full, halvings: 0 }
    }

    /// What to take now.
    pub(crate) fn want(&self) -> Want {
        let Want { events, bytes, .. } = self.full;
        Want {
            events: (events >> self.halvings).max(1),
            bytes: (bytes >> self.halvings).max(LEAST_BYTES.min(bytes)),
            ..self.full
        }
    }

    /// A delivery did not get through.
    pub(crate) fn failed(&mut self) {
        let now = self.want();
        if now.events > 1 || now.bytes > LEAST_BYTES {
            self.halvings += 1;
        }
    }

    /// A delivery got through.
    pub(crate) fn went_well(&mut self) {
        self.halvings = self.halvings.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_to_one_event_and_grows_back() {
        let full = Want::default();
        let mut appetite = Appetite::new(full);
        assert_eq!(appetite.want(), full);
        for _ in 0..100 {
            appetite.failed();
        }
        assert_eq!(appetite.want().events, 1);
        assert_eq!(appetite.want().bytes, LEAST_BYTES);
        for _ in 0..10 {
            appetite.went_well();
        }
        assert_eq!(appetite.want(), full);
    }

    #[test]
    fn a_want_that_is_small_already_stays() {
        let full = Want {
            events: 1,
            bytes: 10,
            ..Want::default()
        };
        let mut appetite = Appetite::new(full);
        appetite.failed();
        assert_eq!(appetite.want(), full);
    }
}
