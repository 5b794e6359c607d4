//! The real client against a broker that is a few bytes, over both versions of the protocol.

use levada_net::{Listener, Memory, Outbound, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::mqtt::{
    link::{Broker, ForkLink, LinkSettings},
    shrink::KEPT,
};

/// The broker's side of one connection.
struct Peer(Box<dyn Stream>);

impl Peer {
    /// One packet: its first byte and what follows the length.
    async fn read(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.unwrap();
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.0.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let mut rest = vec![0; length];
        self.0.read_exact(&mut rest).await.unwrap();
        (first, rest)
    }

    async fn write(&mut self, first: u8, rest: &[u8]) {
        let mut packet = vec![first];
        let mut length = rest.len();
        loop {
            let more = if length >= 0x80 { 0x80 } else { 0 };
            packet.push(u8::try_from(length & 0x7f).unwrap() | more);
            length >>= 7;
            if length == 0 {
                break;
            }
        }
        packet.extend_from_slice(rest);
        self.0.write_all(&packet).await.unwrap();
    }

    /// Takes CONNECT and SUBSCRIBE; what CONNECT said.
    async fn greet(&mut self, version: Version, session_present: bool) -> Vec<u8> {
        let (first, connect) = self.read().await;
        assert_eq!(first, 0x10);
        let present = u8::from(session_present);
        match version {
            Version::V5 => self.write(0x20, &[present, 0, 0]).await,
            Version::V311 => self.write(0x20, &[present, 0]).await,
        }
        let (first, subscribe) = self.read().await;
        assert_eq!(first, 0x82);
        // Quality of service 1 and no other option.
        assert_eq!(subscribe.last(), Some(&1));
        match version {
            Version::V5 => self.write(0x90, &[subscribe[0], subscribe[1], 0, 1]).await,
            Version::V311 => self.write(0x90, &[subscribe[0], subscribe[1], 1]).await,
        }
        connect
    }

    /// A message at quality of service 1.
    async fn publish(&mut self, version: Version, first: u8, packet: u8, payload: &[u8]) {
        let mut rest = b"\x00\x03a/b\x00".to_vec();
        rest.push(packet);
        if version == Version::V5 {
            // Properties: the user property k = v.
            rest.extend_from_slice(b"\x07\x26\x00\x01k\x00\x01v");
        }
        rest.extend_from_slice(payload);
        self.write(first, &rest).await;
    }
}

/// Messages that the broker may send before it waits for acknowledgements.
const WINDOW: u8 = 10;

fn link(version: Version, transport: Memory, port: u16) -> ForkLink {
    let broker = Broker {
        host: "broker".into(),
        address: format!("broker:{port}"),
        port,
        tls: false,
    };
    let settings = LinkSettings {
        broker,
        version,
        topics: vec!["a/+".into()],
        client_id: "levada-gw-m".into(),
        user: Some("u".into()),
        password: Some(Secret::new("p4ss")),
        at_least_once: true,
        window: u16::from(WINDOW),
        keep_alive: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        session_expiry: Duration::from_secs(604_800),
        max_event: 1 << 10,
    };
    ForkLink::new(settings, Arc::new(transport), Outbound::default())
}

async fn accept(listener: &dyn Listener) -> Peer {
    Peer(listener.accept().await.unwrap().0)
}

async fn a_conversation(version: Version) {
    let memory = Memory::new();
    let listener = memory
        .bind("127.0.0.1:1883".parse().unwrap())
        .await
        .unwrap();
    let mut link = link(version, memory, 1883);
    let large = vec![b'x'; KEPT + 5000];
    let broker = async {
        let mut peer = accept(&*listener).await;
        let connect = peer.greet(version, true).await;
        peer.publish(version, 0x32, 7, b"one").await;
        peer.publish(version, 0x3b, 3, &large).await;
        peer.publish(version, 0x32, 9, b"two").await;
        (peer, connect)
    };
    let messages = async {
        let connected = link.connect().await.unwrap();
        assert!(connected.session_present);
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(link.next().await.unwrap());
        }
        messages
    };
    let ((mut peer, connect), messages) = tokio::join!(broker, messages);
    check_connect(version, &connect);
    assert_eq!(
        (&messages[0].topic[..], &messages[0].payload[..]),
        (&b"a/b"[..], &b"one"[..])
    );
    assert_eq!(messages[2].payload, &b"two"[..]);
    let flags = |n: usize| (messages[n].dup, messages[n].retain);
    assert_eq!((flags(0), flags(1)), ((false, false), (true, true)));
    assert!(messages[1].cut_from > Some(KEPT) && messages[0].cut_from.is_none());
    let headers = usize::from(version == Version::V5);
    assert_eq!(messages[0].properties.len(), headers);
    let tokens: Vec<_> = messages
        .iter()
        .map(|message| message.token.unwrap())
        .collect();
    assert_eq!(
        tokens.iter().map(|token| token.packet).collect::<Vec<_>>(),
        [7, 3, 9]
    );
    for token in &tokens[..2] {
        assert_eq!(link.acknowledge(*token).unwrap(), Acked::Sent);
    }
    let farewell = async {
        link.close().await;
        assert_eq!(link.acknowledge(tokens[2]).unwrap(), Acked::Stale);
    };
    let seen = async {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (first, rest) = peer.read().await;
            seen.push((first, rest.get(1).copied()));
        }
        seen
    };
    let ((), seen) = tokio::join!(farewell, seen);
    assert_eq!((seen[0], seen[1]), ((0x40, Some(7)), (0x40, Some(3))));
    assert_eq!(seen[2].0, 0xe0);
    the_next_connection(version, &mut link, &*listener, tokens[2]).await;
}

