use super::*;

fn with_list(world: &World, listener: ListenerTls) -> ListenerTls {
    ListenerTls {
        crl: Some(world.path("ca.crl")),
        ..listener
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_named_on_both_sides() {
    let world = World::new();
    for name in ["server", "edge", "stolen"] {
        world.issue(name, |_| ());
    }
    world.issue_as("stolen-server", "server", |_| ());
    world.revoke(&["stolen", "stolen-server"]);
    let listener = inbound(&with_list(&world, world.mutual("server"))).await;
    let refused = "the peer's certificate has been revoked: `crl` lists it";
    let told = "says that our certificate has been revoked; issue a new one";
    for (name, listener_says, client_says) in [("edge", "", ""), ("stolen", refused, told)] {
        let client = outbound(&world.client(Some(name))).await;
        let met = meet(&listener, &client).await;
        check(name, "the listener", &met.listener, listener_says);
        check(name, "the client", &met.client, client_says);
    }
    // The other way round: the list of a client is about servers.
    let client = ClientTls {
        crl: Some(world.path("ca.crl")),
        ..world.client(Some("edge"))
    };
    let client = outbound(&client).await;
    assert_eq!(meet(&listener, &client).await.client, Ok(()));
    let stolen = inbound(&world.listener("stolen-server")).await;
    let met = meet(&stolen, &client).await;
    let refused = "the server's certificate has been revoked";
    check("a server", "the client", &met.client, refused);
    check("a server", "the listener", &met.listener, told);
}

#[tokio::test]
async fn a_newer_list_counts_for_the_next_connection_and_a_broken_one_never() {
    let world = World::new();
    world.issue("server", |_| ());
    world.issue("edge", |_| ());
    world.revoke(&[]);
    let listener = inbound(&with_list(&world, world.mutual("server"))).await;
    let client = outbound(&world.client(Some("edge"))).await;
    assert_eq!(meet(&listener, &client).await.client, Ok(()));
    world.revoke(&["edge"]);
    // Also with a session that could be taken up again: it was given before the list.
    assert!(meet(&listener, &client).await.listener.is_err());
    fs::write(world.path("ca.crl"), "-----BEGIN X509 CRL-----\nMIIB").unwrap();
    assert!(meet(&listener, &client).await.listener.is_err());
    world.issue("edge", |_| ());
    assert_eq!(meet(&listener, &client).await.client, Ok(()));
}

#[tokio::test]
async fn a_list_from_somebody_else_is_not_taken_for_an_empty_one() {
    let (world, stranger) = (World::new(), World::of("elsewhere"));
    world.issue("server", |_| ());
    world.issue("edge", |_| ());
    stranger.revoke(&[]);
    let listener = ListenerTls {
        crl: Some(stranger.path("ca.crl")),
        ..world.mutual("server")
    };
    let listener = inbound(&listener).await;
    let met = meet(&listener, &outbound(&world.client(Some("edge"))).await).await;
    let refused = "no list in `crl` is from who signed it";
    check("a stranger's list", "the listener", &met.listener, refused);
    fs::write(world.path("ca.crl"), "").unwrap();
    let listener = with_list(&world, world.mutual("server"));
    let opened = Inbound::open(Some(&listener), clock()).await;
    let said = opened.unwrap_err().to_string();
    assert!(said.contains("ca.crl` holds no list of revoked"), "{said}");
}

#[test]
fn what_is_on_a_list_can_be_read() {
    let world = World::new();
    world.issue("edge", |_| ());
    world.revoke(&["edge"]);
    let read = Revoked::read(&world.path("ca.crl")).unwrap();
    let serial = Certificate::read(&world.path("edge.pem")).unwrap().serial;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].serial, serial);
    assert_eq!(read[0].since_ms, 1_767_225_600_000, "2026-01-01");
    assert!(Revoked::read(&world.path("edge.pem")).is_err());
}
