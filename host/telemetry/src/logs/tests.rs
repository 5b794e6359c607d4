use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{error, info, info_span, warn};
use tracing_subscriber::layer::SubscriberExt;

use super::{Colours, LogFormat, LogSetup, init_logs, layer};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the work logs, as text.
fn logged(lines: LogFormat, colours: Colours, work: impl FnOnce()) -> String {
    let out = Lines::default();
    let writer = out.clone();
    let layer = layer(lines, colours, move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let bytes = out.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// A clear screen, a forged line, a forged JSON object, DEL, C1, a new line, reordered text.
const EVIL: &str =
    "\u{1b}[2J\r\n2026 ERROR forged {\"level\":\"ERROR\"}\u{7f}\u{9b}31m\u{202e}\u{2028}\u{7}x";

fn log_evil() {
    let span = info_span!("guest", name = %EVIL);
    let _in = span.enter();
    warn!(part = %EVIL, debug = ?EVIL, text = EVIL, "{EVIL}");
}

#[test]
fn text_for_people_is_one_line_without_control_characters() {
    let text = logged(LogFormat::Human, Colours::Off, log_evil);
    let line = text.strip_suffix('\n').unwrap();
    let bad: Vec<_> = line
        .chars()
        .filter(|c| super::escape::is_dangerous(*c))
        .collect();
    assert!(bad.is_empty(), "{bad:?} in {line:?}");
    assert!(
        line.contains("part=\\u{1b}[2J\\r\\n2026 ERROR forged"),
        "{line}"
    );
    assert!(line.contains("\\u{9b}31m\\u{202e}\\u{2028}"), "{line}");
}

#[test]
fn colours_are_ours_and_nobody_elses() {
    let text = logged(LogFormat::Human, Colours::On, log_evil);
    assert!(text.contains("\u{1b}["), "{text:?}");
    assert!(!text.contains("\u{1b}[2J") && !text.contains('\r') && !text.contains('\u{9b}'));
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn ordinary_text_stays_as_it_is() {
    let text = logged(LogFormat::Human, Colours::Off, || {
        info!(sink = "up", n = 3, "gruess Gott: ü ≤ 漢")
    });
    assert!(
        text.ends_with(" INFO gruess Gott: ü ≤ 漢 sink=\"up\" n=3\n"),
        "{text:?}"
    );
}

#[test]
fn json_is_one_object_a_line_with_the_text_inside() {
    let text = logged(LogFormat::Json, Colours::Off, log_evil);
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.contains(super::escape::is_dangerous), "{line:?}");
    let read: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(read["level"], "WARN");
    assert_eq!(read["fields"]["message"], EVIL);
    assert_eq!(read["fields"]["part"], EVIL);
    assert_eq!(read["fields"]["text"], EVIL);
    assert_eq!(read["span"]["name"], "guest");
}

#[test]
fn json_has_a_line_per_event() {
    let text = logged(LogFormat::Json, Colours::Off, || {
        info!("one");
        error!(code = 7, "two");
    });
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let lines: Vec<_> = text.lines().map(read).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[1]["level"], &lines[1]["fields"]["code"]),
        (&"ERROR".into(), &7.into())
    );
    assert!(
        lines[0]["timestamp"]
            .as_str()
            .is_some_and(|time| time.contains('T'))
    );
}

#[test]
fn a_wrong_filter_is_explained() {
    let setup = LogSetup {
        format: LogFormat::Human,
        filter: "levada=loud".into(),
    };
    assert!(
        init_logs(&setup)
            .unwrap_err()
            .starts_with("`levada=loud` is no log filter: ")
    );
}
