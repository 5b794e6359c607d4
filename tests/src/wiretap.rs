//! A TCP relay between two agents that looks for words in what passes, and that can be cut.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A running relay.
#[derive(Debug)]
pub struct Wiretap {
    /// Where to connect instead of to the other side.
    pub listen: SocketAddr,
    seen: Arc<Seen>,
    cable: watch::Sender<Cable>,
    _tasks: TaskSet,
}

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cable {
    Whole,
    Cut,
}

#[derive(Debug)]
struct Seen {
    words: Vec<Vec<u8>>,
    bytes: AtomicU64,
    found: AtomicU64,
    connections: AtomicU64,
}

impl Wiretap {
    /// Relays every connection to `to`, also if nobody listens there at first or for a while.
    ///
    /// # Errors
    /// No socket can be bound.
    pub async fn start(to: SocketAddr, words: &[&str]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot bind the relay")?;
        let listen = listener.local_addr()?;
        let seen = Arc::new(Seen {
            words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            bytes: AtomicU64::new(0),
            found: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let mut tasks = TaskSet::new();
        let (cable, ours) = watch::channel(Cable::Whole);
        tasks.spawn("wiretap", accept(listener, to, Arc::clone(&seen), ours));
        Ok(Self {
            listen,
            seen,
            cable,
            _tasks: tasks,
        })
    }

    /// From now on nothing passes, and nobody is told; what is on its way is lost.
    pub fn cut(&self) {
        self.cable.send_replace(Cable::Cut);
    }

    /// New connections pass again; those that were cut end.
    pub fn mend(&self) {
        self.cable.send_replace(Cable::Whole);
    }

    /// The bytes that passed towards the other side.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }

    /// How many connections were relayed.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// In how many pieces one of the words was found.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.seen.found.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    seen: Arc<Seen>,
    cable: watch::Receiver<Cable>,
) {
    let mut connections = TaskSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (seen, mut cable) = (Arc::clone(&seen), cable.clone());
        connections.spawn("relay", async move {
            if *cable.borrow() == Cable::Whole {
                // A side that is gone ends the relay; the agents find out by themselves.
                relay(near, to, &seen, cable).await.ok();
            } else {
                silent(&mut cable).await;
            }
        });
    }
}

/// Waits until the cable is whole again. The connection ends then.
async fn silent(cable: &mut watch::Receiver<Cable>) {
    // The owner is gone: so is the cable.
    cable.wait_for(|now| *now == Cable::Whole).await.ok();
}

async fn relay(
    near: TcpStream,
    to: SocketAddr,
    seen: &Seen,
    mut cable: watch::Receiver<Cable>,
) -> io::Result<()> {
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    seen.connections.fetch_add(1, Ordering::Relaxed);
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let there = async {
        let mut search = Search::new(&seen.words);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = near_in.read(&mut buffer).await?;
            if read == 0 {
                return far_out.shutdown().await;
            }
            seen.bytes.fetch_add(read as u64, Ordering::Relaxed);
            seen.found
                .fetch_add(u64::from(search.finds(&buffer[..read])), Ordering::Relaxed);
            far_out.write_all(&buffer[..read]).await?;
        }
    };
    let back = async {
        tokio::io::copy(&mut far_in, &mut near_out)
            .await
            .map(|_| ())
    };
    // Each direction may end first; with it the connection is over.
    let passes = async {
        tokio::select! {
            ended = there => ended,
            ended = back => ended,
        }
    };
    let cut = cable.wait_for(|now| *now == Cable::Cut);
    tokio::select! {
        ended = passes => return ended,
        _ = cut => {}
    }
    // Both sockets stay open: neither side is told.
    silent(&mut cable).await;
    Ok(())
}

/// Looks for words in a stream, also across the borders of its pieces.
#[derive(Debug)]
struct Search<'a> {
    words: &'a [Vec<u8>],
    tail: Vec<u8>,
}

impl<'a> Search<'a> {
    fn new(words: &'a [Vec<u8>]) -> Self {
        Self {
            words,
            tail: Vec::new(),
        }
    }

    fn finds(&mut self, piece: &[u8]) -> bool {
        self.tail.extend_from_slice(piece);
        let found = self.words.iter().any(|word| holds(&self.tail, word));
        let keep = self
            .words
            .iter()
            .map(Vec::len)
            .max()
            .unwrap_or(1)
            .saturating_sub(1);
        // What was found already must not be found again in the tail.
        let from = if found {
            self.tail.len()
        } else {
            self.tail.len().saturating_sub(keep)
        };
        self.tail.drain(..from);
        found
    }
}

/// Whether `bytes` hold `word`.
#[must_use]
pub fn holds(bytes: &[u8], word: &[u8]) -> bool {
    let Some((first, rest)) = word.split_first() else {
        return false;
    };
    let mut from = bytes;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = &from[at + 1..];
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Search, holds};

    #[test]
    fn finds_a_word_across_pieces_and_once() {
        let words = [b"secret".to_vec()];
        let mut search = Search::new(&words);
        assert!(!search.finds(b"xxse"));
        assert!(search.finds(b"cretxx"));
        assert!(!search.finds(b"xx"));
    }

    #[test]
    fn holds_only_what_is_there() {
        assert!(holds(b"aaab", b"aab"));
        assert!(!holds(b"aaa", b"aab"));
        assert!(!holds(b"aa", b"aab"));
    }
}
