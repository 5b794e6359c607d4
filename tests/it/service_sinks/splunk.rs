//! `splunk-hec` and its collector.

use anyhow::{Context, Result, ensure};
use levada_tests::service::Splunk;

use super::{Case, Delivered, number, text};

const TOKEN: &str = "00000000-1111-2222-3333-444444444444";

fn case() -> Case<Splunk> {
    Case {
        guest: "splunk-hec",
        config: "sourcetype = \"app\", index = \"main\", fields = [\"level\"], id-field = \"levada_id\"",
        credential: Some((
            "authorization",
            "Splunk 00000000-1111-2222-3333-444444444444",
        )),
        good: text,
        bad: ("", "Event field cannot be blank"),
        stored: |service| {
            let events = service.events.iter();
            events
                .filter_map(|event| number(event["event"].as_str()?))
                .collect()
        },
        repeated: None,
    }
}

fn service() -> Splunk {
    Splunk {
        token: TOKEN.into(),
        events: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_events_are_taken() -> Result<()> {
    case().good_events_are_there(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_set_aside_alone() -> Result<()> {
    case().bad_events_are_set_aside_alone(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_events_fault_keeps_it() -> Result<()> {
    case().what_is_no_events_fault_keeps_it(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_by_kills() -> Result<()> {
    case().nothing_is_lost_by_kills(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_its_time_its_fields_and_its_id() -> Result<()> {
    let case = case();
    let mut delivery = case.start(service(), [], ("", "")).await?;
    delivery.post(&case.bodies(3)).await?;
    let Delivered { service, .. } = delivery.finish().await?;
    let events = service.look().await.events.clone();
    let event = events.first().context("no event")?;
    ensure!(event["time"] == 1_700_000_000.0, "{event}");
    ensure!(event["fields"]["level"] == "info", "{event}");
    let id = |n: usize| events[n]["fields"]["levada_id"].as_str();
    ensure!(id(0).is_some_and(|id| id.len() > 32), "{event}");
    ensure!(id(0) != id(1), "{event}");
    Ok(())
}
