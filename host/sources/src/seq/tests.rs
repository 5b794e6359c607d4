use std::sync::Mutex;

use levada_core::{
    Chance, Marks, Name, PartKind, Peer, Stopper, SystemClock, settings::Params as _,
};

use tokio::sync::Notify;

use super::*;

/// Keeps what is put, and refuses the puts whose place is in `refuse`.
#[derive(Default)]
struct Kept {
    bodies: Mutex<Vec<String>>,
    marks: Mutex<Marks>,
    puts: Mutex<usize>,
    refuse: Vec<usize>,
    changed: Notify,
}

#[async_trait]
impl Ingest for Kept {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        let mut puts = self.puts.lock().unwrap();
        *puts += 1;
        if self.refuse.contains(&puts) {
            return Err(PutError::Deadline);
        }
        let texts = put
            .batch
            .iter()
            .map(|e| String::from_utf8_lossy(e.body()).into_owned());
        self.bodies.lock().unwrap().extend(texts);
        let marks = put
            .marks
            .into_iter()
            .filter_map(|mark| Some((mark.key, mark.value?)));
        *self.marks.lock().unwrap() = Marks::new(marks);
        self.changed.notify_one();
        Ok(())
    }

    fn marks(&self) -> Marks {
        self.marks.lock().unwrap().clone()
    }
}

fn params() -> Params {
    Params::read_fields(&Table::default(), &mut Problems::new()).unwrap()
}

/// Runs a generator with `params` until it has made its total.
async fn run(params: Params, out: &Arc<Kept>) {
    let (stopper, stop) = Stopper::new();
    let cx = RunContext {
        part: PartId::new(PartKind::Sources, Name::new("gen").unwrap()),
        stop,
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
        peer: Peer::default(),
    };
    let total = params.total.unwrap();
    let next = Registry::new().gauge("next", "", &[]);
    let mut source = SeqSource { params, next };
    let made = Arc::clone(out);
    let stop_at_end = async {
        while made.bodies.lock().unwrap().len() < usize::try_from(total).unwrap() {
            made.changed.notified().await;
        }
        stopper.drain();
    };
    let (ended, ()) = tokio::join!(source.run(out.clone(), &cx), stop_at_end);
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn numbers_go_on_where_the_last_run_ended() {
    let out = Arc::new(Kept::default());
    let batch_size = NonZeroU64::new(4).unwrap();
    run(
        Params {
            total: Some(6),
            batch_size,
            ..params()
        },
        &out,
    )
    .await;
    run(
        Params {
            total: Some(10),
            batch_size,
            ..params()
        },
        &out,
    )
    .await;
    let bodies = out.bodies.lock().unwrap();
    assert_eq!(*bodies, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_tried_again_and_comes_once() {
    let out = Arc::new(Kept {
        refuse: vec![1, 3, 4],
        ..Kept::default()
    });
    let batch_size = NonZeroU64::new(2).unwrap();
    run(
        Params {
            total: Some(5),
            batch_size,
            ..params()
        },
        &out,
    )
    .await;
    assert_eq!(*out.bodies.lock().unwrap(), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let out = Arc::new(Kept::default());
    let started = Instant::now();
    let rate = NonZeroU64::new(100);
    let batch_size = NonZeroU64::new(10).unwrap();
    run(
        Params {
            total: Some(250),
            rate,
            batch_size,
            ..params()
        },
        &out,
    )
    .await;
    assert_eq!(started.elapsed().as_millis() / 10, 250);
}

#[tokio::test(start_paused = true)]
async fn bodies_are_filled_up_and_carry_the_headers() {
    let headers = BTreeMap::from([("kind".to_owned(), "load".to_owned())]);
    let params = Params {
        body_size: ByteSize(4),
        headers: Some(headers),
        ..params()
    };
    let next = Registry::new().gauge("next", "", &[]);
    let batch = SeqSource { params, next }.batch(99_998..100_000);
    let event = batch.get(0).unwrap();
    assert_eq!(
        (event.header("kind"), event.body()),
        (Some("load"), &b"99998"[..])
    );
    let params = Params {
        body_size: ByteSize(4),
        ..self::params()
    };
    let next = Registry::new().gauge("next", "", &[]);
    let batch = SeqSource { params, next }.batch(7..8);
    assert_eq!(batch.get(0).unwrap().body(), b"7...");
}
