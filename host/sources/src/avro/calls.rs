//! The calls of one connection: taken in order, stored side by side, answered in order.

use std::{future::Future, pin::Pin};

use futures_util::{StreamExt, stream::FuturesOrdered};
use levada_core::PutError;
use levada_rpc::{Call, MessageError, Meta, Server, ServerError, Status, Token};

use super::{
    connection::Shared,
    session::{Load, Point, Session, Verdict},
};

/// A connection that was greeted.
pub(super) struct Calls<'a> {
    shared: &'a Shared,
    /// `None` for a peer that is no Levada: one call after the other.
    session: Option<Session>,
    /// What is to be answered, in the order of the calls.
    due: FuturesOrdered<Pin<Box<dyn Future<Output = Due> + Send + 'a>>>,
    /// Bytes of events in `due`.
    bytes: usize,
    /// An earlier call failed: what is behind it fails, too, and nothing is taken until all are
    /// answered.
    failed: bool,
    /// No call is taken any more.
    ended: Ended,
}

/// Whether calls are still taken and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    No,
    /// What was taken is answered.
    Taking,
    /// What was staged is waited for; nobody listens any more.
    Answering,
}

/// What became of a call.
struct Due {
    token: Token,
    bytes: usize,
    fate: Fate,
}

enum Fate {
    Stored(Result<(), PutError>, Option<Point>),
    Repeat,
    Ahead,
    /// It is no call of a hop.
    Refused(MessageError),
}

/// What a connection waits for.
enum Next {
    Due(Due),
    Call(Result<Option<Call>, ServerError>),
    Drain,
    Over,
}

impl<'a> Calls<'a> {
    pub(super) fn new(shared: &'a Shared, session: Option<Session>) -> Self {
        Self {
            shared,
            session,
            due: FuturesOrdered::new(),
            bytes: 0,
            failed: false,
            ended: Ended::No,
        }
    }

    /// Serves until the peer, the stop signal or a newer session ends it. What was taken is
    /// finished in any case, because it may be staged.
    pub(super) async fn serve(mut self, server: &mut Server) -> Result<(), ServerError> {
        let mut result = Ok(());
        while self.ended == Ended::No || !self.due.is_empty() {
            let done = match self.next(server).await {
                Next::Due(due) => self.answer(server, due).await,
                Next::Call(Ok(Some(call))) => {
                    self.take(call);
                    Ok(())
                }
                // A call that is not complete yet was not executed: its peer sends it elsewhere.
                Next::Call(Ok(None)) | Next::Drain => self.end(Ended::Taking),
                Next::Call(Err(error)) => Err(error),
                Next::Over => self.end(Ended::Answering),
            };
            if let Err(error) = done {
                self.ended = Ended::Answering;
                result = Err(error);
            }
        }
        result
    }

    async fn next(&mut self, server: &mut Server) -> Next {
        let at_once = self.session.as_ref().map_or(1, Session::at_once);
        let limit = self.shared.place.out.in_flight_limit();
        let has_room = self.due.len() < at_once && (self.bytes < limit || self.due.is_empty());
        let takes = self.ended == Ended::No;
        tokio::select! {
            biased;
            Some(due) = self.due.next(), if !self.due.is_empty() => Next::Due(due),
            () = over(self.session.as_ref()), if self.ended < Ended::Answering => Next::Over,
            () = self.shared.place.stop.draining(), if takes => Next::Drain,
            call = server.next(), if takes && has_room && !self.failed => Next::Call(call),
        }
    }

    fn end(&mut self, ended: Ended) -> Result<(), ServerError> {
        self.ended = self.ended.max(ended);
        Ok(())
    }

    fn take(&mut self, call: Call) {
        let Call {
            checked,
            meta,
            token,
        } = call;
        let bytes = checked.batch.bytes();
        let verdict = match &mut self.session {
            None => {
                let marking = None;
                Ok((Box::new(Load { checked, marking }), None))
            }
            Some(session) => match session.judge(&meta, checked, &self.shared.hops) {
                Ok(Verdict::New(load, point)) => Ok((load, Some(point))),
                Ok(Verdict::Repeat) => Err(Fate::Repeat),
                Ok(Verdict::Ahead) => Err(Fate::Ahead),
                Err(error) => Err(Fate::Refused(error)),
            },
        };
        self.bytes += bytes;
        let shared = self.shared;
        self.due.push_back(Box::pin(async move {
            let fate = match verdict {
                Ok((load, point)) => Fate::Stored(shared.take(*load).await, point),
                Err(fate) => fate,
            };
            Due { token, bytes, fate }
        }));
    }

    async fn answer(&mut self, server: &mut Server, due: Due) -> Result<(), ServerError> {
        self.bytes -= due.bytes;
        let good = match due.fate {
            Fate::Stored(Ok(()), point) => {
                self.commit(point);
                true
            }
            Fate::Stored(Err(error), _) => {
                // Somebody else moved the mark: what is known here is of no use.
                if matches!(error, PutError::Conflict { .. }) && !self.failed {
                    self.ended = self.ended.max(Ended::Taking);
                }
                self.failed = true;
                false
            }
            Fate::Repeat => !self.failed,
            Fate::Ahead => false,
            Fate::Refused(error) => {
                let error = ServerError::Message(error);
                server.reply_error(due.token, &error.report()).await?;
                return Err(error);
            }
        };
        if self.due.is_empty() {
            self.failed = false;
            self.session.iter_mut().for_each(Session::settle);
        }
        let (status, counter) = if good {
            (Status::Ok, &self.shared.metrics.ok)
        } else {
            (Status::Failed, &self.shared.metrics.failed)
        };
        counter.add(1);
        if self.ended == Ended::Answering {
            return Ok(());
        }
        let meta = self.session.as_ref().map_or(Meta::new(), Session::reply);
        // A peer that is not there any more must not hold up the session that took its place.
        let is_over = tokio::select! {
            biased;
            () = over(self.session.as_ref()) => true,
            replied = server.reply(due.token, status, &meta) => { replied?; false }
        };
        if is_over {
            self.ended = Ended::Answering;
        }
        Ok(())
    }

    fn commit(&mut self, point: Option<Point>) {
        if let (Some(session), Some(point)) = (&mut self.session, point) {
            session.committed(point);
        }
    }
}

async fn over(session: Option<&Session>) {
    match session {
        Some(session) => session.over().await,
        None => std::future::pending().await,
    }
}
