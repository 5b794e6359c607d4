use levada_core::Stopper;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{ConnectionLimits, Memory, Transport};

const SHORT: Duration = Duration::from_secs(1);

/// Answers each byte, until the peer or the stop signal ends it.
async fn echo(mut accepted: Accepted, stop: Stop) {
    let mut byte = [0];
    loop {
        tokio::select! {
            () = stop.draining() => return,
            read = accepted.stream.read_exact(&mut byte) => if read.is_err() { return },
        }
        assert_ne!(byte[0], b'!', "a byte that no task survives");
        accepted.stream.write_all(&byte).await.unwrap();
    }
}

async fn answered(stream: &mut Box<dyn Stream>, byte: u8) -> bool {
    let mut answer = [0];
    stream.write_all(&[byte]).await.is_ok() && stream.read_exact(&mut answer).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_are_refused_and_others_served() {
    let (stopper, stop) = Stopper::new();
    let memory = Memory::new();
    let listener = memory.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let connections = Connections::new(ConnectionLimits {
        total: 9,
        per_ip: 2,
    });
    let echoed = stop.clone();
    let serve = accept_until(
        listener,
        Inbound::default(),
        &connections,
        "sources.x",
        &stop,
        move |accepted| echo(accepted, echoed.clone()),
    );
    let calls = async {
        let mut one = memory.connect(&to, SHORT).await.unwrap();
        let mut two = memory.connect(&to, SHORT).await.unwrap();
        assert!(answered(&mut one, b'a').await && answered(&mut two, b'b').await);
        let mut three = memory.connect(&to, SHORT).await.unwrap();
        assert!(!answered(&mut three, b'c').await);
        // A panic of one connection is not the end of the others.
        assert!(!answered(&mut two, b'!').await);
        let mut four = memory.connect(&to, SHORT).await.unwrap();
        assert!(answered(&mut four, b'd').await && answered(&mut one, b'e').await);
        stopper.drain();
        assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
        memory.connect(&to, SHORT).await.unwrap_err();
    };
    tokio::join!(serve, calls);
    assert_eq!(connections.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_at_once_cancels_what_does_not_end() {
    let (stopper, stop) = Stopper::new();
    let memory = Memory::new();
    let listener = memory.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let connections = Connections::new(ConnectionLimits::default());
    let serve = accept_until(
        listener,
        Inbound::default(),
        &connections,
        "sources.x",
        &stop,
        |accepted| async move {
            let _held = accepted;
            std::future::pending().await
        },
    );
    let calls = async {
        let mut one = memory.connect(&to, SHORT).await.unwrap();
        stopper.drain();
        stopper.now();
        assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
    };
    tokio::join!(serve, calls);
}
