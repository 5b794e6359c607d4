//! `loki` and its push API.

use std::collections::BTreeSet;

use anyhow::Result;
use levada_tests::service::Loki;

use super::{Case, number, text};

fn case() -> Case<Loki> {
    Case {
        guest: "loki",
        config: "labels = { job = \"test\" }, label-headers = [\"level\"], \
                 metadata-headers = [\"timestamp\"], headers = { x-scope-orgid = \"plant\" }",
        credential: None,
        good: text,
        bad: (
            "a line that is much longer than what the service wants to take of one line of a log, \
             and so it does not",
            "Max entry size",
        ),
        stored: |service| {
            let lines = service.lines.iter();
            lines.filter_map(|(_, _, line)| number(line)).collect()
        },
        repeated: Some(|service| service.repeated),
    }
}

fn service() -> Loki {
    Loki {
        tenant: "plant".into(),
        longest: 100,
        ..Loki::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_lines_are_taken() -> Result<()> {
    case().good_events_are_there(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_set_aside_alone() -> Result<()> {
    case().bad_events_are_set_aside_alone(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_lines_fault_keeps_it() -> Result<()> {
    case().what_is_no_events_fault_keeps_it(service()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_or_there_twice_by_kills() -> Result<()> {
    case().nothing_is_lost_by_kills(service()).await
}

/// Loki takes the same line at the same time for the same; events of one millisecond are not.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_words_of_two_events_are_two_lines() -> Result<()> {
    let mut delivery = case().start(service(), [], ("", "")).await?;
    delivery.post(&vec!["the same".to_owned(); 50]).await?;
    let delivered = delivery.finish().await?;
    let service = delivered.service.look().await;
    let times: BTreeSet<_> = service.lines.iter().map(|(_, time, _)| *time).collect();
    anyhow::ensure!((service.lines.len(), times.len()) == (50, 50), "{times:?}");
    Ok(())
}
