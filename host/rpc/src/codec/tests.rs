use super::*;

#[test]
fn as_many_events_go_into_a_call_as_its_frame_holds() {
    let check = |lengths: &[u32], bytes: usize, expected: usize| {
        assert_eq!(fitting(lengths.iter().copied(), BESIDE + bytes), expected);
    };
    check(&[], 10, 0);
    check(&[4, 4, 4], 8, 2);
    check(&[4, 4, 4], 12, 3);
    check(&[13, 1], 12, 0);
    assert_eq!(fitting([1].into_iter(), 10), 0);
    assert_eq!(
        fitting(std::iter::repeat_n(2, MAX_EVENTS * 2), usize::MAX),
        MAX_EVENTS
    );
}
