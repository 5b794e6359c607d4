//! What people see, as data in and text out.

use clap::CommandFactory;
use serde_json::json;

use crate::{cli::Cli, dlq, output, status, table};

#[test]
fn the_command_line_is_whole() {
    Cli::command().debug_assert();
}

#[test]
fn quantities_are_for_people() {
    assert_eq!(table::size(512), "512 B");
    assert_eq!(table::size(1 << 20), "1 MiB");
    assert_eq!(table::size(1_600_000), "1.5 MiB");
    assert_eq!(table::number(1_234_567), "1,234,567");
    assert_eq!(table::number(12), "12");
    assert_eq!(table::seconds(0), "0 s");
    assert_eq!(table::seconds(256), "4 m 16 s");
    assert_eq!(table::seconds(90_000), "1 d 1 h");
    assert_eq!(table::seconds(86_430), "1 d");
}

#[test]
fn foreign_text_moves_no_cursor() {
    assert_eq!(
        output::clean("a\u{1b}[2Jb\r\nc\u{202e}d"),
        "a\\u{1b}[2Jb\\r\\nc\\u{202e}d"
    );
}

#[test]
fn a_status_says_who_waits_for_what() {
    let status = json!({
        "running": true, "agent": "gw", "version": "0.1.0", "pid": 7, "started-ms": 1_000,
        "health": { "status": "degraded", "reasons": ["sinks.up is retrying: no route"] },
        "risks": ["sources.in listens on 0.0.0.0:4141 without TLS"],
        "listening": [{ "part": "admin", "at": "127.0.0.1:4180" }],
        "parts": [{
            "part": "sinks.up", "state": "retrying", "since-ms": 59_000, "restarts": 0,
            "waits-for": "the next try in 80 ms",
            "last-error": { "text": "no route\nto host", "at-ms": 58_000 },
        }],
        "channels": [{
            "name": "main", "kind": "durable", "events": 1204, "bytes": 1_048_576, "leased": 100,
            "capacity-bytes": 4_194_304, "capacity-events": null, "oldest-ms": 1_000,
            "waiting-puts": 2,
        }],
        "store": {
            "path": "/data/store.redb", "file-bytes": 12_582_912, "commits": 10,
            "sync-p50-us": 1200, "sync-p99-us": 3400, "dead-letters": 3, "dead-letter-bytes": 600,
            "state": "ok",
        },
    });
    let expected = "\
gw is degraded: levada 0.1.0, pid 7, up 1 m
  degraded: sinks.up is retrying: no route
  risk: sources.in listens on 0.0.0.0:4141 without TLS
  admin listens on 127.0.0.1:4180

PART      STATE     FOR  WAITS FOR              RESTARTS  LAST ERROR
sinks.up  retrying  2 s  the next try in 80 ms  0         no route\\nto host (3 s ago)

CHANNEL  KIND     EVENTS  IN HAND  BYTES  CAPACITY  FULL  OLDEST  WAITING
main     durable  1,204   100      1 MiB  4 MiB     25 %  1 m     2 puts

dead letters: 3 (600 B); levada dlq ls shows them
store: /data/store.redb, 12 MiB, 10 commits, sync 1.2 ms (99 %: 3.4 ms)
";
    assert_eq!(status::shown(&status, 61_000), expected);
}

#[test]
fn dead_letters_are_listed_and_shown() {
    let letter = json!({
        "id": 4, "part": "handlers.redact", "flow": "sources.plant", "reason": "no field `email`",
        "limit": null, "backtrace": "at run\u{1b}[0m", "handler": "sha256:00", "origin": null,
        "attempts": 1, "at-ms": 1_700_000_000_000_u64, "headers": [["topic", "a/b"]], "bytes": 9,
        "body": "", "event-hex": "00ff",
    });
    let list = dlq::listed(&json!([letter.clone()]), 1);
    assert!(list.contains("2023-11-14T22:13:20Z"), "{list}");
    assert!(list.contains("levada dlq ls --after 4"), "{list}");
    let shown = dlq::shown(&letter).unwrap();
    for part in ["header topic  a/b", "BACKTRACE\nat run\\u{1b}[0m", "00ff\n"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(dlq::listed(&json!([]), 100), "There are no dead letters.\n");
}
