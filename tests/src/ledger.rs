//! What was produced against what arrived.

use std::collections::{BTreeMap, HashSet};

/// The account of every source.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<String, Account>,
    ids: HashSet<String>,
    /// Lines that are no event of ours, or one that was changed: the first few, and how many.
    pub damaged: Vec<String>,
    pub damaged_count: u64,
}

/// One source: its events are numbered from 0.
#[derive(Debug, Default)]
struct Account {
    produced: u64,
    accepted: Option<u64>,
    /// How often each number was seen.
    seen: Vec<u32>,
    /// Events with an origin id that another one had, too.
    twice: u64,
}

/// One line of the balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    pub source: String,
    /// Events that the producer made and that were acknowledged to it.
    pub produced: u64,
    /// Events that the agent took, by its own durable counters; repeats of the peer count again.
    pub accepted: Option<u64>,
    /// Events that arrived, repeats included.
    pub delivered: u64,
    pub missing: u64,
    /// Repeats of all kinds.
    pub duplicates: u64,
    /// Repeats with the same origin id: they came into being between agents. Always 0 where the
    /// output holds no ids.
    pub twice: u64,
    /// The first numbers that are missing.
    pub examples: Vec<u64>,
}

/// How many examples a report shows.
const EXAMPLES: usize = 5;

impl Ledger {
    /// Notes that the events `0..produced` of a source were acknowledged to their producer.
    pub fn produced(&mut self, source: &str, produced: u64) {
        self.accounts.entry(source.to_owned()).or_default().produced = produced;
    }

    /// Notes how many events the agent says it took from a source.
    pub fn accepted(&mut self, source: &str, accepted: u64) {
        self.accounts.entry(source.to_owned()).or_default().accepted = Some(accepted);
    }

    /// Notes a body that arrived, with its origin id where that is known.
    pub fn saw(&mut self, delivered: &str, id: Option<String>) {
        match crate::event::identify(delivered) {
            Ok((source, n)) => {
                let twice = id.is_some_and(|id| !self.ids.insert(id));
                self.count(source, n, twice)
            }
            Err(why) => {
                self.damaged_count += 1;
                if self.damaged.len() < EXAMPLES {
                    self.damaged.push(why);
                }
            }
        }
    }

    fn count(&mut self, source: String, n: u64, twice: bool) {
        let account = self.accounts.entry(source).or_default();
        let at = usize::try_from(n).unwrap_or(usize::MAX);
        // A number far above what was made is damage that happens to parse.
        if at > 100_000_000 {
            self.damaged_count += 1;
            return;
        }
        if account.seen.len() <= at {
            account.seen.resize(at + 1, 0);
        }
        account.seen[at] += 1;
        account.twice += u64::from(twice);
    }

    /// The balance of every source, by name.
    #[must_use]
    pub fn balance(&self) -> Vec<Balance> {
        self.accounts
            .iter()
            .map(|(source, account)| account.balance(source))
            .collect()
    }

    /// How many different events arrived.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        let seen = |account: &Account| account.seen.iter().filter(|times| **times > 0).count();
        self.accounts
            .values()
            .map(|account| seen(account) as u64)
            .sum()
    }

    /// Whether everything arrived, undamaged.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.damaged_count == 0 && self.balance().iter().all(|line| line.missing == 0)
    }
}

impl Account {
    fn balance(&self, source: &str) -> Balance {
        let times = |n: u64| {
            usize::try_from(n)
                .ok()
                .and_then(|at| self.seen.get(at))
                .copied()
                .unwrap_or(0)
        };
        let missing: Vec<u64> = (0..self.produced).filter(|n| times(*n) == 0).collect();
        let delivered: u64 = self.seen.iter().map(|times| u64::from(*times)).sum();
        let distinct = self.seen.iter().filter(|times| **times > 0).count() as u64;
        Balance {
            source: source.to_owned(),
            produced: self.produced,
            accepted: self.accepted,
            delivered,
            missing: missing.len() as u64,
            duplicates: delivered - distinct,
            twice: self.twice,
            examples: missing.into_iter().take(EXAMPLES).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use crate::event;

    fn redacted(source: &str, n: u64) -> String {
        let secret = format!("user{n}@secret.example");
        let phone = format!("+49-555-{n:07}");
        event::body(source, n)
            .replace(&secret, "***")
            .replace(&phone, "***")
    }

    #[test]
    fn counts_missing_and_duplicates() {
        let mut ledger = Ledger::default();
        ledger.produced("plant", 4);
        for n in [0, 1, 1, 3] {
            ledger.saw(&redacted("plant", n), None);
        }
        let line = &ledger.balance()[0];
        assert_eq!((line.delivered, line.missing, line.duplicates), (4, 1, 1));
        assert_eq!(line.examples, [2]);
        assert!(!ledger.is_complete());
    }

    #[test]
    fn repeats_with_the_same_id_are_told_from_those_that_were_sent_again() {
        let mut ledger = Ledger::default();
        ledger.produced("plant", 2);
        for (n, id) in [(0, "a"), (0, "a"), (1, "b"), (1, "c")] {
            ledger.saw(&redacted("plant", n), Some(id.into()));
        }
        let line = &ledger.balance()[0];
        assert_eq!((line.duplicates, line.twice), (2, 1));
    }

    #[test]
    fn an_event_that_was_not_redacted_is_damage() {
        let mut ledger = Ledger::default();
        ledger.produced("plant", 1);
        ledger.saw(&event::body("plant", 0), None);
        assert_eq!(ledger.damaged_count, 1);
        assert!(!ledger.is_complete());
    }

    #[test]
    fn a_torn_line_is_damage() {
        let mut ledger = Ledger::default();
        ledger.saw("{\"source\":\"plant\",\"n\":0,\"devi", None);
        assert_eq!(ledger.damaged_count, 1);
    }
}
