//! What handlers keep, on disk: one sealed entry for each handler and key, in a table of its own,
//! which is made with the first entry.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_core::{Name, StateChange, state::StateValue};
use redb::{Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};
use tracing::warn;

use crate::{
    codec::{Reader, seal, unseal},
    keys::STATE,
};

/// The time of what never expires.
const NEVER: u64 = u64::MAX;

/// What handlers have, by their names.
pub(crate) type Handlers = BTreeMap<Name, BTreeMap<String, StateValue>>;

/// What all handlers have. An entry that is damaged counts as none (delivery contract D1.2).
pub(crate) fn read(db: &Database) -> Result<Handlers, redb::Error> {
    let mut handlers = Handlers::new();
    let table = match db.begin_read()?.open_table(STATE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(handlers),
        Err(error) => return Err(error.into()),
    };
    for entry in table.iter()? {
        let (key, value) = entry?;
        let key = key.value();
        let sound = unseal(key, value.value()).and_then(decode);
        match (sound, parse_key(key)) {
            (Some(value), Some((handler, name))) => {
                handlers.entry(handler).or_default().insert(name, value);
            }
            _ => {
                let key = String::from_utf8_lossy(key);
                warn!(%key, "an entry of a handler's state is damaged and counts as none");
            }
        }
    }
    Ok(handlers)
}

/// Writes what all handlers have.
pub(crate) fn write_all(txn: &WriteTransaction, handlers: &Handlers) -> Result<(), redb::Error> {
    if handlers.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(STATE)?;
    for (handler, values) in handlers {
        for (name, value) in values {
            let key = key_of(handler, name);
            table.insert(&key[..], &seal(&key, encode(value))[..])?;
        }
    }
    Ok(())
}

/// Makes changes, in their order.
pub(crate) fn write<'a>(
    txn: &WriteTransaction,
    changes: impl Iterator<Item = &'a StateChange>,
) -> Result<(), redb::Error> {
    let mut table = None;
    for change in changes.filter(|change| !change.writes.is_empty()) {
        let table = match &mut table {
            Some(table) => table,
            none => none.insert(txn.open_table(STATE)?),
        };
        for (name, value) in &change.writes {
            let key = key_of(&change.handler, name);
            match value {
                Some(value) => drop(table.insert(&key[..], &seal(&key, encode(value))[..])?),
                None => drop(table.remove(&key[..])?),
            }
        }
    }
    Ok(())
}

/// A handler's name, a zero byte, and the key.
fn key_of(handler: &Name, key: &str) -> Vec<u8> {
    [handler.as_str().as_bytes(), b"\0", key.as_bytes()].concat()
}

/// Reads what [`key_of`] wrote.
fn parse_key(key: &[u8]) -> Option<(Name, String)> {
    let (handler, name) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    Some((Name::new(handler)?, name.to_owned()))
}

fn encode(value: &StateValue) -> Vec<u8> {
    let expires = value.expires_ms.unwrap_or(NEVER);
    [&expires.to_le_bytes()[..], &value.bytes].concat()
}

fn decode(value: &[u8]) -> Option<StateValue> {
    let mut reader = Reader(value);
    let expires = reader.u64()?;
    Some(StateValue {
        bytes: Bytes::copy_from_slice(reader.0),
        expires_ms: (expires != NEVER).then_some(expires),
    })
}
