//! The lanes that were received, as marks of the source (delivery contract D4.3, D4.7).

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use levada_core::{MarkWrite, Marks};
use levada_rpc::hop::{Mark, Open};
use tokio::time::{Duration, Instant};

/// Most lanes whose marks are kept.
const MOST: usize = 10_000;

/// So many go at once when there are more, so that not every new lane looks for one to go.
const SPARE: usize = MOST / 10;

/// A lane that was silent for so many days is forgotten. Days are counted while the source runs:
/// a clock that jumps forgets nothing.
const DAYS: u32 = 90;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the keys begin with.
const PREFIX: &str = "hop/";

/// The version of a stored mark.
const VERSION: u8 = 1;

/// The key of a lane: who sends, which life of its store, which channel and lane of it.
pub(super) fn key(peer: &str, open: &Open) -> String {
    let Open {
        incarnation,
        channel,
        lane,
        ..
    } = open;
    format!("{PREFIX}{peer}/{incarnation}/{channel}/{lane}")
}

/// A mark as it is stored: version, position, whether the chain is known and the chain, the day of
/// the last put.
pub(super) fn encode(mark: Mark, day: u32) -> Bytes {
    let mut value = vec![VERSION];
    value.extend_from_slice(&mark.position.to_le_bytes());
    value.push(u8::from(mark.chain.is_some()));
    value.extend_from_slice(&mark.chain.unwrap_or_default().to_le_bytes());
    value.extend_from_slice(&day.to_le_bytes());
    value.into()
}

/// Reads what [`encode`] wrote, with the day; `None` if it is something else.
pub(super) fn decode(value: &[u8]) -> Option<(Mark, u32)> {
    let (version, rest) = value.split_first()?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let (known, rest) = rest.split_first()?;
    let (chain, day) = rest.split_first_chunk::<8>()?;
    let mark = Mark {
        position: u64::from_le_bytes(*position),
        chain: (*known == 1).then_some(u64::from_le_bytes(*chain)),
    };
    let day = u32::from_le_bytes(day.try_into().ok()?);
    (*version == VERSION).then_some((mark, day))
}

/// How many lanes there are, and which may go.
#[derive(Debug)]
pub(super) struct Lanes {
    began: Instant,
    first_day: u32,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    lanes: usize,
    /// The day when old ones were looked for last.
    swept: u32,
}

impl Lanes {
    /// Goes on from what a source wrote.
    pub(super) fn new(marks: &Marks) -> Self {
        let days: Vec<_> = lanes(marks).map(|(_, day)| day).collect();
        let first_day = days.iter().copied().max().unwrap_or_default();
        Self {
            began: Instant::now(),
            first_day,
            counted: Mutex::new(Counted {
                lanes: days.len(),
                swept: first_day,
            }),
        }
    }

    /// The day that a mark of now is written with.
    pub(super) fn today(&self) -> u32 {
        let days = self.began.elapsed().as_secs() / DAY.as_secs();
        let days = u32::try_from(days).unwrap_or(u32::MAX);
        self.first_day.saturating_add(days)
    }

    /// Counts a lane that is about to get its first mark, and says which marks go with that: none,
    /// but once a day or when there are too many. A mark that goes costs duplicates at most.
    pub(super) fn enter(
        &self,
        marks: impl FnOnce() -> Marks,
        in_use: impl Fn(&str) -> bool,
    ) -> Vec<MarkWrite> {
        let today = self.today();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.lanes += 1;
        if counted.lanes <= MOST && counted.swept == today {
            return Vec::new();
        }
        let marks = marks();
        let mut known: Vec<_> = lanes(&marks).filter(|(key, _)| !in_use(key)).collect();
        known.sort_unstable_by_key(|(_, day)| *day);
        let too_many = if counted.lanes > MOST {
            counted.lanes - MOST + SPARE
        } else {
            0
        };
        let old = known.partition_point(|(_, day)| day.saturating_add(DAYS) < today);
        known.truncate(old.max(too_many));
        counted.lanes -= known.len();
        counted.swept = today;
        known
            .into_iter()
            .map(|(key, _)| MarkWrite::remove(key))
            .collect()
    }
}

/// The key and the day of every lane.
fn lanes(marks: &Marks) -> impl Iterator<Item = (&str, u32)> {
    let hops = marks.iter().filter(|(key, _)| key.starts_with(PREFIX));
    hops.map(|(key, value)| (key, decode(value).map_or(0, |(_, day)| day)))
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    fn marks(days: impl IntoIterator<Item = u32>) -> Marks {
        let mark = Mark {
            position: 7,
            chain: None,
        };
        let of = |(n, day): (usize, u32)| (format!("hop/{n:05}"), encode(mark, day));
        let other = ("other".to_owned(), Bytes::new());
        Marks::new(days.into_iter().enumerate().map(of).chain([other]))
    }

    fn gone(lanes: &Lanes, marks: &Marks) -> Vec<String> {
        let gone = lanes.enter(|| marks.clone(), |key| key == "hop/00001");
        gone.into_iter().map(|write| write.key).collect()
    }

    #[test]
    fn a_mark_reads_back_and_anything_else_is_none() {
        for chain in [None, Some(5)] {
            let mark = Mark {
                position: 1 << 40,
                chain,
            };
            let value = encode(mark, 90);
            assert_eq!(decode(&value), Some((mark, 90)));
            for end in 0..value.len() {
                assert_eq!(decode(&value[..end]), None);
            }
            assert_eq!(decode(&[&value[..], &[0]].concat()), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_forgotten_after_ninety_days_of_the_sources_own() {
        let known = marks([0, 0, 5, 6]);
        let lanes = Lanes::new(&known);
        assert!(gone(&lanes, &known).is_empty());
        time::advance(DAY * 89).await;
        assert_eq!(lanes.today(), 95);
        // 0 is too old; 1 is, too, and in use; 5 is 90 days old today.
        assert_eq!(gone(&lanes, &known), ["hop/00000"]);
        time::advance(DAY).await;
        let known = marks([0, 0, 5, 6]);
        assert_eq!(gone(&lanes, &known), ["hop/00000", "hop/00002"]);
        // Once a day is enough.
        assert!(gone(&lanes, &known).is_empty());
    }

    #[test]
    fn the_longest_silent_lanes_make_room_for_new_ones() {
        let full = u32::try_from(MOST).unwrap();
        let known = marks((0..full).map(|n| n / 1000));
        let lanes = Lanes::new(&known);
        let gone = gone(&lanes, &known);
        assert_eq!(gone.len(), SPARE + 1);
        assert!(!gone.contains(&"hop/00001".to_owned()));
        assert_eq!(gone[0], "hop/00000");
        assert!(gone.iter().all(|key| key.as_str() < "hop/02000"));
    }
}
