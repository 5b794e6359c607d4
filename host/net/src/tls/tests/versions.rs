//! Which version of TLS is spoken.

use rustls::{ClientConfig, ProtocolVersion, ServerConfig};

use super::*;

#[tokio::test]
async fn no_newer_version_is_spoken_than_the_newest_that_is_set() {
    let world = World::new();
    world.issue("server", |_| ());
    let newest = [
        (TlsVersion::V1_2, ProtocolVersion::TLSv1_2),
        (TlsVersion::V1_3, ProtocolVersion::TLSv1_3),
    ];
    for (max_version, expected) in newest {
        let listener = ListenerTls {
            max_version,
            ..world.listener("server")
        };
        let client = ClientTls {
            max_version,
            ..world.client(None)
        };
        assert_eq!(spoken_by_listener(&world, &listener).await, Some(expected));
        assert_eq!(spoken_by_client(&world, &client).await, Some(expected));
        let met = meet(&inbound(&listener).await, &outbound(&client).await).await;
        assert_eq!((met.client, met.listener), (Ok(()), Ok(Identity::Unknown)));
    }
}

/// What a client that speaks everything speaks with the listener.
async fn spoken_by_listener(world: &World, settings: &ListenerTls) -> Option<ProtocolVersion> {
    let roots = files::roots_of(&world.path("ca.pem")).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let inbound = inbound(settings).await;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let connecting = connector.connect("server".try_into().unwrap(), ours);
    let complaints = Complaints::new("sources.x", Throttle::new(SHORT));
    let peer = "127.0.0.1:1".parse().unwrap();
    let entering = inbound.enter(Box::new(theirs), peer, &complaints);
    let (connected, entered) = tokio::join!(connecting, entering);
    entered.unwrap();
    connected.unwrap().get_ref().1.protocol_version()
}

/// What a server that speaks everything speaks with the client.
async fn spoken_by_client(world: &World, settings: &ClientTls) -> Option<ProtocolVersion> {
    let pair = files::Pair::read(&world.path("server.pem"), &world.path("server.key")).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pair.chain, pair.key)
        .unwrap();
    let outbound = outbound(settings).await;
    let memory = Memory::new();
    let listener = memory.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let to = format!("server:{}", listener.local_addr().unwrap().port());
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        acceptor.accept(stream).await.unwrap()
    };
    let (accepted, connected) = tokio::join!(accepting, outbound.connect(&memory, &to, SHORT));
    connected.unwrap();
    accepted.get_ref().1.protocol_version()
}
