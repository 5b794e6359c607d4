//! What can be set about an avro sink.

use std::time::Duration;

use levada_core::{ByteSize, Problems, Table, choice, params};
use levada_net::{ClientTls, Deflating, Order, host_and_port};

params! {
    /// Settings of the `avro` sink.
    pub(crate) struct Params {
        /// The Avro source to send to, as host and port.
        pub to: String,
        /// Towards a Flume: how many batches to have on their way at once, each on a connection of
        /// its own. More than one gives up the order of events, unless the channel has `lanes`. A
        /// Levada gets one connection for each lane.
        pub connections: usize = 1,
        /// Towards a Levada: how many batches of a lane to have on their way at once, in order.
        pub window: usize = 8,
        /// How long to wait for an answer.
        pub request_timeout: Duration = "20s",
        /// How long to wait for a connection.
        pub connect_timeout: Duration = "20s",
        /// The largest message that the other side takes. Larger batches are sent in parts.
        pub max_frame: ByteSize = "16MiB",
        /// Certificates; with them, or with `{}`, the other side must speak TLS.
        pub tls: Option<ClientTls>,
        /// Without it, another Levada gets zstd if it takes it, and a Flume nothing. "deflate" is for
        /// a Flume whose source has `compression-type = deflate`.
        pub compression: Option<Compression>,
        /// How hard to deflate: from 0, not at all, to 9.
        pub compression_level: u32 = 6,
        /// With TLS and deflate: whether zlib is outside, as Flume 1.10 and later want it; false
        /// for Flume 1.9.
        pub deflate_over_tls: bool = true,
    }
    later { "ids" }
}

choice! {
    /// How to make less of the bytes.
    pub(crate) enum Compression {
        /// Not at all, whoever is there.
        None = "none",
        /// As Flume does it: one zlib stream each way.
        Deflate = "deflate",
        /// Agreed when another Levada is met: one zstd stream each way. A Flume gets plain bytes.
        Zstd = "zstd",
    }
}

/// The most that zlib can do.
const HARDEST: u32 = 9;

/// Most connections of one sink; a receiver takes 100 from one address.
const MOST_CONNECTIONS: usize = 64;

/// Most batches on their way; a receiver may ask for fewer.
const MOST_WINDOW: usize = 64;

/// The smallest `max-frame`: what a call needs beside its events, and some of those.
pub(super) const SMALLEST_FRAME: ByteSize = ByteSize::kib(64);
const LARGEST_FRAME: ByteSize = ByteSize(1 << 30);

impl Params {
    /// Finds what is wrong beyond single keys.
    pub(super) fn check(&self, table: &Table, problems: &mut Problems) {
        let mut refuse = |key: &str, is_wrong: bool, allowed: String| {
            if let (true, Some((_, value))) = (is_wrong, table.get(key)) {
                let problem = value.problem(&table.path_of(key), "not a value for this key");
                problems.push(problem.allowed(allowed));
            }
        };
        let is_place = host_and_port(&self.to).is_some();
        refuse(
            "to",
            !is_place,
            "a host and a port, such as \"agg1.example:4141\"".into(),
        );
        let is_many = (1..=MOST_CONNECTIONS).contains(&self.connections);
        refuse("connections", !is_many, format!("1 to {MOST_CONNECTIONS}"));
        let is_window = (1..=MOST_WINDOW).contains(&self.window);
        refuse("window", !is_window, format!("1 to {MOST_WINDOW}"));
        let is_frame = (SMALLEST_FRAME..=LARGEST_FRAME).contains(&self.max_frame);
        refuse(
            "max-frame",
            !is_frame,
            format!("{SMALLEST_FRAME} to {LARGEST_FRAME}"),
        );
        for (key, time) in [
            ("request-timeout", self.request_timeout),
            ("connect-timeout", self.connect_timeout),
        ] {
            refuse(key, time.is_zero(), "more than 0s".into());
        }
        let is_harder = self.compression_level > HARDEST;
        refuse("compression-level", is_harder, format!("0 to {HARDEST}"));
        let may_order = self.deflates() && self.tls.is_some();
        let allowed = "only beside `tls` and `compression = \"deflate\"`".into();
        refuse("deflate-over-tls", !may_order, allowed);
        if let Some(tls) = &self.tls {
            tls.check(table, problems);
        }
    }

    fn deflates(&self) -> bool {
        self.compression == Some(Compression::Deflate)
    }

    /// Whether zstd is offered to a peer that may be a Levada.
    pub(super) fn offers_zstd(&self) -> bool {
        matches!(self.compression, None | Some(Compression::Zstd))
    }

    pub(super) fn deflating(&self) -> Option<Deflating> {
        if !self.deflates() {
            return None;
        }
        let order = match self.deflate_over_tls {
            true => Order::DeflateOverTls,
            false => Order::TlsOverDeflate,
        };
        Some(Deflating {
            level: self.compression_level,
            order,
        })
    }
}
