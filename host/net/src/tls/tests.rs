use std::fs;

use levada_core::{SystemClock, context::BUILT_MS};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    Deflating, Inbound, Memory, Order, Outbound, Stream, Throttle, Transport, plain::Complaints,
};

use self::world::World;

mod certificates;
mod revoked;
mod versions;
mod world;

const SHORT: Duration = Duration::from_secs(5);

/// A clock that stands still.
#[derive(Debug)]
struct At(u64);

impl Clock for At {
    fn wall_ms(&self) -> u64 {
        self.0
    }
}

/// What each side says after a byte was sent and answered, or was not.
struct Met {
    listener: Result<Identity, String>,
    client: Result<(), String>,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

async fn inbound(settings: &ListenerTls) -> Inbound {
    Inbound::open(Some(settings), clock()).await.unwrap()
}

async fn outbound(settings: &ClientTls) -> Outbound {
    Outbound::open(Some(settings), clock()).await.unwrap()
}

async fn meet(inbound: &Inbound, outbound: &Outbound) -> Met {
    meet_at(inbound, outbound, "server").await
}

/// Connects to `host`, sends a byte and waits until it comes back.
async fn meet_at(inbound: &Inbound, outbound: &Outbound, host: &str) -> Met {
    let memory = Memory::new();
    let listener = memory.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let to = format!("{host}:{}", listener.local_addr().unwrap().port());
    let serve = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let complaints = Complaints::new("sources.x", Throttle::new(SHORT));
        let entered = inbound.enter(stream, peer, &complaints).await;
        let entered = entered.map_err(|error| error.to_string())?;
        let (mut stream, identity) = entered.ok_or("left without a word")?;
        let echoed = echo(&mut stream).await;
        echoed.map(|()| identity).map_err(|error| error.to_string())
    };
    let call = async {
        let stream = outbound.connect(&memory, &to, SHORT).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let answered = answer(&mut stream).await;
        answered.map_err(|error| error.to_string())
    };
    let (listener, client) = tokio::join!(serve, call);
    Met { listener, client }
}

async fn echo(stream: &mut Box<dyn Stream>) -> std::io::Result<()> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn answer(stream: &mut Box<dyn Stream>) -> std::io::Result<()> {
    stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 2]).await?;
    stream.flush().await?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    assert_eq!(bytes, [0, 0, 0, 1, 0, 0, 0, 2]);
    Ok(())
}

/// Whether the side says what is expected of it; an empty word stands for success.
fn check<T: std::fmt::Debug>(what: &str, side: &str, met: &Result<T, String>, word: &str) {
    match met {
        Ok(_) => assert_eq!(word, "", "{what}: {side} met nobody's objection"),
        Err(said) => {
            assert_ne!(word, "", "{what}: {side} says: {said}");
            assert!(said.contains(word), "{what}: {side} says: {said}");
        }
    }
}

#[tokio::test]
async fn a_peer_is_who_its_certificate_names() {
    let world = World::new();
    world.issue("server", |_| ());
    world.issue("edge-7", |_| ());
    let client = outbound(&world.client(Some("edge-7"))).await;
    let met = meet(&inbound(&world.mutual("server")).await, &client).await;
    assert_eq!(met.client, Ok(()));
    let identity = met.listener.unwrap();
    assert_eq!(identity.name(), Some("edge-7"));
    assert!(identity.is_authenticated());
    // A certificate that nobody asks for proves nothing, and none that nobody needs is no harm.
    let met = meet(&inbound(&world.listener("server")).await, &client).await;
    assert_eq!(met.listener, Ok(Identity::Unknown));
    let optional = ListenerTls {
        client_auth: Some(ClientAuth::Optional),
        ..world.mutual("server")
    };
    let optional = inbound(&optional).await;
    let nameless = outbound(&world.client(None)).await;
    assert_eq!(
        meet(&optional, &nameless).await.listener,
        Ok(Identity::Unknown)
    );
    let named = meet(&optional, &client).await.listener.unwrap();
    assert_eq!(named.name(), Some("edge-7"));
}

