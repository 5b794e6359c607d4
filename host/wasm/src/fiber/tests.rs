use tokio::sync::oneshot;
use wasmtime::Engine;

use super::*;

fn ticker() -> Ticker {
    Ticker::start(Engine::default()).unwrap()
}

/// Uses the processor for at least so long.
fn burn(least: Duration) {
    let start = thread_cpu();
    while thread_cpu() - start < least {
        std::hint::black_box(0);
    }
}

#[tokio::test]
async fn only_polls_count_as_cpu_time() {
    let (time, ticker) = (PollTime::default(), ticker());
    let (go, wait) = oneshot::channel();
    let call = async {
        burn(Duration::from_millis(5));
        wait.await.unwrap();
        burn(Duration::from_millis(5));
        time.used()
    };
    let beside = async {
        // On the same thread, while the call waits.
        burn(Duration::from_millis(200));
        go.send(()).unwrap();
    };
    let (inside, ()) = tokio::join!(Fiber::new(call, &time, &ticker), beside);
    let (inside, after) = (inside.unwrap(), time.used());
    assert!(inside >= Duration::from_millis(10), "{inside:?}");
    assert!(
        after >= inside && after < Duration::from_millis(200),
        "{after:?}"
    );
    time.reset();
    assert_eq!(time.used(), Duration::ZERO);
}

#[tokio::test]
async fn a_panic_is_the_result_of_its_call() {
    let (time, ticker) = (PollTime::default(), ticker());
    let call = async { assert_eq!(1, 2, "as planned") };
    let panic = Fiber::new(call, &time, &ticker).await.unwrap_err();
    assert!(
        panic
            .downcast_ref::<String>()
            .unwrap()
            .contains("as planned")
    );
    // The poll that panicked has ended for the clock, too.
    assert_eq!(time.used(), time.used());
}
