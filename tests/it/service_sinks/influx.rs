//! `influx` and its write API.

use anyhow::{Result, ensure};
use levada_tests::service::Influx;

use super::{Case, Delivered, object};

fn case() -> Case<Influx> {
    Case {
        guest: "influx",
        config: "org = \"plant\", bucket = \"raw & fine\", measurement = \"odd one\", tags = [\"level\"]",
        credential: Some(("authorization", "Token s3cret")),
        good: object,
        bad: (r#"{"n":"seven"}"#, "field type conflict"),
        stored: |service| {
            let points = service.points.values();
            points
                .filter_map(|fields| fields.get("n")?.parse().ok())
                .collect()
        },
        repeated: Some(|service| service.repeated),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_points_are_written() -> Result<()> {
    case().good_events_are_there(Influx::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_points_are_set_aside_alone() -> Result<()> {
    case()
        .bad_events_are_set_aside_alone(Influx::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_points_fault_keeps_it() -> Result<()> {
    case()
        .what_is_no_events_fault_keeps_it(Influx::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_point_is_lost_or_there_twice_by_kills() -> Result<()> {
    case().nothing_is_lost_by_kills(Influx::default()).await
}

/// Points of one series and one time replace each other; events of one millisecond do not.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_words_of_two_events_are_two_points() -> Result<()> {
    let mut delivery = case().start(Influx::default(), [], ("", "")).await?;
    delivery.post(&vec![object(1); 50]).await?;
    let Delivered { service, .. } = delivery.finish().await?;
    let points = service.look().await.points.len();
    ensure!(points == 50, "{points} points");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_none_are_set_aside_alone() -> Result<()> {
    let mut case = case();
    case.config = "org = \"plant\", bucket = \"raw & fine\", format = \"line\"";
    let mut delivery = case.start(Influx::default(), [], ("", "")).await?;
    let line = |n: usize| format!("m,tag=a\\ b n={n} {n}");
    let mut bodies: Vec<_> = (0..20).map(line).collect();
    bodies[7] = "no line".into();
    delivery.post(&bodies).await?;
    let Delivered { service, letters } = delivery.finish().await?;
    ensure!(letters.len() == 1, "{letters:?}");
    ensure!(letters[0].1.contains("unable to parse"), "{letters:?}");
    let good = (0..20).filter(|n| *n != 7);
    ensure!(case.stored(&service).await.into_iter().eq(good));
    Ok(())
}
