//! The whole path without faults: everything arrives once, in order, and redacted.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{
    ledger::Ledger,
    load::{Amount, Load},
    outputs::{self, Watch},
    path::{EndToEnd, PLANT, WEB},
    wait,
};

const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_once_and_redacted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut path = EndToEnd::lay(folder.path()).await?;
    path.start().await?;
    let pauses = (Duration::ZERO, Duration::ZERO);
    let mut load = Load::start(
        Amount {
            mqtt: 2_000,
            http: 3_000,
            pauses,
        },
        path.entrances(),
    );
    let mut watch = Watch::new(&path.output);
    wait::until("everything is in the files", WITHIN, || {
        let lines = watch.lines().and_then(|lines| load.check().map(|()| lines));
        async move { Ok((lines? >= 5_000).then_some(())) }
    })
    .await?;
    load.finish().await?;
    assert!(path.edge.stop().await?.success(), "{}", path.edge.tail());
    assert!(
        path.aggregator.stop().await?.success(),
        "{}",
        path.aggregator.tail()
    );

    let mut ledger = Ledger::default();
    load.book(&mut ledger);
    outputs::read_into(&path.output, &mut ledger)?;
    assert_eq!(ledger.damaged, Vec::<String>::new());
    for line in ledger.balance() {
        assert_eq!((line.missing, line.duplicates), (0, 0), "{line:?}");
    }
    assert_eq!(
        outputs::open_files(&path.output)?,
        Vec::<std::path::PathBuf>::new()
    );
    assert!(
        path.wiretap.bytes() > 0,
        "the relay between the agents saw no byte"
    );
    assert_eq!(
        path.wiretap.found(),
        0,
        "an email or phone number travelled"
    );
    books_balance(&path).await
}

/// What the agents themselves counted, in the transactions of the data.
async fn books_balance(path: &EndToEnd) -> Result<()> {
    let edge = path.edge.audit().await?;
    assert!(edge.holds, "{edge:?}");
    assert_eq!(
        edge.count(&format!("sources.{PLANT}"), "accepted"),
        Some(2_000)
    );
    assert_eq!(
        edge.count(&format!("sources.{WEB}"), "accepted"),
        Some(3_000)
    );
    assert_eq!(edge.count("channels.main", "delivered"), Some(5_000));
    let aggregator = path.aggregator.audit().await?;
    assert!(aggregator.holds, "{aggregator:?}");
    assert_eq!(aggregator.count("sources.edges", "accepted"), Some(5_000));
    assert_eq!(aggregator.count("channels.main", "delivered"), Some(5_000));
    Ok(())
}
