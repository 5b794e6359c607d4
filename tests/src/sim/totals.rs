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

counts! {
    /// Hops over a network that lies: counts of one seed, or of many.
    HopTotals {
        seeds,
        /// Of each kind.
        exact,
        plaintext,
        restored,
        receivers,
        virtual_seconds,
        /// Losses of power, and those among them that came before the store was open again.
        cuts,
        cuts_in_recovery,
        /// Deaths of a process alone.
        kills,
        /// Errors of disks that were planned.
        faults,
        /// Stores that were put back to an older copy.
        restores,
        /// Links that carried nothing for a while, in both directions or one.
        partitions,
        one_way,
        connections,
        resets,
        /// Connections that stayed half-open.
        hangs,
        replays,
        clock_jumps,
        /// Marks that were found to be of another life of a store, since the last start of each agent.
        regressions,
        /// Events that were acknowledged at an edge.
        acked,
        /// Events that came out at the last tier.
        delivered,
        /// Events that were stored again, and how many that might have been.
        duplicates,
        duplicates_allowed,
        /// Events that went with a store that was put back.
        gone_with_a_store,
        /// Seeds that ended with a finding.
        findings,
    }
}

counts! {
    /// Single bits that changed in a closed file: counts of one seed, or of many.
    FlipTotals {
        seeds,
        flips,
        /// Nothing of what came out was other than before.
        harmless,
        /// A record was found to be damaged.
        noticed,
        /// The file was set aside, and a fresh one took over.
        set_aside,
        /// The file was refused by name.
        refused,
        /// Events that were damaged, or in a file that was set aside.
        events_lost,
        /// Events that came again, because the note that they were settled was damaged.
        events_again,
        marks_lost,
        letters_lost,
        /// Seeds that ended with a finding.
        findings,
    }
}