/// A message was not acknowledged; on the next connection its old token means nothing.
async fn the_next_connection(
    version: Version,
    link: &mut ForkLink,
    listener: &dyn Listener,
    old: AckToken,
) {
    let again = async {
        let mut peer = accept(listener).await;
        peer.greet(version, true).await;
        peer.publish(version, 0x3a, 9, b"two").await;
        peer
    };
    let next = async {
        link.connect().await.unwrap();
        let message = link.next().await.unwrap();
        assert_eq!(link.acknowledge(old).unwrap(), Acked::Stale);
        assert_eq!(
            link.acknowledge(message.token.unwrap()).unwrap(),
            Acked::Sent
        );
        assert!(message.dup);
    };
    let (mut peer, ()) = tokio::join!(again, next);
    let (first, rest) = peer.read().await;
    assert_eq!((first, rest[1]), (0x40, 9));
}

/// Protocol level, flags (user, password, no clean session), and who we are.
fn check_connect(version: Version, connect: &[u8]) {
    let level = if version == Version::V5 { 5 } else { 4 };
    assert_eq!(
        connect[..8],
        [0, 4, b'M', b'Q', b'T', b'T', level, 0b1100_0000]
    );
    let text = String::from_utf8_lossy(connect);
    assert!(
        text.contains("levada-gw-m") && text.ends_with("p4ss"),
        "{text:?}"
    );
    if version == Version::V5 {
        // Session expiry of 7 days, receive maximum 10.
        let has = |bytes: &[u8]| connect.windows(bytes.len()).any(|window| window == bytes);
        assert!(
            has(&[0x11, 0, 0x09, 0x3a, 0x80]) && has(&[0x21, 0, 10]),
            "{connect:x?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn version_5_is_spoken() {
    tokio::select! {
        () = a_conversation(Version::V5) => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("somebody waits for ever"),
    }
}

#[tokio::test(start_paused = true)]
async fn version_3_1_1_is_spoken() {
    tokio::select! {
        () = a_conversation(Version::V311) => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("somebody waits for ever"),
    }
}

/// What a broker may answer, and what is made of it. Nothing hangs, nothing panics.
#[tokio::test(start_paused = true)]
async fn brokers_that_say_no_or_nonsense_are_errors() {
    let answers: [(&[u8], &str); 5] = [
        (&[0x20, 3, 0, 0x87, 0], "refuses us"),
        (&[0x30, 5, 0, 3, b'a', b'/', b'b'], ""),
        (&[0x20, 0xff, 0xff, 0xff, 0xff, 0xff], ""),
        (&[0xff; 64], ""),
        (&[], ""),
    ];
    for (n, (answer, expected)) in answers.into_iter().enumerate() {
        let memory = Memory::new();
        let listener = memory
            .bind("127.0.0.1:1883".parse().unwrap())
            .await
            .unwrap();
        let mut link = link(Version::V5, memory, 1883);
        let broker = async {
            let mut peer = accept(&*listener).await;
            peer.read().await;
            peer.0.write_all(answer).await.unwrap();
        };
        let (error, ()) = tokio::join!(link.connect(), broker);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{n}: {error}");
    }
    let mut nobody = link(Version::V5, Memory::new(), 1883);
    assert!(nobody.connect().await.is_err());
}

/// A client that is connected, and its broker.
struct Pair {
    version: Version,
    link: ForkLink,
    peer: Peer,
}

impl Pair {
    async fn new(version: Version) -> Self {
        let memory = Memory::new();
        let at = "127.0.0.1:1883".parse().unwrap();
        let listener = memory.bind(at).await.unwrap();
        let mut link = link(version, memory, 1883);
        let greet = async {
            let mut peer = accept(&*listener).await;
            peer.greet(version, true).await;
            peer
        };
        let (peer, connected) = tokio::join!(greet, link.connect());
        connected.unwrap();
        Self {
            version,
            link,
            peer,
        }
    }

    /// The broker sends a window of messages, and gets an acknowledgement for each.
    async fn a_window(&mut self) {
        for packet in 1..=WINDOW {
            self.peer.publish(self.version, 0x32, packet, b"one").await;
        }
        let mut tokens = Vec::new();
        for _ in 1..=WINDOW {
            tokens.push(self.link.next().await.unwrap().token.unwrap());
        }
        for token in tokens {
            assert_eq!(self.link.acknowledge(token).unwrap(), Acked::Sent);
        }
        for packet in 1..=WINDOW {
            let (first, rest) = self.peer.read().await;
            assert_eq!((first, rest[1]), (0x40, packet));
        }
    }
}

#[tokio::test]
async fn every_message_of_a_window_is_acknowledged_in_order_again_and_again() {
    for version in [Version::V5, Version::V311] {
        let mut pair = Pair::new(version).await;
        for _ in 0..50 {
            pair.a_window().await;
        }
    }
}
