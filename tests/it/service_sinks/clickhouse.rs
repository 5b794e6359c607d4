//! `clickhouse` and its HTTP interface.

use anyhow::{Context, Result, ensure};
use levada_tests::service::ClickHouse;

use super::{Case, Delivered, object};

fn case() -> Case<ClickHouse> {
    Case {
        guest: "clickhouse",
        config: "table = \"events\", id-field = \"id\", headers = { x-clickhouse-user = \"levada\" }",
        credential: Some(("x-clickhouse-key", "s3cret")),
        good: object,
        bad: (r#"{"n":"seven"}"#, "Cannot parse input"),
        stored: |service| {
            let number = |n: u64| usize::try_from(n).ok();
            let rows = service.rows.iter();
            rows.filter_map(|row| number(row["n"].as_u64()?)).collect()
        },
        repeated: Some(|service| service.repeated),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_rows_are_inserted() -> Result<()> {
    case().good_events_are_there(ClickHouse::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_set_aside_alone() -> Result<()> {
    case()
        .bad_events_are_set_aside_alone(ClickHouse::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_rows_fault_keeps_it() -> Result<()> {
    case()
        .what_is_no_events_fault_keeps_it(ClickHouse::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_lost_or_there_twice_by_kills() -> Result<()> {
    case().nothing_is_lost_by_kills(ClickHouse::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_has_the_id_of_its_event() -> Result<()> {
    let case = case();
    let mut delivery = case.start(ClickHouse::default(), [], ("", "")).await?;
    delivery.post(&case.bodies(20)).await?;
    let Delivered { service, .. } = delivery.finish().await?;
    let rows = service.look().await.rows.clone();
    let ids: Option<Vec<_>> = rows.iter().map(|row| row["id"].as_str()).collect();
    let mut ids = ids.context("a row without an id")?;
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == 20, "{ids:?}");
    Ok(())
}
