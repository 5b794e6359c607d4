//! Single bits that change in the closed file of a store (F13): it is opened, everything in it is
//! read and settled, and nothing that comes out is wrong.
//!
//! Every flip must be harmless, or noticed: an event set aside alone, a mark that counts as none,
//! or the whole file set aside or refused by name.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use levada_core::{
    Chance, ChannelName, Commit, DeadLetter, Effects, MarkWrite, Outcome, Outcomes, PartId,
    Settlement, Store, TakeError, Want,
    inspect::Inspect,
    store::{ChannelPut, Need},
};
use levada_store::{
    ChannelKind, ChannelSpec, OnFull, OpenError, StoreParams, Stores,
    testing::{self, Stepper},
};
use tempfile::TempDir;

use super::{
    cuts::{describe, panic_text},
    events::Events,
    life::poll,
    totals::FlipTotals,
};

/// How many bits of one file are flipped, each alone.
pub const FLIPS: u64 = 50;

/// What a seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub totals: FlipTotals,
    /// What was wrong, with the byte and the bit.
    pub finding: Option<String>,
}

/// Makes one file by a seed, and flips some of its bits.
///
/// # Panics
/// If the machine has no folder for temporary files, or a sound store does not work.
#[must_use]
pub fn run(seed: u64) -> Report {
    let chance = Chance::seeded(seed);
    let sound = Sound::make(&chance);
    let mut totals = FlipTotals {
        seeds: 1,
        ..FlipTotals::default()
    };
    let mut finding = None;
    for _ in 0..FLIPS {
        let bit = chance.below(sound.bytes.len() as u64 * 8);
        let flipped = catch_unwind(AssertUnwindSafe(|| sound.flip(bit, &mut totals)));
        let wrong = match flipped {
            Ok(flipped) => flipped.err(),
            Err(panic) => Some(told(&*panic)),
        };
        totals.flips += 1;
        if let Some(wrong) = wrong {
            finding = Some(format!("bit {} of byte {}: {wrong}", bit % 8, bit / 8));
            break;
        }
    }
    totals.findings = u64::from(finding.is_some());
    Report {
        seed,
        totals,
        finding,
    }
}

fn told(panic: &(dyn Any + Send)) -> String {
    format!("a panic: {}", panic_text(panic))
}

/// Everything that comes out of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Contents {
    /// The numbers of the events of each channel, in order.
    channels: Vec<Vec<u64>>,
    marks: BTreeMap<String, Bytes>,
    letters: BTreeSet<u64>,
}

/// A file that was closed in order, and what is in it.
#[derive(Debug)]
struct Sound {
    bytes: Vec<u8>,
    events: Events,
    contents: Contents,
    /// Events that were put and are settled: they come back where the note of that is damaged.
    settled: Vec<BTreeSet<u64>>,
}

const CHANNELS: [&str; 2] = ["first", "second"];
const SOURCE: &str = "sources.simulated";

impl Sound {
    fn make(chance: &Chance) -> Self {
        let place = Place::new();
        let mut events = Events::default();
        let mut settled = vec![BTreeSet::new(); CHANNELS.len()];
        let mut life = place.open(chance).expect("a fresh store opens");
        for _ in 0..20 + chance.below(40) {
            life.put(&mut events, chance);
            if chance.below(3) == 0 {
                let channel = below(chance, CHANNELS.len());
                let gone = life.settle_some(channel, &events, chance);
                settled[channel].extend(gone);
            }
        }
        life.close();
        let bytes = fs::read(place.file()).expect("the file is there");
        let mut life = place.open(chance).expect("a sound store opens");
        let contents = life.read(&events).expect("a sound store is read");
        life.close();
        Self {
            bytes,
            events,
            contents,
            settled,
        }
    }

    /// Flips one bit of a copy, and reads and settles everything.
    fn flip(&self, bit: u64, totals: &mut FlipTotals) -> Result<(), String> {
        let place = Place::new();
        fs::write(place.file(), &self.bytes).map_err(|error| error.to_string())?;
        let (at, mask) = (bit / 8, 1 << (bit % 8));
        let byte = self.bytes[usize::try_from(at).unwrap_or(usize::MAX)] ^ mask;
        let file = fs::OpenOptions::new().write(true).open(place.file());
        file.and_then(|file| file.write_all_at(&[byte], at))
            .map_err(|error| error.to_string())?;
        let mut life = match place.open(&Chance::seeded(bit)) {
            Ok(life) => life,
            Err(error) => {
                totals.refused += 1;
                let named = describe(&error).contains("store.redb");
                return named
                    .then_some(())
                    .ok_or_else(|| format!("refused: {error}"));
            }
        };
        let found = life.read(&self.events)?;
        self.judge(&found, &life, totals)?;
        life.check_books()?;
        life.close();
        // What was read is settled, and stays so.
        let mut life = place
            .open(&Chance::seeded(bit))
            .map_err(|error| format!("the second open: {}", describe(&error)))?;
        let again = life.read(&self.events)?;
        let left: usize = again.channels.iter().map(Vec::len).sum();
        life.check_books()?;
        life.close();
        if left > 0 {
            return Err(format!("{left} events came back that were settled"));
        }
        Ok(())
    }

