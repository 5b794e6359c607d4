use std::fs;

use levada_core::{Problem, settings::Severity};
use proptest::prelude::*;

use super::*;
use crate::{Look, render_all};

const WHOLE: &str = r#"
[agent]
name = "gw"
data = "/var/lib/levada"

[sources.plant]
type = "mqtt"
channels = ["main"]
interceptors = ["redact"]

[handlers.redact]
component = "redact.wasm"

[channels.main]
type = "durable"

[sinks.up]
type = "avro"
channel = "main"
"#;

/// Loads files by name and text.
fn loaded(files: &[(&str, &[u8])]) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    load_with(&paths, &Surroundings::of(|_| None))
}

fn problems(text: &str) -> Vec<Problem> {
    loaded(&[("a.toml", text.as_bytes())])
        .problems
        .into_sorted()
}

fn messages(text: &str) -> Vec<String> {
    problems(text)
        .into_iter()
        .map(|p| format!("{}: {}", p.key, p.message))
        .collect()
}

#[test]
fn a_whole_configuration_has_no_problem() {
    let loaded = loaded(&[("a.toml", WHOLE.as_bytes())]);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let agent = loaded.agent.unwrap();
    assert_eq!(agent.settings.unwrap().name.as_str(), "gw");
    assert_eq!(agent.sources[0].chain[0].to_string(), "handlers.redact");
    assert_eq!(agent.sources[0].selector.channels()[0].as_str(), "main");
    assert_eq!(agent.sinks[0].common.channel.as_str(), "main");
}

#[test]
fn tables_may_be_spread_over_files_and_folders() {
    let (first, rest) = WHOLE.split_at(WHOLE.find("[channels").unwrap());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1.toml"), first).unwrap();
    fs::write(folder.path().join("2.toml"), rest).unwrap();
    fs::write(folder.path().join("notes.txt"), "= not read =").unwrap();
    let loaded = load_with(&[folder.path().to_owned()], &Surroundings::of(|_| None));
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    assert_eq!(loaded.agent.unwrap().sinks.len(), 1);
}

#[test]
fn the_same_key_in_two_files_names_both_places() {
    let second = b"[agent]\ndata = '/other'\n[sinks.up]\ntype = 'null'\n";
    let loaded = loaded(&[("a.toml", WHOLE.as_bytes()), ("b.toml", second)]);
    let report = render_all(&loaded.problems.into_sorted(), &loaded.files, Look::Plain);
    assert!(
        report.contains("error[agent.data]: the same key is written twice"),
        "{report}"
    );
    assert!(
        report.contains("error[sinks.up]: the same key is written twice"),
        "{report}"
    );
    assert!(
        report.contains("b.toml:2:1") && report.contains("a.toml:4:1"),
        "{report}"
    );
}

#[test]
fn a_key_twice_in_one_file_names_both_places() {
    let found = problems("[agent]\nname = 'a'\nname = 'b'\n[agent]\n");
    let related: Vec<_> = found
        .iter()
        .map(|p| (p.span.unwrap().start, p.related.as_ref().unwrap().0.start))
        .collect();
    assert_eq!(related, [(19, 8), (31, 0)]);
}

#[test]
fn several_syntax_errors_are_reported_at_once() {
    let found = messages("[agent\nname = \nx = [1,\n");
    assert!(found.len() >= 2, "{found:?}");
}

#[test]
fn every_wrong_reference_is_found_at_once() {
    let text = WHOLE
        .replace("channels = [\"main\"]", "channels = [\"mian\"]")
        .replace("[\"redact\"]", "[\"redcat\", \"redact\"]")
        .replace("channel = \"main\"", "channel = \"man\"");
    assert_eq!(
        messages(&text),
        [
            "sources.plant.channels: there is no channel `mian`",
            "sources.plant.interceptors: there is no interceptor or handler `redcat`",
            "sinks.up.channel: there is no channel `man`",
        ]
    );
}

#[test]
fn what_nobody_names_is_a_warning() {
    let text = format!("{WHOLE}\n[channels.spare]\ntype = \"memory\"\n[handlers.idle]\n");
    assert_eq!(
        messages(&text),
        [
            "channels.spare: no source writes this channel, no sink reads it",
            "handlers.idle: no source names it under `interceptors`, no source or sink under `handler`",
        ]
    );
}

