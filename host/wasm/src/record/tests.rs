use std::path::Path;

use levada_core::Secret;
use serde_json::json;

use super::*;
use crate::{Limits, Role, event::EventText, http::Header};

fn recording() -> Recording {
    let event = EventText {
        headers: vec![("b".into(), "1".into()), ("a".into(), "2".into())],
        body64: Some("/wA=".into()),
        ..EventText::default()
    };
    let exchange = |ask: &str, with, answer: Option<Value>| Exchange {
        ask: ask.into(),
        with,
        answer: answer.map(|answer| (answer,)),
    };
    Recording {
        head: Head {
            levada_recording: Head::VERSION,
            host: "0.1.0".into(),
            at_ms: 1_700_000_000_123,
            handler: "test".into(),
            digest: "sha256:00".into(),
            component: "guest.wasm".into(),
            role: Role::PackedInterceptor,
            on: "sources.plant".into(),
            limits: Limits::default(),
            masked: vec!["grants.secrets.token".into()],
            events: vec![event],
        },
        exchanges: vec![
            exchange("random.u64", json!(null), Some(json!(u64::MAX))),
            exchange("settings.get", json!(["x"]), Some(json!(null))),
            exchange("http-client.send", json!([{}]), None),
        ],
        end: End {
            answer: None,
            fault: Some(Fault {
                reason: "the limit `deadline` of 1s was reached".into(),
                limit: Some("deadline".into()),
                backtrace: None,
            }),
        },
    }
}

#[test]
fn a_recording_comes_back_from_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.jsonl");
    for _ in 0..2 {
        recording().write(&path).unwrap();
        assert_eq!(Recording::read(&path).unwrap(), recording());
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // One JSON object a line, the answer that is null among them.
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(
        lines[2],
        json!({"ask":"settings.get","with":["x"],"answer":[null]})
    );
}

#[test]
fn what_is_no_whole_recording_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("call.jsonl");
    recording().write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Recording::read(&path).unwrap_err()
    };
    for end in 0..whole.len() - 1 {
        let error = refused(&whole[..end]);
        let is_named = matches!(
            error,
            RecordingError::Foreign { .. } | RecordingError::Damaged { .. }
        );
        assert!(is_named, "cut at {end}: {error}");
    }
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        refused(&changed);
    }
    let foreign = refused(b"{\"headers\":{}}\n");
    assert!(foreign.to_string().contains("is no recording"), "{foreign}");
    let text = String::from_utf8(whole).unwrap();
    let later = text.replacen("\"levada-recording\":1", "\"levada-recording\":2", 1);
    let later = refused(later.as_bytes()).to_string();
    assert!(
        later.contains("form 2, this levada reads form 1"),
        "{later}"
    );
    let none = Recording::read(Path::new("/nowhere/call.jsonl")).unwrap_err();
    assert!(matches!(none, RecordingError::Read { .. }));
}

#[test]
fn asterisks_stand_for_secrets_wherever_they_are() {
    let named = [("a", "s3cret"), ("b", "s3cret and \"more\"\n"), ("c", "")];
    let named = named.map(|(name, secret)| (name.to_owned(), Secret::new(secret)));
    let masks = Masks::new(named);
    assert_eq!(masks.names, ["a", "b"]);
    let value = json!(["x s3cret y", {"k s3cret": "s3cret and \"more\""}, 7]);
    let masked = json!(["x ****** y", {"k ******": "*****************"}, 7]);
    assert_eq!(masks.mask(value), masked);
    // As it stands in JSON that is a text itself.
    let all = json!(json!({"b": "s3cret and \"more\"\n"}).to_string());
    let all = masks.mask(all).to_string();
    assert!(!all.contains("more") && !all.contains("s3cret"), "{all}");
    // And among bytes that are no text.
    let bytes = crate::event::Blob(b"\xff\x00s3cret\xfe".to_vec());
    let masked = masks.mask(serde_json::to_value(bytes).unwrap());
    assert_eq!(crate::event::coded(&masked).unwrap(), b"\xff\x00******\xfe");
    let headers = ["Authorization", "X-Api-Key", "Accept"].map(|name| Header {
        name: name.into(),
        value: "12345".into(),
    });
    let values: Vec<_> = header_mask(&headers)
        .into_iter()
        .map(|it| it.value)
        .collect();
    assert_eq!(values, ["*****", "*****", "12345"]);
}

#[test]
fn a_call_that_asks_too_much_has_no_recording() {
    let mut tape = Tape::records(&Arc::default());
    for _ in 0..40 {
        tape.ask::<()>("x", json!(["y".repeat(1 << 20)])).unwrap();
        tape.answer(json!(null));
    }
    assert!(tape.into_written().is_none());
}

#[test]
fn the_first_question_that_differs_ends_a_replay() {
    let mut recording = recording();
    let read = |recording: &Recording| Tape::replays(recording);
    let mut tape = read(&recording);
    assert_eq!(
        tape.ask::<u64>("random.u64", json!(null)),
        Ok(Some(u64::MAX))
    );
    let differs = tape.ask::<Value>("settings.get", json!(["y"])).unwrap_err();
    let words =
        "question 2: `settings.get(\"x\")` was recorded, `settings.get(\"y\")` is asked now";
    assert_eq!(differs, words);
    let found = differences(&recording.end, Some(tape), None);
    assert_eq!(found, [words]);
    // The recorded call ended while it was answered.
    let mut tape = read(&recording);
    tape.ask::<u64>("random.u64", json!(null)).unwrap();
    tape.ask::<Option<String>>("settings.get", json!(["x"]))
        .unwrap();
    tape.ask::<Value>("http-client.send", json!([{}]))
        .unwrap_err();
    assert!(differences(&recording.end, Some(tape), None).is_empty());
    // It asks less, and more.
    recording.exchanges.truncate(1);
    let found = differences(&recording.end, Some(read(&recording)), None);
    assert!(
        found[0].contains("`random.u64(null)` was recorded, and is not asked now"),
        "{found:?}"
    );
    assert!(
        found[1].contains("it failed when recorded: the limit `deadline`"),
        "{found:?}"
    );
    let mut tape = read(&recording);
    tape.ask::<u64>("random.u64", json!(null)).unwrap();
    let more = tape.ask::<u64>("random.u64", json!(null)).unwrap_err();
    assert!(more.contains("has no more questions"), "{more}");
}

#[test]
fn answers_that_differ_are_shown_where_they_do() {
    let end = |answer: Value| End {
        answer: Some(answer),
        fault: None,
    };
    let of = |then: Value, now: Value| {
        let mut recording = recording();
        recording.exchanges.clear();
        let mut tape = Tape::replays(&recording);
        tape.end(now);
        differences(&end(then), Some(tape), None)
    };
    assert!(of(json!({"Ok": "a"}), json!({"Ok": "a"})).is_empty());
    let then = json!({"Ok": [{"patch": {"set": []}}, "pass"]});
    let now = json!({"Ok": [{"patch": {"set": []}}, {"discard": "x"}]});
    let words = "answer.Ok[1]: \"pass\" was recorded, {\"discard\":\"x\"} now";
    assert_eq!(of(then, now), [words]);
    let blob = |bytes: &[u8]| serde_json::to_value(crate::event::Blob(bytes.to_vec())).unwrap();
    let words = "answer.Ok, byte 2 of 3: 0x01 was recorded, 0x02 now";
    let (then, now) = (blob(&[0xff, 0, 1]), blob(&[0xff, 0, 2]));
    assert_eq!(of(json!({ "Ok": then }), json!({ "Ok": now })), [words]);
}