/// What, who listens, who connects, and what each says of the other; nothing if all is well.
type Case = (
    &'static str,
    ListenerTls,
    ClientTls,
    &'static str,
    &'static str,
);

const NOT_SIGNED: &str = "is not signed by `";
const NOT_TRUSTED: &str = "does not trust who signed our";

fn wrong_servers(world: &World, stranger: &World, namesake: &World) -> [Case; 6] {
    let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let new = |params: &mut CertificateParams| params.not_before = date_time_ymd(3000, 1, 1);
    let only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    world.issue("server", |_| ());
    world.issue_as("old", "server", old);
    world.issue_as("new", "server", new);
    world.issue_as("only-client", "server", only);
    stranger.issue("server", |_| ());
    namesake.issue("server", |_| ());
    let case = |what, listener, listener_says, client_says| {
        let client = world.client(Some("edge"));
        (what, listener, client, listener_says, client_says)
    };
    let only = world.mutual("only-client");
    let (strange, same) = (stranger.listener("server"), namesake.listener("server"));
    let has_expired = "the server's certificate has expired at 2020-01-01T00:00:00Z; it is";
    let too_early = "the server's certificate is not valid before 3000-01-01";
    let no_server = "is not made for this use (server authentication";
    let same_name = "but by an authority of the same name";
    [
        case("good", world.mutual("server"), "", ""),
        case(
            "expired",
            world.mutual("old"),
            "has expired or",
            has_expired,
        ),
        case("early", world.mutual("new"), "not valid yet", too_early),
        case("a client's", only, "refuses our certificate", no_server),
        case("a stranger's", strange, NOT_TRUSTED, NOT_SIGNED),
        case("a namesake's", same, NOT_TRUSTED, same_name),
    ]
}

fn wrong_clients(world: &World, stranger: &World) -> [Case; 4] {
    let only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    world.issue_as("only-server", "edge", only);
    stranger.issue("edge", |_| ());
    let strange = ClientTls {
        ca: Some(world.path("ca.pem")),
        ..stranger.client(Some("edge"))
    };
    let case = |what, client, listener_says, client_says| {
        let listener = world.mutual("server");
        (what, listener, client, listener_says, client_says)
    };
    let (old, only) = (world.client(Some("old")), world.client(Some("only-server")));
    let has_expired = "the peer's certificate has expired at 2020";
    let no_client = "is not made for this use (client authentication";
    let wanted = "wants a certificate; set `cert` and `key`";
    [
        case("none", world.client(None), "shows no certificate", wanted),
        case("a stranger's", strange, NOT_SIGNED, NOT_TRUSTED),
        case("expired", old, has_expired, "has expired or"),
        case("a server's", only, no_client, "refuses our certificate"),
    ]
}

#[tokio::test]
async fn every_wrong_certificate_is_refused_and_named_on_both_sides() {
    let (world, stranger, namesake) = (World::new(), World::of("elsewhere"), World::new());
    world.issue("edge", |_| ());
    let servers = wrong_servers(&world, &stranger, &namesake);
    let clients = wrong_clients(&world, &stranger);
    for (what, listener, client, listener_says, client_says) in servers.into_iter().chain(clients) {
        let met = meet(&inbound(&listener).await, &outbound(&client).await).await;
        check(what, "the listener", &met.listener, listener_says);
        check(what, "the client", &met.client, client_says);
    }
}

