use proptest::{collection::vec, prelude::*};

use super::*;
use crate::golden::hex;

fn open() -> Open {
    Open {
        incarnation: Incarnation(*b"0123456789abcdef"),
        channel: "main".into(),
        lane: 3,
        oldest: 70,
        marks: true,
        zstd: false,
    }
}

fn welcome(standing: Standing) -> Welcome {
    Welcome {
        standing,
        window: 8,
        max_frame: 16 << 20,
        zstd: true,
    }
}

/// Positions, and ids for them if `with_ids`, made of small steps: 0 is another child.
fn sent(prev: u64, steps: &[u8], with_ids: bool) -> Sent {
    let mut position = prev + 1;
    let each: Vec<u64> = steps
        .iter()
        .map(|step| {
            position += u64::from(*step);
            position
        })
        .collect();
    let id = |(n, step): (usize, &u8)| OriginId {
        incarnation: Incarnation([step / 3; 16]),
        sequence: 5 + n as u64,
        child: u32::from(step % 2),
    };
    let ids = steps.iter().enumerate().map(id).filter(|_| with_ids);
    Sent {
        prev,
        positions: Positions::from_each(each),
        chain: 0x0102_0304_0506_0708,
        origins: Origins::from_ids(ids),
    }
}

#[test]
fn values_are_these_bytes() {
    let bytes = hex("01 30313233343536373839616263646566 08 6d61696e 06 8c01 01 00");
    assert_eq!(open().encode(), bytes);
    let at = Mark {
        position: 70,
        chain: Some(1),
    };
    let bytes = hex("01 04 8c01 01 0100000000000000 10 80808010 01");
    assert_eq!(welcome(Standing::At(at)).encode(), bytes);
    assert_eq!(welcome(Standing::Off).encode(), hex("01 00 10 80808010 01"));
    // Three single events, then three children of one, then one after a gap.
    let bytes = hex("01 0c 06 02 06 02 02 02 06 06 02 02 0807060504030201 00 00");
    assert_eq!(sent(6, &[0, 1, 1, 1, 0, 0, 3], false).encode(), bytes);
    assert_eq!(encode_reply(70), hex("01 8c01"));
}

#[test]
fn values_read_back_as_they_were() {
    assert_eq!(Open::decode(&open().encode()).unwrap(), open());
    let at = |chain| Standing::At(Mark { position: 9, chain });
    for standing in [Standing::Off, Standing::New, at(None), at(Some(u64::MAX))] {
        let welcome = welcome(standing);
        assert_eq!(Welcome::decode(&welcome.encode()).unwrap(), welcome);
    }
    assert_eq!(decode_reply(&encode_reply(9)).unwrap(), 9);
}

#[test]
fn a_later_version_may_say_more_and_this_one_may_not() {
    let more = |value: Bytes, version| {
        let mut value = value.to_vec();
        value[0] = version;
        value.push(7);
        Bytes::from(value)
    };
    assert_eq!(Open::decode(&more(open().encode(), 2)).unwrap(), open());
    assert_eq!(decode_reply(&more(encode_reply(9), 200)).unwrap(), 9);
    let error = Open::decode(&more(open().encode(), 1)).unwrap_err();
    assert!(matches!(error, MessageError::TooMuch { .. }), "{error}");
    let error = Open::decode(&more(open().encode(), 0)).unwrap_err();
    assert!(
        matches!(error, MessageError::Choice { found: 0, .. }),
        "{error}"
    );
    Open::decode(&Bytes::new()).unwrap_err();
}

/// What a hostile peer could claim of a call of four events, and the word that names it.
#[test]
fn what_does_not_go_with_the_events_is_refused_by_name() {
    let check = |bytes: &str, why: &str| {
        let error = Sent::decode(&hex(bytes).into(), 4).unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(text.contains("hop's part of the call"), "{text}");
        assert!(text.contains(why), "{bytes}: {text}");
    };
    let most = "feffffffffffffffff01";
    check("01 00 02 00 08 02", "means nothing: 0"); // positions that do not rise
    check("01 00 02 02 0a 02", "means nothing: 5"); // more than there are events
    check("01 00 02 02 06 02", "means nothing: 1"); // fewer
    check("01 00 02 02 00 02", "means nothing: 0");
    check("01 00 02 02 08 00", "means nothing: 0");
    check("01 00 01", "means nothing: -1");
    check(&format!("01 00 {most}"), "means nothing");
    check(&format!("01 00 02 {most} 08 02"), "means nothing");
    check(&format!("01 00 02 02 {most} {most}"), "means nothing");
    let four = "01 00 02 02 08 02 0000000000000000";
    check(&format!("{four} {most}"), "means nothing");
    check(&format!("{four} {}", "80808080 01"), "Truncated");
    check(&format!("{four} 00 02 00"), "means nothing"); // no such life
    let life = "02 00000000000000000000000000000000";
    check(&format!("{four} {life} 02 00 00 00 00"), "means nothing: 0");
    check(&format!("{four} {life} 02 00 00 00 0c"), "means nothing: 1"); // three ids
    check(
        &format!("{four} {life} 02 00 00 feffffff1f 10"),
        "means nothing",
    );
    check(&format!("{four} 00 00 00"), "bytes");
    Sent::decode(&hex(&format!("{four} {life} 02 00 00 00 10")).into(), 4).unwrap();
}

proptest! {
    #[test]
    fn calls_read_back_as_they_were(
        prev in 0..1_u64 << 61,
        steps in vec(0..5_u8, 1..200),
        with_ids: bool,
    ) {
        let sent = sent(prev, &steps, with_ids);
        let value = sent.encode();
        prop_assert_eq!(Sent::decode(&value, steps.len()).unwrap(), sent);
        prop_assert!(Sent::decode(&value, steps.len() + 1).is_err());
        for end in 0..value.len() {
            prop_assert!(Sent::decode(&value.slice(..end), steps.len()).is_err());
        }
    }

    #[test]
    fn no_bytes_break_anything(
        mut value in vec(any::<u8>(), 0..200),
        steps in vec(0..5_u8, 1..50),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let events = steps.len();
        let mut near = sent(6, &steps, true).encode().to_vec();
        for (at, byte) in flips {
            let at = at.index(near.len());
            near[at] = byte;
        }
        for value in [Bytes::from(std::mem::take(&mut value)), Bytes::from(near)] {
            let _read = (Open::decode(&value), Welcome::decode(&value), decode_reply(&value));
            if let Ok(sent) = Sent::decode(&value, events) {
                prop_assert_eq!(sent.positions.len(), events);
                prop_assert!(sent.positions.first() > Some(sent.prev));
                let each: Vec<_> = sent.positions.iter().collect();
                prop_assert!(each.is_sorted());
                let ids = sent.origins.iter().count();
                prop_assert!(ids == 0 || ids == events);
            }
        }
    }
}
