use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::doors::tests::view;

async fn ask(door: Door, method: &str, path: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap();
    let answer = answer(&view(), door, "me", &request).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

#[tokio::test]
async fn the_tcp_door_answers_health_and_metrics_and_nothing_else() {
    let (status, health) = ask(Door::Tcp, "GET", "/healthz").await;
    assert_eq!((status, &health["status"]), (200, &"ok".into()));
    let (status, metrics) = ask(Door::Tcp, "GET", "/metrics?x=1").await;
    assert_eq!(status, 200);
    assert!(metrics.as_str().unwrap().contains("levada_test_total{} 7"));
    for path in [
        "/",
        "/status",
        "/channels",
        "/dead-letters",
        "/dead-letters/1",
        "/audit",
        "/handlers/endless/tap",
    ] {
        assert_eq!(ask(Door::Tcp, "GET", path).await.0, 404, "{path}");
    }
    for path in [
        "/healthz/",
        "/healthz/../status",
        "//status",
        "/%2e%2e/status",
        "/STATUS",
    ] {
        assert_eq!(ask(Door::Tcp, "GET", path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_changed_through_either_door() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for door in [Door::Tcp, Door::Socket] {
            // A POST on the socket is an order, and there is none of that name.
            let expected = if (method, door) == ("POST", Door::Socket) {
                404
            } else {
                405
            };
            let (status, _) = ask(door, method, "/status").await;
            assert_eq!(status, expected, "{method}");
        }
    }
}

#[tokio::test]
async fn the_socket_shows_parts_channels_and_counters() {
    let (status, page) = ask(Door::Socket, "GET", "/status").await;
    assert_eq!((status, &page["agent"]), (200, &"gw".into()));
    assert_eq!(page["channels"][0]["name"], "main");
    assert_eq!(page["health"]["status"], "ok");
    let (status, audit) = ask(Door::Socket, "GET", "/audit").await;
    assert_eq!((status, &audit["holds"]), (200, &true.into()));
}

#[tokio::test]
async fn dead_letters_come_as_a_list_and_one_by_one() {
    let (_, all) = ask(Door::Socket, "GET", "/dead-letters").await;
    let ids: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["id"].as_u64())
        .collect();
    assert_eq!(ids.len(), 40);
    assert_eq!(all[0]["event-hex"], "");
    let (_, some) = ask(Door::Socket, "GET", "/dead-letters?after=37&limit=2").await;
    assert_eq!(
        (&some[0]["id"], some.as_array().unwrap().len()),
        (&38.into(), 2)
    );
    let (_, one) = ask(Door::Socket, "GET", "/dead-letters/7").await;
    assert_eq!((&one["id"], &one["event-hex"]), (&7.into(), &"00ff".into()));
    assert_eq!(ask(Door::Socket, "GET", "/dead-letters/41").await.0, 404);
    assert_eq!(ask(Door::Socket, "GET", "/dead-letters/x").await.0, 404);
    assert_eq!(
        ask(Door::Socket, "GET", "/dead-letters?limit=many").await.0,
        400
    );
}

#[tokio::test]
async fn orders_are_posted_on_the_socket_and_read_strictly() {
    let reload = Reload {
        dry_run: true,
        drain: vec!["a".into()],
        discard: vec!["b".into(), "c".into()],
    };
    let (status, said) = ask(Door::Socket, "POST", &reload.path()).await;
    assert_eq!((status, said), (200, format!("{reload:?}").into()));
    let (status, said) = ask(Door::Socket, "POST", "/dead-letters/7/replay").await;
    assert_eq!((status, &said["by"]), (200, &"me".into()));
    for (path, status) in [
        ("/reload?dry-run=yes", 400),
        ("/reload?force", 400),
        ("/dead-letters/x/replay", 404),
        ("/dead-letters/7", 404),
        ("/status", 404),
    ] {
        assert_eq!(ask(Door::Socket, "POST", path).await.0, status, "{path}");
    }
}
