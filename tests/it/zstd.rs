//! Two agents agree on zstd by themselves, and what lies on the wire between them then.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{agent::Agent, numbers, place, wait, wiretap::Wiretap};

const WITHIN: Duration = Duration::from_secs(60);

/// Events of one run.
const TOTAL: u64 = 20_000;

/// In a header of every event.
const WORD: &str = "a-word-that-would-be-read-on-the-wire";

/// Sends everything from one agent to another; how many bytes passed between them, and in how many
/// pieces the word was found. `sink` and `source` are further lines of those.
async fn travel(sink: &str, source: &str) -> Result<(u64, u64)> {
    let folder = tempfile::tempdir()?;
    let (at, output) = (place::free_address()?, folder.path().join("output"));
    let wiretap = Wiretap::start(at, &[WORD]).await?;
    let edge = format!(
        "[sources.numbers]\ntype = \"seq\"\ntotal = {TOTAL}\nbatch-size = 100\n\
         interceptors = [\"word\"]\nchannels = [\"main\"]\n\n\
         [interceptors.word]\ntype = \"static\"\nkey = \"word\"\nvalue = \"{WORD}\"\n\n\
         [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
         [sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{}\"\n{sink}\n",
        wiretap.listen
    );
    let aggregator = format!(
        "[sources.edges]\ntype = \"avro\"\nlisten = \"{at}\"\ntrust-plaintext = true\n\
         channels = [\"main\"]\n{source}\n\n\
         [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
         [sinks.files]\ntype = \"file-roll\"\nchannel = \"main\"\nformat = \"json\"\n\
         directory = {:?}\n",
        output.display().to_string()
    );
    let mut edge = Agent::new(folder.path(), "edge", &edge)?;
    let mut aggregator = Agent::new(folder.path(), "aggregator", &aggregator)?;
    for agent in [&mut aggregator, &mut edge] {
        agent.start()?;
        agent.ready().await?;
    }
    wait::until("every number is in a file", WITHIN, || async {
        Ok((numbers::distinct(&output)? == TOTAL).then_some(()))
    })
    .await?;
    for (agent, source) in [
        (&mut edge, "sources.numbers"),
        (&mut aggregator, "sources.edges"),
    ] {
        assert!(agent.stop().await?.success(), "{}", agent.tail());
        let audit = agent.audit().await?;
        assert!(audit.holds, "{audit:#?}");
        assert_eq!(audit.count(source, "accepted"), Some(TOTAL));
    }
    assert_eq!(numbers::lines(&output)?, TOTAL, "stored twice");
    Ok((wiretap.bytes(), wiretap.found()))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_speak_zstd_unless_one_of_them_is_told_not_to() -> Result<()> {
    let none = "compression = \"none\"";
    let (packed, words) = travel("", "").await?;
    assert_eq!(words, 0, "read on the wire");
    let (plain, words) = travel(none, "").await?;
    assert!(words > 0);
    println!("{TOTAL} events: {plain} bytes, {packed} with zstd");
    assert!(packed * 3 < plain);
    let (refused, words) = travel("compression = \"zstd\"", none).await?;
    assert!(words > 0 && refused * 2 > plain, "{refused} bytes");
    Ok(())
}
