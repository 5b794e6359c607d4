//! What a number of seeds went through, added up.

use serde::{Deserialize, Serialize};

/// Declares a struct of counts, and how two of them add up.
macro_rules! counts {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $field:ident,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        pub struct $name {
            $($(#[$inner])* pub $field: u64,)*
        }

        impl $name {
            /// Adds another account.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    /// Losses of power: counts of one seed, or of many.
    Totals {
        seeds,
        /// Losses of power, at any operation of the disk.
        cuts,
        /// Those among them that came before the store was open again.
        cuts_in_recovery,
        /// Deaths of the process alone, with what the system had not written yet.
        kills,
        closed_in_order,
        /// Errors of the disk that were met.
        faults,
        /// Operations of the disk that change something.
        operations,
        commits,
        /// Events whose put was acknowledged, one per channel.
        put,
        /// Events whose settlement was durable.
        settled,
        dead_letters,
        /// Times at which the whole store was compared with the model.
        compared,
        /// Times at which the commit in flight was found to have gone through.
        in_flight_kept,
        /// Seeds that ended with a finding.
        findings,
    }
}
