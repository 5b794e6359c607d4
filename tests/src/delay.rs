//! A TCP relay that is far away: everything arrives later, in both directions, and nothing is slower.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use levada_core::TaskSet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// A running relay.
#[derive(Debug)]
pub struct Delay {
    /// Where to connect instead of to the other side.
    pub listen: SocketAddr,
    _tasks: TaskSet,
}

/// Pieces on their way in one direction, of up to 64 KiB: more than a sender has in flight.
const ON_THE_WAY: usize = 4096;

impl Delay {
    /// Relays every connection to `to`; each direction takes half of `round_trip`.
    ///
    /// # Errors
    /// No socket can be bound.
    pub async fn start(to: SocketAddr, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot bind the relay")?;
        let listen = listener.local_addr()?;
        let mut tasks = TaskSet::new();
        tasks.spawn("far away", accept(listener, to, round_trip / 2));
        Ok(Self {
            listen,
            _tasks: tasks,
        })
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, way: Duration) {
    let mut connections = TaskSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.spawn("relay", async move {
            // A side that is gone ends the relay.
            relay(near, to, way).await.ok();
        });
    }
}

async fn relay(near: TcpStream, to: SocketAddr, way: Duration) -> io::Result<()> {
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        ended = carry(near_in, far_out, way) => ended,
        ended = carry(far_in, near_out, way) => ended,
    }
}

/// One direction, until it ends.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Duration,
) -> io::Result<()> {
    let (sent, mut arriving) = mpsc::channel::<(Instant, Bytes)>(ON_THE_WAY);
    let read = async {
        loop {
            let mut piece = BytesMut::with_capacity(64 << 10);
            if from.read_buf(&mut piece).await? == 0 {
                return Ok::<_, io::Error>(());
            }
            if sent
                .send((Instant::now() + way, piece.freeze()))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = read => ended,
        ended = write => ended,
    }
}
