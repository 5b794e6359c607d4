//! Addresses that go from one part to its successor without a moment in which nobody listens.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::{Listener, Stream, Transport};

/// A transport in which an address that is bound already is bound once more: whoever asks for it
/// shares the listener, and each connection goes to one of those who wait. The address is free when
/// the last of them is gone.
///
/// One process never binds an address twice by mistake: the configuration is checked for that.
#[derive(Debug)]
pub struct Handover {
    inner: Arc<dyn Transport>,
    bound: Mutex<HashMap<SocketAddr, Weak<Bound>>>,
}

/// A listener with several owners.
#[derive(Debug)]
struct Bound {
    listener: Box<dyn Listener>,
}

/// One owner's hold on a listener.
#[derive(Debug)]
struct Share(Arc<Bound>);

impl Handover {
    /// Takes listeners and connections from `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>) -> Self {
        Self {
            inner,
            bound: Mutex::default(),
        }
    }
}

#[async_trait]
impl Transport for Handover {
    async fn connect(&self, to: &str, within: Duration) -> io::Result<Box<dyn Stream>> {
        self.inner.connect(to, within).await
    }

    /// Port 0 takes a free one each time.
    async fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let mut bound = self.bound.lock().await;
        if let Some(shared) = bound.get(&at).and_then(Weak::upgrade) {
            return Ok(Box::new(Share(shared)));
        }
        let listener = self.inner.bind(at).await?;
        let at = listener.local_addr()?;
        let shared = Arc::new(Bound { listener });
        bound.retain(|_, listener| listener.strong_count() > 0);
        bound.insert(at, Arc::downgrade(&shared));
        Ok(Box::new(Share(shared)))
    }
}

#[async_trait]
impl Listener for Share {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        self.0.listener.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Tcp;

    async fn greet(listener: &dyn Listener, word: &[u8]) {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(word).await.unwrap();
    }

    #[tokio::test]
    async fn a_successor_listens_before_the_old_one_is_gone_and_after() {
        let transport = Handover::new(Arc::new(Tcp));
        let old = transport
            .bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let at = old.local_addr().unwrap();
        let new = transport.bind(at).await.unwrap();
        assert_eq!(new.local_addr().unwrap(), at);
        let to = at.to_string();
        // A connection that came before the old one went is not lost with it.
        let early = transport.connect(&to, Duration::from_secs(5));
        let mut early = early.await.unwrap();
        drop(old);
        greet(&*new, b"early").await;
        let mut word = Vec::new();
        early.read_to_end(&mut word).await.unwrap();
        assert_eq!(word, b"early");
        let other = std::net::TcpListener::bind(at);
        assert!(other.is_err(), "the address is not free yet");
        drop(new);
        let again = transport.bind(at).await.unwrap();
        assert_eq!(again.local_addr().unwrap(), at);
    }

    #[tokio::test]
    async fn what_another_process_holds_stays_taken() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let transport = Handover::new(Arc::new(Tcp));
        let at = taken.local_addr().unwrap();
        let error = transport.bind(at).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