    /// What is there must be what was put there; what is missing must be counted, or lie in a file
    /// that was set aside.
    fn judge(&self, found: &Contents, life: &Life, totals: &mut FlipTotals) -> Result<(), String> {
        let set_aside = life
            .store
            .store()
            .is_some_and(|info| !info.set_aside.is_empty());
        let (mut lost, mut back) = (0, 0);
        for (channel, numbers) in found.channels.iter().enumerate() {
            let (before, settled) = (&self.contents.channels[channel], &self.settled[channel]);
            let there: BTreeSet<u64> = numbers.iter().copied().collect();
            if there.len() != numbers.len() || !numbers.is_sorted() {
                return Err(format!("out of order, or twice: {numbers:?}"));
            }
            let strange = |number: &&u64| !before.contains(number) && !settled.contains(number);
            if let Some(strange) = numbers.iter().find(strange) {
                return Err(format!("{strange} was never in channel {channel}"));
            }
            lost += before
                .iter()
                .filter(|number| !there.contains(number))
                .count() as u64;
            back += numbers
                .iter()
                .filter(|number| settled.contains(number))
                .count() as u64;
        }
        for (key, value) in &found.marks {
            if self.contents.marks.get(key) != Some(value) {
                return Err(format!("mark `{key}` is {value:?}"));
            }
        }
        if !found.letters.is_subset(&self.contents.letters) {
            return Err("a dead letter that nobody wrote".into());
        }
        let marks_lost = (self.contents.marks.len() - found.marks.len()) as u64;
        let letters_lost = (self.contents.letters.len() - found.letters.len()) as u64;
        let counted = life.store.store().map_or(0, |info| info.quarantined);
        if lost > counted && !set_aside {
            return Err(format!(
                "{lost} events are missing, {counted} are counted as damaged"
            ));
        }
        totals.events_lost += lost;
        totals.events_again += back;
        totals.marks_lost += marks_lost;
        totals.letters_lost += letters_lost;
        match (set_aside, lost + back + marks_lost + letters_lost) {
            (true, _) => totals.set_aside += 1,
            (false, 0) => totals.harmless += 1,
            (false, _) => totals.noticed += 1,
        }
        Ok(())
    }
}

/// A folder for a store, in memory where the machine has such a place.
#[derive(Debug)]
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self(dir.expect("a folder can be made"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("store.redb")
    }

    fn open(&self, chance: &Chance) -> Result<Life, OpenError> {
        let spec = |name| ChannelSpec {
            name: channel(name),
            kind: ChannelKind::Durable,
            capacity_bytes: 64 << 20,
            capacity_events: None,
            on_full: OnFull::Reject,
            lanes: None,
        };
        let params = StoreParams {
            cache_bytes: 1 << 20,
            chance: Chance::seeded(chance.bits()),
            ..StoreParams::new(self.0.path(), CHANNELS.map(spec).to_vec())
        };
        let (store, stepper) = testing::open_stepped(params)?;
        Ok(Life { store, stepper })
    }
}

/// An open store whose writer is stepped.
struct Life {
    store: Arc<Stores>,
    stepper: Stepper,
}

impl Life {
    fn step(&mut self) {
        while self.stepper.step(Instant::now() + Duration::from_secs(1)) {}
    }

    fn close(self) {
        drop(self.store);
        self.stepper.close();
    }

    fn put(&mut self, events: &mut Events, chance: &Chance) {
        let (first, batch) = events.make(1 + chance.below(40));
        let mut effects = Effects::default();
        if chance.below(6) == 0 {
            let (number, batch) = events.make(1);
            effects.dead_letters.push(DeadLetter {
                event: batch.event_bytes(0).unwrap_or_default(),
                origin: None,
                part: part("handlers.simulated"),
                flow: part(SOURCE),
                reason: number.to_string(),
                limit: None,
                backtrace: None,
                handler: None,
                recording: None,
                attempts: 1,
                at_ms: number,
            });
        }
        let put = |name: &str| ChannelPut {
            channel: channel(name),
            batch: batch.clone(),
            need: Need::Required,
        };
        let commit = Commit {
            part: part(SOURCE),
            puts: CHANNELS.map(put).to_vec(),
            marks: vec![MarkWrite::set(
                format!("mark-{}", chance.below(6)),
                chance.bits().to_le_bytes().to_vec(),
            )],
            effects,
            deadline: None,
            received_ms: first,
        };
        let store = Arc::clone(&self.store);
        let mut answer = Box::pin(async move { store.commit(commit).await });
        assert!(poll(&mut answer).is_none());
        self.step();
        assert_eq!(poll(&mut answer), Some(Ok(())));
    }

