//! Several files to one table.

use levada_core::{Problem, Problems, Table, Value, settings::ValueKind};

/// How deep tables of different files are merged: `[agent]` may be spread over files, and so may
/// the list of sources; one source may not.
const DEPTH: usize = 1;

/// Merges the tables of several files. The same key twice is a problem that names both places.
pub(crate) fn merge(tables: Vec<Table>, problems: &mut Problems) -> Table {
    let mut whole = Table::default();
    for table in tables {
        add(&mut whole, table, 0, problems);
    }
    whole
}

fn add(whole: &mut Table, table: Table, depth: usize, problems: &mut Problems) {
    for (key, value) in table.entries {
        let Some(at) = whole.entries.iter().position(|(k, _)| k.name == key.name) else {
            whole.entries.push((key, value));
            continue;
        };
        let path = whole.path_of(&key.name);
        let (first, there) = &mut whole.entries[at];
        match (&mut there.kind, value) {
            (
                ValueKind::Table(into),
                Value {
                    kind: ValueKind::Table(from),
                    ..
                },
            ) if depth < DEPTH => add(into, from, depth + 1, problems),
            _ => problems.push(
                Problem::error(Some(key.span), path, "the same key is written twice")
                    .related(first.span, "first written here"),
            ),
        }
    }
}
