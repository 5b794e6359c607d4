use super::*;
use levada_sdk::testing::{
    Delivered, Input, answer_requests, requests, set_setting, settings_asked, settings_described,
};

fn sink() -> ClickHouse {
    set_setting("url", "https://click.example:8443");
    set_setting("table", "logs.events");
    ClickHouse::read().unwrap()
}

fn deliver(sink: &ClickHouse, input: &Input) -> Result<Vec<Delivered>, String> {
    let delivered = input.deliver_batch(|batch, outcomes| sink.deliver(batch, outcomes));
    delivered.map_err(|failed| failed.to_string())
}

fn input(bodies: &[&str]) -> Input {
    let event = |input: Input, body: &&str| input.event([], body);
    bodies.iter().fold(Input::new(), event).with_ids()
}

#[test]
fn rows_are_one_insert_with_a_token() {
    answer_requests(|_| Ok(Response::new(200)));
    set_setting("parameters", r#"{"async_insert":"1"}"#);
    set_setting("id-field", "id");
    let delivered = deliver(&sink(), &input(&[r#"{"a":1}"#, "{\n\"a\":2}"])).unwrap();
    assert_eq!(delivered, [const { Delivered::Done }; 2]);
    let sent = requests().remove(0);
    let url = "https://click.example:8443/?query=INSERT%20INTO%20logs.events%20FORMAT%20JSONEachRow\
               &insert_deduplication_token=test&async_insert=1";
    assert_eq!((&*sent.method, &*sent.url), ("POST", url));
    let id = "000102030405060708090a0b0c0d0e0f";
    let rows = format!("{{\"id\":\"{id}-1.0\",\"a\":1}}\n{{\"id\":\"{id}-2.0\", \"a\":2}}\n");
    assert_eq!(String::from_utf8(sent.body).unwrap(), rows);
}

#[test]
fn the_row_that_is_blamed_is_rejected_and_the_others_inserted_under_tokens_of_their_own() {
    answer_requests(|request| {
        let rows = String::from_utf8_lossy(&request.body).into_owned();
        Ok(match rows.lines().position(|row| row.contains("bad")) {
            Some(at) => {
                let body = format!(
                    "Code: 117. DB::Exception: Unknown field found while parsing JSONEachRow format: \
                     bad: (at row {})\n",
                    at + 1
                );
                Response::new(400).with_body(body)
            }
            None => Response::new(200),
        })
    });
    let bodies = [
        r#"{"a":1}"#,
        r#"{"a":2}"#,
        r#"{"bad":3}"#,
        "no row",
        r#"{"a":4}"#,
    ];
    let delivered = deliver(&sink(), &input(&bodies)).unwrap();
    let done = Delivered::Done;
    assert_eq!(
        (&delivered[..2], &delivered[4]),
        (&[done.clone(), done.clone()][..], &done)
    );
    assert!(matches!(&delivered[2], Delivered::Rejected(why) if why.contains("Unknown field")));
    assert_eq!(
        delivered[3],
        Delivered::Rejected("the body is not a JSON object".into())
    );
    let token = |url: &str| url.split("token=").nth(1).unwrap_or_default().to_owned();
    let tokens: Vec<_> = requests()
        .iter()
        .map(|request| token(&request.url))
        .collect();
    assert_eq!(tokens, ["test", "test.0-2", "test.2-3", "test.3-4"]);
}

#[test]
fn what_is_no_rows_fault_keeps_all_of_them() {
    let answers = |status: u16, code: &'static str, body: &'static str| {
        answer_requests(move |_| {
            let response = Response::new(status).with_body(body);
            Ok(response.with_header("x-clickhouse-exception-code", code))
        });
        deliver(&sink(), &input(&["{}", "{}"])).unwrap_err()
    };
    for (status, code, body) in [
        (500, "252", "Code: 252. DB::Exception: Too many parts (300)"),
        (
            500,
            "241",
            "Code: 241. DB::Exception: Memory limit exceeded",
        ),
        (
            503,
            "439",
            "Code: 439. DB::Exception: Cannot schedule a task",
        ),
        (408, "159", "Code: 159. DB::Exception: Timeout exceeded"),
        (
            200,
            "241",
            "Code: 241. DB::Exception: Memory limit exceeded",
        ),
    ] {
        let failed = answers(status, code, body);
        assert!(failed.starts_with("to be tried again"), "{body}: {failed}");
    }
    for (status, code, body) in [
        (404, "60", "Code: 60. DB::Exception: Unknown table"),
        (
            400,
            "62",
            "Code: 62. DB::Exception: Syntax error: failed at position 13",
        ),
        (
            403,
            "516",
            "Code: 516. DB::Exception: Authentication failed",
        ),
        (401, "194", "Code: 194. DB::Exception: Password required"),
        (501, "48", "Code: 48. DB::Exception: Not implemented"),
    ] {
        let failed = answers(status, code, body);
        assert!(failed.starts_with("fatal"), "{body}: {failed}");
    }
}

#[test]
fn a_constraint_that_is_violated_blames_its_row_too() {
    answer_requests(|request| {
        let rows = String::from_utf8_lossy(&request.body).into_owned();
        Ok(match rows.lines().position(|row| row.contains("-1")) {
            Some(at) => {
                let body = format!(
                    "Code: 469. DB::Exception: Constraint `c` for table logs.events (uuid) is violated \
                     at row {}. Expression: (a > 0)",
                    at + 1
                );
                Response::new(500).with_body(body)
            }
            None => Response::new(200),
        })
    });
    let delivered = deliver(&sink(), &input(&[r#"{"a":1}"#, r#"{"a":-1}"#])).unwrap();
    assert_eq!(delivered[0], Delivered::Done);
    assert!(matches!(&delivered[1], Delivered::Rejected(why) if why.contains("Constraint")));
}

#[test]
fn the_manifest_describes_every_setting() {
    sink();
    let described = settings_described(include_str!("../levada.toml"));
    assert_eq!(settings_asked(), described);
}
