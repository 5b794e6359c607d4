use levada_core::ChannelName;

use super::*;

fn count(part: &str, counter: Counter, reason: &str, amount: u64) -> Count {
    Count {
        part: PartId::parse(part).unwrap(),
        counter,
        reason: reason.into(),
        amount,
    }
}

pub(crate) fn channel(name: &str, kind: &'static str, events: u64) -> ChannelInfo {
    ChannelInfo {
        name: ChannelName::new(name).unwrap(),
        kind,
        events,
        bytes: events * 100,
        leased: 0,
        capacity_bytes: 1 << 20,
        capacity_events: None,
        oldest_ms: None,
        waiting_puts: 0,
    }
}

fn counts() -> Vec<Count> {
    vec![
        count("sources.s", Counter::Accepted, "", 10),
        count("sources.s", Counter::Made, "", 2),
        count("sources.s", Counter::Put, "", 9),
        count("sources.s", Counter::Discarded, "filtered", 2),
        count("sources.s", Counter::DeadLettered, "", 1),
        count("channels.c", Counter::Put, "", 9),
        count("channels.c", Counter::Delivered, "", 4),
        count("channels.m", Counter::Put, "", 9),
        count("sinks.k", Counter::Delivered, "", 4),
    ]
}

#[test]
fn what_came_is_what_went_and_what_is_left() {
    let channels = [channel("c", "durable", 5), channel("m", "memory", 0)];
    let audit = audit(&counts(), &channels);
    assert!(audit.holds, "{audit:?}");
    let parts: Vec<_> = audit.rows.iter().map(|row| row.part.to_string()).collect();
    assert_eq!(parts, ["sources.s", "channels.c"]);
    assert_eq!(audit.rows[0].counters["discarded(filtered)"], 2);
    assert_eq!(audit.rows[1].queued, Some(5));
}

#[test]
fn one_event_too_few_is_seen() {
    let audit = audit(
        &counts(),
        &[channel("c", "durable", 4), channel("m", "memory", 0)],
    );
    assert!(!audit.holds);
    let wrong: Vec<_> = audit.rows.iter().filter(|row| !row.holds).collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!((wrong[0].came, wrong[0].accounted), (9, 8));
}
