//! Tables of the operator's to look things up in. Needs the grant `lookup`, which names them; the
//! host reads them again when their files change.

use crate::host;

/// A row: columns and their values, without the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(Vec<(String, String)>);

/// The row of a table under a key; nothing if there is no such row or no such table.
#[must_use]
pub fn find(table: &str, key: &str) -> Option<Row> {
    host::find(table, key).map(Row)
}

impl Row {
    /// The value of a column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&str> {
        self.iter()
            .find(|(name, _)| *name == column)
            .map(|(_, value)| value)
    }

    /// Every column with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
