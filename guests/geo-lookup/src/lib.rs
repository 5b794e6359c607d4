//! Says where an event comes from: looks the value of a header up in a table, and adds the columns
//! of the row that it finds as headers. With the table `device,lat,lon` and the header `device` an
//! event gets `geo-lat` and `geo-lon`. Columns without a value are left out.
//!
//! Settings: `header`, the header that is looked up (`device`); `table`, the table's name in the
//! configuration (`places`); `prefix`, what headers begin with (`geo-`); `unknown`, what becomes of
//! an event that is not in the table: `pass` (default), `discard` or `reject`.

use std::sync::OnceLock;

use levada_sdk::{Event, Failure, Patch, Verdict, interceptor, lookup, settings};

struct Settings {
    header: String,
    table: String,
    prefix: String,
    unknown: Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Pass,
    Discard,
    Reject,
}

#[interceptor]
fn geo_lookup(event: &Event<'_>) -> Result<Verdict, Failure> {
    static SETTINGS: OnceLock<Result<Settings, Failure>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(Settings::read).as_ref();
    settings
        .map(|settings| settings.place(event))
        .map_err(Clone::clone)
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let unknown = match settings::get("unknown").as_deref() {
            None | Some("pass") => Unknown::Pass,
            Some("discard") => Unknown::Discard,
            Some("reject") => Unknown::Reject,
            Some(other) => {
                let text = format!("setting `unknown`: `{other}` is not pass, discard or reject");
                return Err(Failure::fatal(text));
            }
        };
        let text = |key, default: &str| settings::get(key).unwrap_or_else(|| default.to_owned());
        Ok(Self {
            header: text("header", "device"),
            table: text("table", "places"),
            prefix: text("prefix", "geo-"),
            unknown,
        })
    }

    fn place(&self, event: &Event<'_>) -> Verdict {
        let value = event.header(&self.header);
        let row = value.and_then(|value| lookup::find(&self.table, value));
        let Some(row) = row else {
            return match self.unknown {
                Unknown::Pass => Verdict::pass(),
                Unknown::Discard => Verdict::discard("place unknown"),
                Unknown::Reject => Verdict::reject("place unknown"),
            };
        };
        let mut patch = Patch::new();
        for (column, value) in row.iter().filter(|(_, value)| !value.is_empty()) {
            patch = patch.set(&format!("{}{column}", self.prefix), value);
        }
        patch.into()
    }
}

#[cfg(test)]
mod tests;