#[tokio::test]
async fn a_server_is_asked_for_the_name_it_is_reached_by_or_another() {
    let world = World::new();
    world.issue("server", |_| ());
    let inbound = inbound(&world.listener("server")).await;
    let plain = outbound(&world.client(None)).await;
    let met = meet_at(&inbound, &plain, "10.0.0.1").await;
    let wrong = "is not for `10.0.0.1` but for";
    check("wrong name", "the client", &met.client, wrong);
    assert!(met.client.unwrap_err().contains("set `server-name`"));
    let named = ClientTls {
        server_name: Some("server".into()),
        ..world.client(None)
    };
    let met = meet_at(&inbound, &outbound(&named).await, "10.0.0.1").await;
    assert_eq!(met.client, Ok(()));
    let blind = ClientTls {
        ca: None,
        insecure_skip_verify: true,
        ..world.client(None)
    };
    let met = meet_at(&inbound, &outbound(&blind).await, "10.0.0.1").await;
    assert_eq!(met.client, Ok(()));
}

#[tokio::test]
async fn a_clock_that_is_not_set_is_named_as_the_cause() {
    let world = World::new();
    world.issue("server", |params| {
        params.not_before = date_time_ymd(2020, 1, 1)
    });
    let reset = Arc::new(At(1000));
    let client = Outbound::open(Some(&world.client(None)), reset)
        .await
        .unwrap();
    let met = meet(&inbound(&world.listener("server")).await, &client).await;
    let said = met.client.unwrap_err();
    assert!(
        said.contains("(clock-unsynced): it says 1970-01-01"),
        "{said}"
    );
    // A clock that is set is not accused.
    let late = Arc::new(At(BUILT_MS + 5000 * 365 * 24 * 3600 * 1000));
    let client = Outbound::open(Some(&world.client(None)), late)
        .await
        .unwrap();
    let met = meet(&inbound(&world.listener("server")).await, &client).await;
    let said = met.client.unwrap_err();
    assert!(
        said.contains("has expired") && !said.contains("unsynced"),
        "{said}"
    );
}

#[tokio::test]
async fn plaintext_and_tls_that_meet_are_told_so() {
    let world = World::new();
    world.issue("server", |_| ());
    let tls = inbound(&world.listener("server")).await;
    let met = meet(&tls, &Outbound::default()).await;
    check(
        "plaintext to TLS",
        "the listener",
        &met.listener,
        "the peer speaks plaintext",
    );
    assert!(met.client.is_err());
    let met = meet(&Inbound::default(), &outbound(&world.client(None)).await).await;
    let to_plain = "the peer speaks TLS, and this listener has no `tls`";
    check("TLS to plaintext", "the listener", &met.listener, to_plain);
    let deaf = "does it speak TLS on this port?";
    check("TLS to plaintext", "the client", &met.client, deaf);
    let met = meet(
        &Inbound::default().deflating(true),
        &outbound(&world.client(None)).await,
    )
    .await;
    check("TLS to deflate", "the listener", &met.listener, to_plain);
}

