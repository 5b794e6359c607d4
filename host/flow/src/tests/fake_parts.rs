//! Sources, sinks and interceptors that do what a test says.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use levada_core::{
    Batch, Delivery, Effects, Hop, Ingest, InterceptError, Interceptor, Lease, MarkWrite, Marks,
    OpenError, RunContext, Sink, SinkError, Source, SourceError, Want, interceptor::Call,
};

use crate::{Link, Replicating, Retry, SinkPlan, SourcePlan, Succession};

type SourceRun = dyn Fn(Arc<dyn Ingest>, RunContext) -> BoxFuture<'static, Result<(), SourceError>>
    + Send
    + Sync;
type SinkRun = dyn Fn(usize, Batch, RunContext) -> BoxFuture<'static, Result<Delivery, SinkError>>
    + Send
    + Sync;
type OnOpen = dyn Fn(usize) -> Result<(), OpenError> + Send + Sync;
type OnTick = dyn Fn() -> Vec<MarkWrite> + Send + Sync;
type Note = dyn Fn(&str) + Send + Sync;

/// A source; `opened` counts how often one was opened.
#[derive(Clone)]
pub(super) struct FakeSource {
    run: Arc<SourceRun>,
    on_open: Arc<OnOpen>,
    pub(super) opened: Arc<AtomicUsize>,
}

impl FakeSource {
    pub(super) fn new<F>(
        run: impl Fn(Arc<dyn Ingest>, RunContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), SourceError>> + Send + 'static,
    {
        Self {
            run: Arc::new(move |ingest, cx| Box::pin(run(ingest, cx))),
            on_open: Arc::new(|_| Ok(())),
            opened: Arc::default(),
        }
    }

    /// What opening for the n-th time (from 1) gives.
    pub(super) fn on_open(
        mut self,
        on_open: impl Fn(usize) -> Result<(), OpenError> + Send + Sync + 'static,
    ) -> Self {
        self.on_open = Arc::new(on_open);
        self
    }

    pub(super) fn plan(&self, name: &str, channel: &str) -> SourcePlan {
        let source = self.clone();
        let channels = vec![super::channel(channel)];
        SourcePlan {
            part: super::part(name),
            build: Arc::new(move || Box::new(source.clone())),
            interceptors: Vec::new(),
            selector: Arc::new(Replicating::new(&channels, &[])),
            channels,
            put_timeout: None,
            made_of: String::new(),
            behind: String::new(),
            succession: Succession::Overlap,
        }
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn open(&mut self) -> Result<(), OpenError> {
        (self.on_open)(self.opened.fetch_add(1, Ordering::SeqCst) + 1)
    }

    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError> {
        (self.run)(out, cx.clone()).await
    }
}

/// A sink; its function gets the number of the call (from 1).
#[derive(Clone)]
pub(super) struct FakeSink {
    run: Arc<SinkRun>,
    on_open: Arc<OnOpen>,
    tick: Option<(Duration, Arc<OnTick>)>,
    note: Arc<Note>,
    window: usize,
    pub(super) opened: Arc<AtomicUsize>,
    pub(super) calls: Arc<AtomicUsize>,
}

impl FakeSink {
    pub(super) fn new<F>(run: impl Fn(usize, Batch) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Delivery, SinkError>> + Send + 'static,
    {
        Self {
            run: Arc::new(move |call, batch, _| Box::pin(run(call, batch))),
            on_open: Arc::new(|_| Ok(())),
            tick: None,
            note: Arc::new(|_| {}),
            window: 1,
            opened: Arc::default(),
            calls: Arc::default(),
        }
    }

    pub(super) fn on_open(
        mut self,
        on_open: impl Fn(usize) -> Result<(), OpenError> + Send + Sync + 'static,
    ) -> Self {
        self.on_open = Arc::new(on_open);
        self
    }

    pub(super) fn window(mut self, window: usize) -> Self {
        self.window = window;
        self
    }

    pub(super) fn tick(
        mut self,
        after: Duration,
        tick: impl Fn() -> Vec<MarkWrite> + Send + Sync + 'static,
    ) -> Self {
        self.tick = Some((after, Arc::new(tick)));
        self
    }

    /// Is told of `settled` and `closed`.
    pub(super) fn note(mut self, note: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.note = Arc::new(note);
        self
    }

    pub(super) fn plan(&self, name: &str, channel: &str, batch: usize) -> SinkPlan {
        let sink = self.clone();
        SinkPlan {
            part: super::part(name),
            build: Arc::new(move || Box::new(sink.clone())),
            channel: super::channel(channel),
            want: Want {
                events: batch,
                ..Want::default()
            },
            retry: Retry::default(),
            made_of: String::new(),
        }
    }
}

#[async_trait]
impl Sink for FakeSink {
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        (self.on_open)(self.opened.fetch_add(1, Ordering::SeqCst) + 1)
    }

    async fn deliver(&self, lease: &Lease, cx: &RunContext) -> Result<Delivery, SinkError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (self.run)(call, lease.batch.clone(), cx.clone()).await
    }

    fn window(&self) -> usize {
        self.window
    }

    async fn settled(&self) -> Result<(), SinkError> {
        (self.note)("settled called");
        Ok(())
    }

    fn tick_after(&self) -> Option<Duration> {
        self.tick.as_ref().map(|(after, _)| *after)
    }

    async fn tick(&self) -> Result<Vec<MarkWrite>, SinkError> {
        Ok(self
            .tick
            .as_ref()
            .map(|(_, tick)| tick())
            .unwrap_or_default())
    }

    async fn close(&mut self) {
        (self.note)("closed");
    }
}

type Work = dyn Fn(Batch, &Call<'_>, &mut Effects) -> Result<Batch, InterceptError> + Send + Sync;

/// An interceptor that answers at once.
#[derive(Clone)]
pub(super) struct FakeInterceptor(Arc<Work>);

impl FakeInterceptor {
    pub(super) fn link(
        name: &str,
        work: impl Fn(Batch, &Call<'_>, &mut Effects) -> Result<Batch, InterceptError>
        + Send
        + Sync
        + 'static,
    ) -> Link {
        Link {
            part: super::part(name),
            interceptor: Arc::new(Self(Arc::new(work))),
        }
    }
}

#[async_trait]
impl Interceptor for FakeInterceptor {
    async fn intercept(
        &self,
        batch: Batch,
        call: &Call<'_>,
        effects: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        (self.0)(batch, call, effects)
    }
}

macro_rules! named {
    ($($fake:ident),*) => {$(
        impl fmt::Debug for $fake {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($fake)).finish_non_exhaustive()
            }
        }
    )*};
}

named!(FakeSource, FakeSink, FakeInterceptor);
