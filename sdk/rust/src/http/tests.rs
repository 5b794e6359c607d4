use super::*;

#[test]
fn a_status_says_what_becomes_of_an_event() {
    let outcome = |status| Response::new(status).outcome();
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(outcome(status), Outcome::Done, "{status}");
    }
    for status in [408, 425, 429, 500, 502, 503, 504, 507, 599] {
        let reason = format!("status {status}");
        assert_eq!(outcome(status), Outcome::retry(reason), "{status}");
    }
    for status in [
        100, 301, 302, 304, 307, 400, 401, 403, 404, 413, 422, 501, 505,
    ] {
        let reason = format!("status {status}");
        assert_eq!(outcome(status), Outcome::reject(reason), "{status}");
    }
}

#[test]
fn the_server_says_when_to_come_again() {
    let busy = |value: &str| Response::new(429).with_header("retry-after", value);
    let wait = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(busy("7").retry_after(), wait(7));
    assert_eq!(busy(" 0 ").retry_after(), wait(0));
    for other in ["Wed, 21 Oct 2015 07:28:00 GMT", "-1", "soon", "", "1.5"] {
        assert_eq!(busy(other).retry_after(), None, "{other}");
    }
    let again = Outcome::retry("status 429").after(Duration::from_secs(7));
    assert_eq!(busy("7").outcome(), again);
}

#[test]
fn what_is_no_events_fault_comes_again_or_needs_a_human() {
    let busy = Response::new(503).with_header("retry-after", "2");
    let again = Failure::retry("status 503").after(Duration::from_secs(2));
    assert_eq!(busy.failure(), again);
    assert_eq!(Response::new(500).failure(), Failure::retry("status 500"));
    for status in [301, 401, 403, 404, 501] {
        let reason = format!("status {status}");
        assert_eq!(Response::new(status).failure(), Failure::fatal(reason));
    }
}

#[test]
fn a_reason_shows_the_beginning_of_what_the_server_says() {
    let long = format!("  {} ", "é".repeat(500));
    let response = Response::new(400).with_body(long);
    let reason = format!("status 400: {}", "é".repeat(120));
    assert_eq!(response.reason(), reason);
    assert_eq!(Response::new(400).with_body([0xff]).text(), None);
}

#[test]
fn only_what_is_denied_needs_a_human() {
    let denied = Problem::Denied("not granted".into());
    assert_eq!(
        denied.failure(),
        Failure::fatal("request denied: not granted")
    );
    for problem in [
        Problem::Timeout,
        Problem::Connect("refused".into()),
        Problem::TooLarge,
        Problem::Protocol("cut".into()),
    ] {
        assert!(matches!(
            problem.failure(),
            Failure::Retry { after: None, .. }
        ));
    }
}
