use super::*;
use crate::testing::Input;

/// What a patch makes of an event with the headers `a` and `b`.
fn patched(patch: &Patch) -> (Vec<(String, String)>, String) {
    let input = Input::new().event([("a", "1"), ("b", "2")], "body");
    let outcomes = input.run(|_| patch.clone()).unwrap();
    let [event] = outcomes[0].events() else {
        panic!("{outcomes:?}");
    };
    (event.headers.clone().into_iter().collect(), event.text())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn a_patch_changes_what_it_names() {
    let patch = Patch::new()
        .set("b", "3")
        .remove("a")
        .remove("none")
        .set("c", "4");
    assert_eq!(
        patched(&patch),
        (pairs(&[("b", "3"), ("c", "4")]), "body".into())
    );
    let body = Patch::new().body("new");
    assert_eq!(
        patched(&body),
        (pairs(&[("a", "1"), ("b", "2")]), "new".into())
    );
    let empty = Patch::new().body("").set("a", "");
    assert_eq!(
        patched(&empty),
        (pairs(&[("a", ""), ("b", "2")]), String::new())
    );
}

#[test]
fn the_last_word_about_a_header_counts() {
    let patch = Patch::new()
        .set("a", "x")
        .set("c", "y")
        .set("a", "z")
        .remove("c")
        .set("b", "w");
    let same = Patch::new().set("a", "z").remove("c").set("b", "w");
    assert_eq!(patched(&patch), patched(&same));
    let back = Patch::new().remove("a").remove("b").set("a", "again");
    assert_eq!(patched(&back).0, pairs(&[("a", "again")]));
}

#[test]
fn a_patch_without_changes_passes() {
    assert_eq!(Verdict::from(Patch::new()), Verdict::Pass);
    assert_ne!(Verdict::from(Patch::new().body("")), Verdict::Pass);
}

#[test]
fn one_event_becomes_several() {
    let input = Input::new().event([("a", "1"), ("b", "2")], "x y");
    let outcomes = input
        .run(|event| {
            let words = event.text().unwrap_or_default().split(' ');
            Verdict::replace(
                words.map(|word| NewEvent::like(event, word).set("a", word).remove("b")),
            )
        })
        .unwrap();
    let made: Vec<_> = outcomes[0]
        .events()
        .iter()
        .map(|event| (event.header("a"), event.header("b"), event.text()))
        .collect();
    assert_eq!(
        made,
        [(Some("x"), None, "x".into()), (Some("y"), None, "y".into())]
    );
}
