//! Finding out who the other side is, and where a lane stands there (delivery contract D4.1, D4.4).

use std::sync::Arc;

use levada_core::{Hop, Lease, SinkError};
use levada_rpc::{
    Client, Meta,
    hop::{self, Mark, Open, Standing, Welcome},
};
use tokio::time;
use tracing::{info, warn};

use super::{
    AvroSink, refused,
    session::{Session, Terms},
    unreachable,
};

/// Who answered.
#[derive(Debug)]
pub(super) enum Opened {
    /// A Flume, or anything else that speaks its Avro RPC.
    Plain(Box<Client>),
    Levada(Session),
}

/// How often a lane is opened before it is given up: the second time with a new incarnation.
const TRIES: usize = 2;

impl AvroSink {
    /// Connects, and opens the lane of a lease.
    pub(super) async fn open_lane(
        &self,
        lease: &Lease,
        hop: &Arc<dyn Hop>,
    ) -> Result<Opened, SinkError> {
        for _ in 0..TRIES {
            let lane = hop.lane(lease.lane).map_err(|error| {
                let what = "cannot see where the channel begins";
                unreachable(what.into(), error)
            })?;
            let open = Open {
                incarnation: lane.incarnation,
                channel: hop.channel().to_string(),
                lane: lease.lane,
                oldest: lane.oldest,
                marks: hop.is_alone(),
                zstd: self.params.offers_zstd(),
            };
            let mut client = self.greet(&open).await?;
            let Some(value) = client.peer_meta().get(hop::KEY) else {
                return Ok(Opened::Plain(Box::new(client)));
            };
            let welcome = Welcome::decode(value).map_err(|error| {
                let what = format!("`{}` does not answer as a Levada", self.params.to);
                refused(what, Some(error.into()))
            })?;
            let Some(start) = self.start(&open, &welcome, hop)? else {
                self.renew(&open, &welcome, hop).await?;
                continue;
            };
            // One that was not asked for would be a mistake of the receiver's.
            if welcome.zstd && open.zstd {
                client.begin_zstd().map_err(|error| self.lost(error))?;
            }
            let halves = client.pipelined().map_err(|error| self.lost(error))?;
            return Ok(Opened::Levada(Session::new(
                halves,
                self.terms(&open, &welcome),
                start,
            )));
        }
        let what = format!(
            "`{}` has a mark for a lane that was never opened",
            self.params.to
        );
        Err(refused(what, None))
    }

    /// Takes a new incarnation instead of one whose mark was not of this life of the store. It is for
    /// every lane: one that another lane took meanwhile will do.
    async fn renew(
        &self,
        refused: &Open,
        welcome: &Welcome,
        hop: &Arc<dyn Hop>,
    ) -> Result<(), SinkError> {
        let _alone = self.renewing.lock().await;
        let lane = hop.lane(refused.lane).map_err(|error| {
            let what = "cannot see where the channel begins";
            unreachable(what.into(), error)
        })?;
        if lane.incarnation != refused.incarnation {
            return Ok(());
        }
        self.metrics.regressions.add(1);
        let (sink, to) = (&self.part, &self.params.to);
        warn!(%sink, %to, standing = ?welcome.standing, oldest = refused.oldest,
            "the receiver's mark is of another life of a store: taking a new incarnation, events \
             may arrive twice");
        let taken = hop.new_incarnation().await;
        taken.map_err(|error| unreachable("cannot keep a new incarnation".into(), error))?;
        Ok(())
    }

    /// Connects and says who is there.
    async fn greet(&self, open: &Open) -> Result<Client, SinkError> {
        let mut meta = Meta::new();
        meta.set(hop::KEY, open.encode());
        let mut client = self.connect().await?.with_meta(meta);
        let pinged = time::timeout(self.params.request_timeout, client.ping()).await;
        match pinged {
            Ok(Ok(())) => Ok(client),
            Ok(Err(error)) => Err(self.lost(error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// The position behind which the lane goes on; `None` if the receiver's mark is not of this
    /// life of the store.
    fn start(
        &self,
        open: &Open,
        welcome: &Welcome,
        hop: &Arc<dyn Hop>,
    ) -> Result<Option<u64>, SinkError> {
        let before = open.oldest.saturating_sub(1);
        let mark = match welcome.standing {
            Standing::Off | Standing::New => None,
            // Nothing that is held can pass for a repeat.
            Standing::At(mark) => Some(mark).filter(|mark| mark.position >= open.oldest),
        };
        let (sink, to, lane) = (&self.part, &self.params.to, open.lane);
        let Some(Mark { position, chain }) = mark else {
            info!(%sink, %to, lane, from = open.oldest, standing = ?welcome.standing, "hop opened");
            return Ok(Some(before));
        };
        let own = hop
            .chain_at(open.lane, position)
            .map_err(|error| unreachable("cannot read the chain".into(), error))?;
        let fits = chain.is_some() && chain == own;
        if fits {
            info!(%sink, %to, lane, mark = position, oldest = open.oldest, "hop opened");
        }
        Ok(fits.then_some(position))
    }

    fn terms(&self, open: &Open, welcome: &Welcome) -> Terms {
        let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let frame = self.params.max_frame.as_usize();
        Terms {
            lane: open.lane,
            ordered: open.marks,
            marks: welcome.standing != Standing::Off,
            window: self.params.window.min(small(welcome.window.into())).max(1),
            max_frame: frame.min(small(welcome.max_frame)),
        }
    }
}
