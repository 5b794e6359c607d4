//! Many peers that begin a handshake and never end it.

use std::net::Ipv4Addr;

use tokio::{io::AsyncReadExt, net::TcpSocket};

use super::*;

/// The first bytes of a TLS handshake, whose rest never comes.
const BEGUN: [u8; 6] = [0x16, 3, 1, 2, 0, 1];

/// From how many addresses, and how often from each: as often as a listener allows one address.
const ADDRESSES: u8 = 20;
const EACH: usize = 100;
const WAVES: usize = 5;

/// Half a handshake from `127.0.1.n`.
async fn begin(n: u8, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1, n), 0).into())?;
    let mut stream = socket.connect(to).await?;
    // One too many of an address is sent away at once.
    let _sent = stream.write_all(&BEGUN).await;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_handshakes_end_and_keep_nobody_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("edge").await?;
    pki.issue("aggregator").await?;
    let rpc = place::free_address()?;
    let (edge, aggregator) = (pki.tls("edge"), pki.tls("aggregator"));
    let mut pair = Pair::lay_over(folder.path(), (&edge, rpc), (&aggregator, rpc))?;
    pair.start().await?;
    let mut wave = Vec::new();
    for sent in 1..=WAVES {
        wave.clear();
        for n in 0..ADDRESSES {
            for _ in 0..EACH {
                wave.push(begin(n, rpc).await?);
            }
        }
        // Who has a certificate still comes in.
        pair.connect_again().await?;
        pair.post("among them").await?;
        pair.arrived(sent as u64).await?;
    }
    // The listener ends those of the last wave by itself.
    for mut stream in wave {
        let ended = tokio::time::timeout(WITHIN, stream.read(&mut [0; 64])).await;
        let read = ended.context("a half handshake is still open")?;
        ensure!(read.unwrap_or(0) < 64, "the listener says too much");
    }
    logged(&pair.aggregator, "the handshake was not done in time").await?;
    pair.balance(WAVES as u64).await
}
