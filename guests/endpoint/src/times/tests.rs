use super::*;
use levada_sdk::testing::{Input, clear, set_received_ms};

fn times(input: &Input, at: impl Fn(usize, &Event<'_>) -> u64) -> Vec<u64> {
    let mut times = Vec::new();
    let delivered = input.deliver(|event| times.push(at(times.len(), event)));
    assert!(delivered.is_ok());
    times
}

#[test]
fn the_header_says_when_or_the_time_of_reception() {
    clear();
    set_received_ms(7000.9);
    let input = Input::new().event([("timestamp", "1700000000123")], "");
    let input = input.event([("timestamp", "soon")], "").event([], "");
    let expected = [1_700_000_000_123, 7000, 7000];
    assert_eq!(times(&input, |_, event| millis(event)), expected);
    clear();
}

#[test]
fn events_of_one_millisecond_stay_apart_and_each_keeps_its_time() {
    let event = |input: Input, _| input.event([("timestamp", "5")], "same");
    let input = (0..1000).fold(Input::new(), event);
    let with_ids = times(&input.clone().with_ids(), nanos);
    let expected: Vec<u64> = (1..=1000).map(|sequence| 5_000_000 + sequence).collect();
    assert_eq!(with_ids, expected);
    // Whatever its company is.
    assert_eq!(
        times(&input.clone().with_ids(), |_, event| nanos(9, event)),
        expected
    );
    let without: Vec<u64> = (0..1000).map(|place| 5_000_000 + place).collect();
    assert_eq!(times(&input, nanos), without);
}

#[test]
fn a_time_beyond_all_bounds_is_the_last_one() {
    let input = Input::new().event([("timestamp", "18446744073709551615")], "");
    assert_eq!(times(&input.with_ids(), nanos), [u64::MAX]);
}