#[tokio::test]
async fn new_files_are_used_at_once_and_broken_ones_never() {
    let world = World::new();
    world.issue("server", |_| ());
    world.issue("edge", |_| ());
    let listener = inbound(&world.mutual("server")).await;
    let client = outbound(&world.client(Some("edge"))).await;
    assert_eq!(meet(&listener, &client).await.client, Ok(()));
    // The server gets another name: who connects from now on sees it.
    world.issue_as("server", "renamed", |_| ());
    assert!(
        meet(&listener, &client)
            .await
            .client
            .unwrap_err()
            .contains("but for")
    );
    assert_eq!(meet_at(&listener, &client, "renamed").await.client, Ok(()));
    // So does the client.
    world.issue_as("edge", "edge-2", |_| ());
    let met = meet_at(&listener, &client, "renamed").await;
    assert_eq!(met.listener.unwrap().name(), Some("edge-2"));
    // Half a file, the key of another, no file: the ones before stay.
    fs::write(
        world.path("server.pem"),
        "-----BEGIN CERTIFICATE-----\nMIIB",
    )
    .unwrap();
    assert_eq!(meet_at(&listener, &client, "renamed").await.client, Ok(()));
    world.issue("other", |_| ());
    fs::copy(world.path("other.pem"), world.path("server.pem")).unwrap();
    assert_eq!(meet_at(&listener, &client, "renamed").await.client, Ok(()));
    fs::remove_file(world.path("server.key")).unwrap();
    assert_eq!(meet_at(&listener, &client, "renamed").await.client, Ok(()));
    // The pair is whole again.
    fs::copy(world.path("other.key"), world.path("server.key")).unwrap();
    assert_eq!(meet_at(&listener, &client, "other").await.client, Ok(()));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_when_a_part_opens() {
    let world = World::new();
    world.issue("server", |_| ());
    world.issue("other", |_| ());
    fs::write(world.path("empty.pem"), "").unwrap();
    let open = async |listener: ListenerTls| {
        let error = Inbound::open(Some(&listener), clock()).await.unwrap_err();
        error.to_string()
    };
    let listener = || world.mutual("server");
    let (missing, empty) = (world.path("missing.pem"), world.path("empty.pem"));
    let said = open(ListenerTls {
        cert: missing,
        ..listener()
    })
    .await;
    assert!(
        said.contains("cannot read `") && said.contains("missing.pem"),
        "{said}"
    );
    let said = open(ListenerTls {
        ca: Some(empty),
        ..listener()
    })
    .await;
    assert!(said.contains("empty.pem` holds no certificate"), "{said}");
    let key = world.path("other.key");
    let said = open(ListenerTls { key, ..listener() }).await;
    assert!(said.contains("do not fit"), "{said}");
}

#[tokio::test]
async fn deflate_and_tls_are_understood_in_both_orders() {
    let world = World::new();
    world.issue("server", |_| ());
    let listener = inbound(&world.listener("server")).await.deflating(true);
    let plain = Inbound::default().deflating(true);
    for order in [Order::DeflateOverTls, Order::TlsOverDeflate] {
        for level in [0, 1, 6, 9] {
            let deflate = Some(Deflating { level, order });
            let client = outbound(&world.client(None)).await.deflating(deflate);
            let met = meet(&listener, &client).await;
            assert_eq!((met.client, met.listener), (Ok(()), Ok(Identity::Unknown)));
            let met = meet(&plain, &Outbound::default().deflating(deflate)).await;
            assert_eq!((met.client, met.listener), (Ok(()), Ok(Identity::Unknown)));
        }
    }
    // A peer that does not deflate is served as well.
    let met = meet(&listener, &outbound(&world.client(None)).await).await;
    assert_eq!(met.client, Ok(()));
    assert_eq!(meet(&plain, &Outbound::default()).await.client, Ok(()));
}

#[tokio::test]
async fn a_peer_that_deflates_against_a_listener_that_does_not_is_told() {
    let world = World::new();
    world.issue("server", |_| ());
    let order = Order::DeflateOverTls;
    let deflate = Some(Deflating { level: 6, order });
    let met = meet(&Inbound::default(), &Outbound::default().deflating(deflate)).await;
    check(
        "plain",
        "the listener",
        &met.listener,
        "set `compression = \"deflate\"` here",
    );
    let client = outbound(&world.client(None)).await.deflating(deflate);
    let met = meet(&inbound(&world.listener("server")).await, &client).await;
    check(
        "TLS",
        "the listener",
        &met.listener,
        "set `compression = \"deflate\"` here",
    );
}

#[tokio::test(start_paused = true)]
async fn half_a_handshake_ends_after_ten_seconds() {
    let world = World::new();
    world.issue("server", |_| ());
    let inbound = inbound(&world.listener("server")).await;
    let complaints = Complaints::new("sources.x", Throttle::new(SHORT));
    let peer = "127.0.0.1:1".parse().unwrap();
    for begun in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1]] {
        let (mut ours, theirs) = tokio::io::duplex(64);
        ours.write_all(begun).await.unwrap();
        let began = tokio::time::Instant::now();
        let error = inbound
            .enter(Box::new(theirs), peer, &complaints)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not done in time"), "{error}");
        assert!(began.elapsed() <= Duration::from_secs(11));
    }
}
