//! What guests say, in both forms, and what becomes of it.

use super::*;

#[tokio::test]
async fn both_forms_pass_discard_and_reject_alike() {
    let house = house();
    for wat in [PUPPET, TYPED] {
        let handler = house.load(&house.spec(wat)).await;
        let batch = bodies(["one", "x", "j", "last", "x"]);
        let (out, effects) = call(&*handler, &batch).await.unwrap();
        assert_eq!(texts(&out), ["one", "last"]);
        let discarded = effects
            .counts
            .iter()
            .find(|c| c.counter == Counter::Discarded)
            .unwrap();
        assert_eq!((discarded.reason.as_str(), discarded.amount), ("no", 2));
        assert_eq!(discarded.part, part("sources.plant"));
        let [letter] = &effects.dead_letters[..] else {
            panic!("one event was rejected")
        };
        assert_eq!(letter.event, batch.event_bytes(2).unwrap());
        assert_eq!((letter.reason.as_str(), letter.attempts), ("no", 1));
        assert_eq!(letter.part, part("handlers.test"));
        assert_eq!(letter.flow, part("sources.plant"));
        assert!(letter.handler.as_ref().unwrap().starts_with("sha256:"));
        assert_eq!(letter.at_ms, 1_700_000_000_123);
    }
}

#[tokio::test]
async fn typed_patches_and_replacements_are_done() {
    let house = house();
    let handler = house.load(&house.spec(TYPED)).await;
    let mut builder = BatchBuilder::default();
    builder.push([("k", "old"), ("host", "a")], b"p");
    builder.push([("levada.o", "ours"), ("host", "b")], b"P");
    builder.push([("host", "c")], b"r");
    let (out, effects) = call(&*handler, &builder.finish()).await.unwrap();
    let headers: Vec<Vec<_>> = out.iter().map(|event| event.headers().collect()).collect();
    assert_eq!(headers[0], [("host", "a"), ("k", "v")]);
    assert_eq!(
        headers[1],
        [("levada.o", "ours"), ("host", "b")],
        "reserved names are skipped"
    );
    assert_eq!(headers[2..], [vec![("host", "c")], vec![("host", "c")]]);
    let made = effects
        .counts
        .iter()
        .find(|count| count.counter == Counter::Made)
        .unwrap();
    assert_eq!(made.amount, 1);
    assert!(house.shows("levada_handler_reserved_headers_total{part=\"handlers.test\"} 1"));
}

#[tokio::test]
async fn a_batch_of_any_form_and_size_is_cut_into_calls() {
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    let names: Vec<_> = (0..2500).map(|n| n.to_string()).collect();
    let (out, _) = call(&*handler, &bodies(names.iter().map(String::as_str)))
        .await
        .unwrap();
    assert_eq!(texts(&out), names);
    assert!(house.shows("levada_handler_calls_total{part=\"handlers.test\"} 3"));
    // A map of two blocks with a name twice is re-encoded before the guest sees it.
    let foreign = b"\x02\x02a\x02b\x02\x02a\x02c\x00\x02y".to_vec();
    let limits = levada_core::Limits::default();
    let batch = Batch::from_all_events(foreign.into(), &limits)
        .unwrap()
        .batch;
    let (out, _) = call(&*handler, &batch).await.unwrap();
    assert_eq!(out.event_bytes(0).unwrap(), &b"\x02\x02a\x02c\x00\x02y"[..]);
    let (out, _) = call(&*handler, &Batch::default()).await.unwrap();
    assert!(out.is_empty());
}

#[tokio::test]
async fn failures_of_the_whole_batch_are_told() {
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    let retry = call(&*handler, &bodies(["x", "R"])).await.unwrap_err();
    let after = Some(Duration::from_millis(1500));
    assert_eq!(
        retry,
        InterceptError::Later {
            reason: "busy".into(),
            after
        }
    );
    let fatal = call(&*handler, &bodies(["F"])).await.unwrap_err();
    assert_eq!(
        fatal,
        InterceptError::Fatal {
            reason: "busy".into()
        }
    );
}
