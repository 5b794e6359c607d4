//! `otlp-http` and its receiver.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use levada_tests::service::Otlp;
use serde_json::Value;

use super::{Case, Delivered, number, text};

fn case() -> Case<Otlp> {
    Case {
        guest: "otlp-http",
        config: "resource = { \"service.name\" = \"plant\" }",
        credential: None,
        good: text,
        bad: ("bad", "it is bad"),
        stored: |service| {
            let records = service.records.iter();
            records
                .filter_map(|record| number(record["body"]["stringValue"].as_str()?))
                .collect()
        },
        repeated: None,
    }
}

fn takes_parts() -> Otlp {
    Otlp {
        takes_parts: true,
        ..Otlp::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_records_are_taken() -> Result<()> {
    case().good_events_are_there(Otlp::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_set_aside_alone() -> Result<()> {
    case().bad_events_are_set_aside_alone(Otlp::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_records_fault_keeps_it() -> Result<()> {
    case()
        .what_is_no_events_fault_keeps_it(Otlp::default())
        .await
}

/// What came twice has the same id, by which others can tell.
#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_lost_by_kills() -> Result<()> {
    let mut case = case();
    case.stored = |service| {
        let uid = |record: &Value| {
            let attributes = record["attributes"].as_array().cloned().unwrap_or_default();
            let mut attributes = attributes.into_iter();
            let uid = attributes.find(|attribute| attribute["key"] == "log.record.uid");
            uid.map(|uid| uid["value"]["stringValue"].to_string())
        };
        let ids: BTreeSet<_> = service.records.iter().map(uid).collect();
        assert_eq!(ids.len(), 500);
        let records = service.records.iter();
        records
            .filter_map(|record| number(record["body"]["stringValue"].as_str()?))
            .collect()
    };
    case.nothing_is_lost_by_kills(Otlp::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_alone_in_its_request_is_blamed_alone() -> Result<()> {
    let case = case();
    let handler = "batch = { events = 1 }";
    let mut delivery = case.start(takes_parts(), [], (handler, "")).await?;
    let mut bodies = case.bodies(20);
    bodies[7] = "bad".into();
    delivery.post(&bodies).await?;
    let Delivered { service, letters } = delivery.finish().await?;
    let bad = ("bad".to_owned(), "rejected: it is bad".to_owned());
    ensure!(letters == [bad], "{letters:?}");
    let good = (0..20).filter(|n| *n != 7);
    ensure!(case.stored(&service).await.into_iter().eq(good));
    Ok(())
}

/// The protocol forbids to send again what was taken in part, and does not say which part it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_in_part_is_not_sent_again_and_not_lost() -> Result<()> {
    for (partial, dead) in [("partial = \"reject\"", 20), ("partial = \"accept\"", 0)] {
        let mut case = case();
        case.config = partial;
        let mut delivery = case.start(takes_parts(), [], ("", "")).await?;
        let mut bodies = case.bodies(20);
        bodies[7] = "bad".into();
        delivery.post(&bodies).await?;
        let Delivered { service, letters } = delivery.finish().await?;
        ensure!(letters.len() == dead, "{partial}: {letters:?}");
        let why = "1 of 20 rejected, not said which: it is bad";
        ensure!(
            letters.iter().all(|(_, reason)| reason == why),
            "{letters:?}"
        );
        let good = (0..20).filter(|n| *n != 7);
        ensure!(case.stored(&service).await.into_iter().eq(good));
        ensure!(service.requests().len() == 1, "sent again");
    }
    Ok(())
}
