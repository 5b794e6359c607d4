//! Certificates that were revoked, and certificates that are renewed under load.

use levada_tests::wiretap::Wiretap;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_edge_is_refused_by_name_until_it_has_a_new_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    for name in ["edge", "aggregator", "stolen"] {
        pki.issue(name).await?;
    }
    pki.revoke("stolen").await?;
    let aggregator = pki.tls_with_list("aggregator");
    let mut pair = Pair::lay(folder.path(), &pki.tls_with_list("edge"), &aggregator)?;
    pair.start().await?;
    pair.post("believed").await?;
    pair.arrived(1).await?;
    // The list is read again for the next connection; nobody is restarted for it but the edge.
    pki.revoke("edge").await?;
    pair.connect_again().await?;
    pair.post("kept meanwhile").await?;
    let refused = "the peer's certificate has been revoked: `crl` lists it";
    logged(&pair.aggregator, refused).await?;
    logged(&pair.edge, "says that our certificate has been revoked").await?;
    assert_eq!(pair.watch.lines()?, 1);
    pki.issue("edge").await?;
    pair.arrived(2).await?;
    pair.balance(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_certificates_are_renewed_under_load() -> Result<()> {
    const ROUNDS: u64 = 8;
    const POSTS: u64 = 100;
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("edge").await?;
    pki.issue("aggregator").await?;
    let rpc = place::free_address()?;
    let wire = Wiretap::start(rpc, &[]).await?;
    let edge = (&*pki.tls("edge"), wire.listen);
    let mut pair = Pair::lay_over(folder.path(), edge, (&*pki.tls("aggregator"), rpc))?;
    pair.start().await?;
    let before = wire.connections();
    for _ in 0..ROUNDS {
        let load = async {
            for _ in 0..POSTS {
                pair.post("under load").await?;
            }
            anyhow::Ok(())
        };
        // The connection that is there breaks, so that the next handshake is in the midst of it.
        let renewal = async {
            pki.issue("aggregator").await?;
            pki.issue("edge").await?;
            wire.cut();
            wire.mend();
            anyhow::Ok(())
        };
        tokio::try_join!(load, renewal)?;
    }
    pair.arrived(ROUNDS * POSTS).await?;
    logged(&pair.aggregator, "certificates renewed").await?;
    logged(&pair.edge, "certificates renewed").await?;
    assert!(wire.connections() > before, "the edge never connected anew");
    pair.balance(ROUNDS * POSTS).await
}
