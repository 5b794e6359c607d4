//! `Idempotency-Key`: what is posted again is stored once, also when the agent dies between the
//! commit and the answer.

use std::time::Duration;

use anyhow::Result;
use levada_tests::http::{Answer, Connection};

use crate::gateway::Gateway;

async fn post(gateway: &Gateway, key: &str, body: &'static str) -> Result<Answer> {
    let mut connection = Connection::open(gateway.http).await?;
    let headers = [("idempotency-key", key)];
    connection.send("POST", "/", &headers, body.into()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_answer_was_lost_is_stored_once() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    assert_eq!(post(&gateway, "before", "before").await?.status, 200);
    gateway.agent.stop().await?;
    // It dies when the next events are committed and nobody has been told.
    let point = ("LEVADA_CRASH", "source-after-commit-before-ack:1");
    gateway.agent.start_with(&[point])?;
    gateway.agent.ready().await?;
    post(&gateway, "k1", "one").await.unwrap_err();
    gateway.agent.wait_end(Duration::from_secs(10)).await?;
    gateway.agent.start()?;
    gateway.agent.ready().await?;
    let again = post(&gateway, "k1", "one").await?;
    assert_eq!(
        (again.status, again.text().as_str()),
        (200, r#"{"accepted":1}"#)
    );
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = post(&gateway, "k1", "two").await?;
    assert_eq!(other.status, 422, "{}", other.text());
    let next = post(&gateway, "k2", "two").await?;
    assert_eq!(
        (next.status, next.header("idempotent-replayed")),
        (200, None)
    );
    // Killed, and not only stopped: what it knows of keys is in the store.
    gateway.agent.kill().await?;
    gateway.agent.start()?;
    gateway.agent.ready().await?;
    let again = post(&gateway, "k2", "two").await?;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let events = gateway.events(3).await?;
    let bodies: Vec<_> = events.iter().map(|event| event.body.as_str()).collect();
    assert_eq!(bodies, ["before", "one", "two"]);
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    assert_eq!(audit.count("sources.web", "accepted"), Some(3));
    Ok(())
}

/// Many clients with the same keys at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn posts_that_race_with_their_own_repetition_are_stored_once() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    let posts = keys
        .iter()
        .flat_map(|key| [key; 5])
        .map(|key| post(&gateway, key, "raced"));
    let answers = futures_util::future::try_join_all(posts).await?;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let replayed = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_some());
    assert_eq!(replayed.count(), 80);
    assert_eq!(gateway.events(20).await?.len(), 20);
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    assert_eq!(audit.count("sources.web", "accepted"), Some(20));
    Ok(())
}
