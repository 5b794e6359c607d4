//! Bodies, heads and clients that mean no good, and a stop in the middle.

use super::*;

#[tokio::test]
async fn packed_bodies_are_unpacked_within_the_limit() {
    let limits = [("max-body", text("64KiB")), ("max-event", text("64KiB"))];
    let web = Running::start(&limits, Kept::default()).await;
    let fields = "Content-Encoding: gzip\r\n";
    let two_members = [gzip(b"first "), gzip(b"second")].concat();
    assert_eq!(web.post("/", fields, &two_members).await.status, 200);
    assert_eq!(web.out.texts(), ["|first second"]);
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 70 << 10);
    let small_bomb = gzip(&vec![0; 1 << 20]);
    assert_eq!(web.post("/", fields, &small_bomb).await.status, 413);
    assert_eq!(web.post("/", fields, &bomb).await.status, 413);
    assert_eq!(web.post("/", fields, &gzip(b"cut")[..12]).await.status, 400);
    assert_eq!(web.post("/", fields, b"no gzip").await.status, 400);
    assert_eq!(
        web.post("/", "Content-Encoding: br\r\n", b"x").await.status,
        415
    );
    let latin = "Content-Type: application/json; charset=ISO-8859-1\r\n";
    assert_eq!(web.post("/", latin, b"[]").await.status, 415);
    assert_eq!(web.out.texts().len(), 1);
}

#[tokio::test]
async fn large_bodies_stop_at_the_limit_with_and_without_a_length() {
    let limits = [("max-body", text("64KiB")), ("max-event", text("64KiB"))];
    let web = Running::start(&limits, Kept::default()).await;
    let large = vec![b'x'; 80 << 10];
    assert_eq!(web.post("/", "", &large).await.status, 413);
    let head =
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    for chunk in large.chunks(4 << 10) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(web.raw(&request).await.status, 413);
    // A client that speaks TLS would not understand an answer.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert_eq!(web.raw(hello).await.status, 0);
    assert_eq!(web.out.texts(), Vec::<String>::new());
}

#[tokio::test]
async fn who_sends_all_before_reading_is_told_why() {
    // Such clients have no second thread: a pipe that breaks would be all they see.
    let web = Running::start(&[("paths", ["/events"].into())], Kept::default()).await;
    let body = vec![b'x'; 32 << 20];
    for (path, status) in [("/events", "413"), ("/elsewhere", "404")] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = web.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
    }
}

#[tokio::test]
async fn who_waits_to_be_asked_for_the_body_is_not_asked() {
    let web = Running::start(&[], Kept::default()).await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
                Content-Length: 33554432\r\n\r\n";
    let answer = web.raw(head.as_bytes()).await;
    assert_eq!(answer.status, 413, "{}", answer.head);
}

#[tokio::test]
async fn heads_that_are_bombs_or_lies_are_refused() {
    let web = Running::start(&[], Kept::default()).await;
    let many: String = (0..100_000).map(|n| format!("h{n}: x\r\n")).collect();
    assert_eq!(web.post("/", &many, b"x").await.status, 431);
    let long = format!("h: {}\r\n", "x".repeat(1 << 20));
    assert_eq!(web.post("/", &long, b"x").await.status, 431);
    let cases: [&[u8]; 4] = [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, x\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nffffffffffffffffff\r\n",
    ];
    for request in cases {
        let answer = web.raw(request).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(request));
    }
    assert_eq!(web.out.texts(), Vec::<String>::new());
}

#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let web = Running::start(&[], Kept::default()).await;
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
        0\r\n\r\nPOST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    let answer = web.raw(request).await;
    assert!(answer.status == 200 && answer.head.contains("connection: close"));
    assert_eq!(answer.body, r#"{"accepted":1}"#);
    assert_eq!(web.out.texts(), ["|"]);
}

/// Every wait below would be half a minute or more on a real clock.
#[tokio::test(start_paused = true)]
async fn slow_clients_are_shown_the_door() {
    let web = Running::start_on(Arc::new(Memory::new()), &[], Kept::default()).await;
    let started = Instant::now();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    let slow_head = async {
        let mut stream = web.connect().await;
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: x\r\n")
            .await
            .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    };
    let slow_body = async {
        let mut stream = web.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..20 {
            stream.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    };
    let idle = async {
        let mut stream = web.connect().await;
        let ok = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
        stream.write_all(ok.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    };
    let (of_head, of_body, of_idle) = tokio::join!(slow_head, slow_body, idle);
    assert_eq!(of_head, "");
    assert!(of_body.starts_with("HTTP/1.1 408"), "{of_body}");
    assert!(of_idle.starts_with("HTTP/1.1 200"), "{of_idle}");
    assert!(
        started.elapsed() <= Duration::from_secs(31),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_loses_its_connection() {
    let web = Running::start_on(Arc::new(Memory::with_buffer(256)), &[], Kept::default()).await;
    let mut stream = web.connect().await;
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    let mut sent = 0;
    while stream.write_all(request).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "nobody ends this connection");
    }
}

#[tokio::test]
async fn draining_finishes_the_request_in_hand() {
    let gate = Some((Notify::new(), Notify::new()));
    let mut web = Running::start(
        &[],
        Kept {
            gate,
            ..Kept::default()
        },
    )
    .await;
    let (waiting, gate) = web.out.gate.as_ref().unwrap();
    let drained = async {
        waiting.notified().await;
        web.stopper.drain();
        gate.notify_one();
    };
    let (answer, ()) = tokio::join!(web.post("/", "", b"last"), drained);
    assert_eq!(answer.status, 200);
    assert_eq!(web.out.texts(), ["|last"]);
    assert!(web.tasks.join(Duration::from_secs(5)).await);
}