    /// Some of the oldest go, or not; the numbers of those that did.
    fn settle_some(&mut self, channel: usize, events: &Events, chance: &Chance) -> Vec<u64> {
        let most = 1 + below(chance, 30);
        let Ok(Some((lease, numbers))) = self.lease(channel, most, events) else {
            return Vec::new();
        };
        let draw = |_: &u64| match chance.below(4) {
            0 => Outcome::Retry,
            _ => Outcome::Done,
        };
        let each: Vec<Outcome> = numbers.iter().map(draw).collect();
        let gone = numbers.iter().zip(&each);
        let gone = gone.filter(|(_, outcome)| **outcome == Outcome::Done);
        let gone = gone.map(|(number, _)| *number).collect();
        self.settle(lease, Outcomes::Each(each));
        gone
    }

    fn settle(&mut self, lease: levada_core::Lease, outcomes: Outcomes) {
        let settlement = Settlement {
            part: part("sinks.simulated"),
            outcomes,
            marks: Vec::new(),
            effects: Effects::default(),
            durable: false,
        };
        let store = Arc::clone(&self.store);
        let mut settled = Box::pin(async move { store.settle(lease, settlement).await });
        // An error gives the events back, and the next lease says what is wrong.
        let _settled = poll(&mut settled);
        self.step();
    }

    /// Leases some events; `None` if there are none. Every byte of them is right, or it is an error.
    fn lease(
        &mut self,
        of: usize,
        most: usize,
        events: &Events,
    ) -> Result<Option<(levada_core::Lease, Vec<u64>)>, String> {
        let want = Want {
            events: most,
            bytes: 1 << 40,
            wait: Duration::ZERO,
            ..Want::default()
        };
        let name = channel(CHANNELS[of]);
        // What is met while reading has the file opened again, or set aside.
        for _ in 0..3 {
            let store = Arc::clone(&self.store);
            let name = name.clone();
            let mut leased = Box::pin(async move { store.lease(&name, want).await });
            match poll(&mut leased) {
                None => return Ok(None),
                Some(Err(TakeError::Store { .. })) => self.step(),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(lease)) => {
                    let number = |event| events.number(event).ok_or("wrong bytes were given");
                    let numbers: Result<Vec<_>, _> = lease.batch.iter().map(number).collect();
                    return Ok(Some((lease, numbers?)));
                }
            }
        }
        Err("it cannot be read, and stays so".into())
    }

    /// Takes everything out.
    fn read(&mut self, events: &Events) -> Result<Contents, String> {
        let mut contents = Contents::default();
        for channel in 0..CHANNELS.len() {
            let mut all = Vec::new();
            while let Some((lease, numbers)) = self.lease(channel, 64, events)? {
                all.extend(numbers);
                self.settle(lease, Outcomes::Done);
            }
            contents.channels.push(all);
        }
        for (key, value) in self.store.marks(&part(SOURCE)).iter() {
            contents.marks.insert(key.to_owned(), value.clone());
        }
        // What cannot be read is refused, and has the file opened again.
        let letters = self.store.dead_letters(None, 1 << 20);
        self.step();
        let letters = letters.or_else(|_| self.store.dead_letters(None, 1 << 20))?;
        for letter in letters {
            let number: u64 = letter.reason.parse().map_err(|_| "a wrong dead letter")?;
            let event = self
                .store
                .dead_letter(letter.id)?
                .map(|letter| letter.event);
            if event.as_ref() != events.bytes(number) {
                return Err(format!("dead letter {} has wrong bytes", letter.id));
            }
            contents.letters.insert(number);
        }
        Ok(contents)
    }

    /// Nothing may have gone that is not counted. More may be counted than was put: where the note
    /// is damaged that events are settled, they come back, and nobody knows how many they are.
    fn check_books(&self) -> Result<(), String> {
        let identities = self.store.audit();
        let missing: Vec<_> = identities
            .iter()
            .filter(|row| row.left > row.right)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("the books: {missing:?}"))
    }
}

fn part(text: &str) -> PartId {
    PartId::parse(text).expect("is a part")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("is a name")
}

fn below(chance: &Chance, below: usize) -> usize {
    usize::try_from(chance.below(below as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