#[test]
fn a_multiplexing_selector_names_its_channels() {
    let selector = r#"selector = { type = "multiplexing", header = "h", mapping = { a = ["main"], b = ["mani"] }, default = ["main"] }"#;
    let text = WHOLE.replace("channels = [\"main\"]", selector);
    assert_eq!(
        messages(&text),
        ["sources.plant.selector: there is no channel `mani`"]
    );
    let text = text.replace("mani", "main");
    let agent = loaded(&[("a.toml", text.as_bytes())]).agent.unwrap();
    let SelectorConfig::Multiplexing { mapping, .. } = &agent.sources[0].selector else {
        panic!("not multiplexing");
    };
    assert_eq!(mapping.len(), 2);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_mean_nothing() {
    let text = format!("\u{feff}{}", WHOLE.replace('\n', "\r\n"));
    assert!(problems(&text).is_empty());
}

#[test]
fn files_that_are_no_configuration_are_refused_by_name() {
    let large = vec![b'#'; (1 << 20) + 1];
    let cases: [(&str, &[u8], &str); 3] = [
        ("a.toml", &large, "it is larger than 1 MiB"),
        ("b.toml", b"a = 1\nb = '\xff'\n", "line 2 is not UTF-8 text"),
        (
            "c.conf",
            b"a1.sources = r1",
            "Flume's properties are not in this version",
        ),
    ];
    for (name, bytes, what) in cases {
        let loaded = loaded(&[(name, bytes)]);
        assert!(loaded.agent.is_none());
        let message = &loaded.problems.iter().next().unwrap().message;
        assert!(
            message.contains(name) && message.contains(what),
            "{message}"
        );
    }
    let missing = load_with(&["/no/such.toml".into()], &Surroundings::of(|_| None));
    assert!(missing.problems.has_errors());
}

#[test]
fn secrets_are_in_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "canary1").unwrap();
    let text = format!(
        "[agent]\nname = '${{file:{}}} '\ndata = 5\npassword = 'canary2'\n\
         url = 'mqtt://u:canary3@host' # }}\n[sinks.x]\ntype = 'null'\nchannel = 'c'\n\
         token = {{ secret = 'canary4' }}",
        path.display()
    );
    let loaded = loaded(&[("a.toml", text.as_bytes())]);
    let sorted = loaded.problems.clone().into_sorted();
    let report = render_all(&sorted, &loaded.files, Look::Plain);
    assert!(report.contains("error[agent.name]"), "{report}");
    assert!(report.contains("password"), "{report}");
    assert!(
        report.contains("a secret is written in the file"),
        "{report}"
    );
    assert!(!report.contains("canary"), "{report}");
    let shown = format!("{sorted:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn a_terminal_is_not_moved_by_what_a_file_says() {
    let loaded = loaded(&[(
        "a.toml",
        b"[agent]\nname = \"\\u001b[2J\"\n\"\\u001b]0;x\" = 1\n",
    )]);
    let report = render_all(&loaded.problems.into_sorted(), &loaded.files, Look::Plain);
    assert!(!report.contains('\u{1b}'), "{report:?}");
}

proptest! {
    /// Whatever a file holds: no panic, and every error that is about a file has a place.
    #[test]
    fn any_text_is_read_or_explained(text in "\\PC{0,200}") {
        explained(&text);
    }

    #[test]
    fn any_mutilated_configuration_is_read_or_explained(
        at in 0..WHOLE.len(), length in 0..40_usize, with in "[\\[\\]{}=\"'.\n a-c0-9,$]{0,12}",
    ) {
        let end = (at + length).min(WHOLE.len());
        explained(&format!("{}{with}{}", &WHOLE[..at], &WHOLE[end..]));
    }
}

fn explained(text: &str) {
    let loaded = loaded(&[("a.toml", text.as_bytes())]);
    let sorted = loaded.problems.into_sorted();
    let report = render_all(&sorted, &loaded.files, Look::Colour);
    let errors = sorted.iter().filter(|p| p.severity == Severity::Error);
    for problem in errors {
        let is_absent = problem.key == "agent" || problem.key.is_empty();
        assert!(problem.span.is_some() || is_absent, "{report}");
    }
}
