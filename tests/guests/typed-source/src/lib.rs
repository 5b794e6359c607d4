//! A source written against the WIT alone; `../README.md` describes what it does.

#![expect(unsafe_code, reason = "the bindings are generated")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "source-handler",
});

use exports::levada::handler::source::{Event, Failure, Guest, Polled};
use levada::handler::{
    call, settings,
    types::{Header, Later},
};

struct Typed;

impl Guest for Typed {
    fn poll(cursor: Option<Vec<u8>>) -> Result<Polled, Failure> {
        let mode = settings::get("mode").unwrap_or_default();
        let next = cursor
            .as_deref()
            .map_or(Some(0), number)
            .ok_or_else(|| Failure::Fatal("the cursor is no number".to_owned()))?;
        let cursor = cursor.unwrap_or_else(|| b"0".to_vec());
        let idle = Polled {
            events: Vec::new(),
            cursor,
            more: true,
            wait_ms: 0,
        };
        let reason = "asked to".to_owned();
        match mode.as_str() {
            "retry" => Err(Failure::Retry(Later {
                reason,
                after_ms: Some(250),
            })),
            "fatal" => Err(Failure::Fatal(reason)),
            "trap" => panic!("asked to"),
            "loop" => loop {
                std::hint::spin_loop();
            },
            "idle" => Ok(idle),
            "giant-output" => Ok(Polled {
                events: vec![event(vec![b'x'; 1 << 19]); 32],
                ..idle
            }),
            "giant-event" => Ok(Polled {
                events: vec![event(vec![b'x'; 2 << 20])],
                ..idle
            }),
            "many-events" => Ok(Polled {
                events: vec![event(Vec::new()); 10_001],
                ..idle
            }),
            "giant-cursor" => Ok(Polled {
                cursor: vec![b'1'; (64 << 10) + 1],
                ..idle
            }),
            _ => Ok(count(next)),
        }
    }
}

/// The numbers that come next, up to the setting `total`.
fn count(next: u64) -> Polled {
    let set = |key: &str, default| {
        let value = settings::get(key);
        value.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let end = set("total", 100).min(next + set("batch", 7)).max(next);
    Polled {
        events: (next..end)
            .map(|n| event(n.to_string().into_bytes()))
            .collect(),
        cursor: end.to_string().into_bytes(),
        more: end > next,
        wait_ms: 0,
    }
}

fn event(body: Vec<u8>) -> Event {
    let header = |name: &str, value: String| Header {
        name: name.to_owned(),
        value,
    };
    let headers = vec![
        header("from", call::component()),
        header("attempt", call::attempt().to_string()),
        // Belongs to the host, and is left out.
        header("levada.o", "forged".to_owned()),
    ];
    Event { headers, body }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

export!(Typed);
