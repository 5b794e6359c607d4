//! `elasticsearch` and its bulk API.

use anyhow::{Context, Result, ensure};
use levada_tests::{
    opensearch::{Distribution, OpenSearch},
    peers,
    service::{Elasticsearch, Forward, Turn},
};
use serde_json::json;

use super::{Case, Delivered, object};

fn case() -> Case<Elasticsearch> {
    Case {
        guest: "elasticsearch",
        config: "index = \"logs\"",
        credential: Some(("authorization", "ApiKey s3cret")),
        good: object,
        bad: (
            r#"{"n":"seven"}"#,
            "mapper_parsing_exception: failed to parse",
        ),
        stored: |service| {
            let documents = service.documents.values();
            let number = |n: u64| usize::try_from(n).ok();
            documents
                .filter_map(|document| number(document["n"].as_u64()?))
                .collect()
        },
        repeated: Some(|service| service.conflicts),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_documents_are_created() -> Result<()> {
    case().good_events_are_there(Elasticsearch::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_documents_are_set_aside_alone() -> Result<()> {
    case()
        .bad_events_are_set_aside_alone(Elasticsearch::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_documents_fault_keeps_it() -> Result<()> {
    case()
        .what_is_no_events_fault_keeps_it(Elasticsearch::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_is_lost_or_there_twice_by_kills() -> Result<()> {
    case()
        .nothing_is_lost_by_kills(Elasticsearch::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_to_wait_comes_again_without_its_neighbours() -> Result<()> {
    let case = case();
    let protocol = Elasticsearch {
        busy_at: Some(7),
        ..Elasticsearch::default()
    };
    let mut delivery = case.start(protocol, [], ("", "")).await?;
    delivery.post(&case.bodies(20)).await?;
    let Delivered { service, letters } = delivery.finish().await?;
    ensure!(letters.is_empty(), "{letters:?}");
    ensure!(case.stored(&service).await.into_iter().eq(0..20));
    let conflicts = service.look().await.conflicts;
    ensure!(conflicts == 0, "{conflicts} came again for nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_sent_in_smaller_requests() -> Result<()> {
    let case = case();
    let protocol = Elasticsearch {
        most_bytes: 2_000,
        ..Elasticsearch::default()
    };
    let mut delivery = case.start(protocol, [], ("", "")).await?;
    let mut bodies = case.bodies(100);
    bodies[42] = format!(r#"{{"n":42,"text":"{}"}}"#, "x".repeat(2_000));
    delivery.post(&bodies).await?;
    let Delivered { service, letters } = delivery.finish().await?;
    ensure!(letters.len() == 1, "{letters:?}");
    ensure!(letters[0].1 == "status 413", "{}", letters[0].1);
    let good = (0..100).filter(|n| *n != 42);
    ensure!(case.stored(&service).await.into_iter().eq(good));
    Ok(())
}

/// OpenSearch itself, while the agent is killed and some documents are bad.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_has_each_document_once_and_says_what_is_bad() -> Result<()> {
    let found = peers::here(Distribution::find(), "LEVADA_REQUIRE_OPENSEARCH")?;
    let Some(distribution) = found else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let server = OpenSearch::start(&distribution, folder.path()).await?;
    let index = json!({ "mappings": { "properties": { "n": { "type": "long" } } } });
    server.send("PUT", "/logs", Some(&index)).await?;
    let case = Case::<Forward> {
        stored: |_| Vec::new(),
        repeated: None,
        guest: case().guest,
        config: case().config,
        credential: None,
        good: case().good,
        bad: case().bad,
    };
    let (forward, sink) = (Forward { to: server.at }, "batch = { events = 50 }");
    let mut delivery = case.start(forward, [Turn::Swallows], ("", sink)).await?;
    let mut bodies = case.bodies(500);
    let places = [0, 49, 50, 333];
    for place in places {
        bodies[place] = case.bad.0.to_owned();
    }
    delivery.post(&bodies).await?;
    delivery.kill_thrice().await?;
    let Delivered { letters, .. } = delivery.finish().await?;
    ensure!(letters.len() == places.len(), "{letters:?}");
    let why = "status 400: mapper_parsing_exception: failed to parse field [n] of type [long]";
    for (body, reason) in letters {
        ensure!(
            body == case.bad.0 && reason.starts_with(why),
            "{body}: {reason}"
        );
    }
    server.send("POST", "/logs/_refresh", None).await?;
    let all = server
        .send("GET", "/logs/_search?size=1000&sort=n", None)
        .await?;
    let found = all["hits"]["hits"].as_array().context("no hits")?;
    let found: Vec<_> = found
        .iter()
        .filter_map(|hit| hit["_source"]["n"].as_u64())
        .collect();
    let good = (0..500).filter(|n| !places.contains(n)).map(|n| n as u64);
    ensure!(found.iter().copied().eq(good), "{found:?}");
    Ok(())
}
