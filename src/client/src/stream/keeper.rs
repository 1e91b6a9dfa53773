//! The one task of a session with a stream: it owns the stream, renews, and notices the deadline.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use palisade_api::AttachResponse;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::clock::Moment;
use crate::error::ClientError;
use crate::error::status::{Failure, Verdict};
use crate::session::core::{Core, lost_error};
use crate::session::renew;
use crate::standing::LostReason;

use super::open::{First, Opened, Wire};
use super::request::Command;
use super::table::{News, Table};
use super::{Commands, Told};

mod end;
mod openings;

/// Commands and answers that are taken in one go.
const BATCH: usize = 256;
/// A renewal that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Renewal {
    seq: u64,
    sent: Moment,
}

pub(crate) struct Keeper {
    core: Arc<Core>,
    commands: mpsc::Receiver<Command>,
    table: Table,
    wire: Option<Wire>,
    /// Another stream that is being opened, beside the present one if that still serves.
    opening: Option<BoxFuture<'static, Result<Opened, Failure>>>,
    /// When another stream is to be opened.
    open_at: Option<Moment>,
    /// An opening may have been served although it failed: the present stream is not to be trusted with
    /// more.
    open_unknown: bool,
    draining: bool,
    /// The pause before the next opening, doubled with each that fails.
    open_pause: Duration,
    renewal: Option<Renewal>,
    renew_at: Moment,
    renew_pause: Duration,
    /// It is to close the session, and was told so before it saw that the session has ended.
    closing: Option<Option<Told>>,
}

/// What wakes the task.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, and on the stack: most are the large one"
)]
enum Event {
    Tick,
    Heard(Result<AttachResponse, Failure>),
    Opened(Box<Result<Opened, Failure>>),
    Commands,
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>, commands: Commands, first: First) -> Self {
        let mut table = Table::new(core.ended.clone(), core.shared.random.clone());
        table
            .opened(first.sent, Vec::new())
            .expect("nothing was named");
        let mut keeper = Self {
            commands: commands.0,
            table,
            wire: Some(first.wire),
            opening: None,
            open_at: None,
            open_unknown: false,
            draining: false,
            open_pause: Duration::ZERO,
            renewal: None,
            renew_at: first.sent,
            renew_pause: Duration::ZERO,
            closing: None,
            core,
        };
        keeper.renewed(first.sent, first.ttl_left);
        keeper
    }

    /// Runs until the session has ended.
    pub(crate) async fn run(mut self) {
        let clock = Arc::clone(&self.core.shared.clock);
        let ended = self.core.ended.clone();
        let mut ended = std::pin::pin!(ended.cancelled());
        let mut commands = Vec::new();
        let (mut timer, mut timer_at) = (clock.sleep(Duration::ZERO), None);
        loop {
            let wake_at = self.wake_at();
            if timer_at.is_none_or(|at| wake_at < at) {
                timer = clock.sleep(clock.now().until(wake_at));
                timer_at = Some(wake_at);
            }
            let event = tokio::select! {
                biased;
                () = &mut ended => break,
                () = &mut timer => Event::Tick,
                heard = heard(&mut self.wire) => Event::Heard(heard),
                opened = opened(&mut self.opening) => Event::Opened(Box::new(opened)),
                _ = self.commands.recv_many(&mut commands, BATCH) => Event::Commands,
            };
            let now = clock.now();
            match event {
                Event::Tick => {
                    timer_at = None;
                    self.tick(now);
                }
                Event::Heard(heard) => self.heard_all(now, heard),
                Event::Opened(opened) => {
                    self.opening = None;
                    self.opened(now, *opened);
                }
                Event::Commands => {
                    for command in commands.drain(..) {
                        self.follow(now, command);
                    }
                }
            }
            self.flush(now);
        }
        self.end().await;
    }

    /// When there is something to do, unless something is heard before. The deadline is among it: whoever
    /// looks at the state past it ends the session.
    fn wake_at(&self) -> Moment {
        let renewal = self.wire.is_some().then_some(match self.renewal {
            Some(renewal) => renewal.sent.after(self.answer_limit()),
            None => self.renew_at,
        });
        let open_at = self.open_at.filter(|_| self.opening.is_none());
        [renewal, open_at, self.table.wake_at()]
            .into_iter()
            .flatten()
            .fold(self.core.deadline(), Moment::min)
    }

    /// How long an answer to a renewal or an opening is awaited: so that other endpoints are tried well before
    /// the deadline.
    fn answer_limit(&self) -> Duration {
        renew::try_limit(&self.core)
    }

    fn tick(&mut self, now: Moment) {
        if !self.core.state().is_held() {
            return;
        }
        self.table.tick(now);
        let limit = self.answer_limit();
        match self.renewal {
            Some(renewal) if renewal.sent.after(limit) <= now => {
                debug!("a renewal was not answered: the stream is given up");
                self.core.failing();
                self.cut(now, &Failure::no_answer(true));
            }
            None if self.renew_at <= now && self.wire.is_some() => {
                let seq = self.table.renew();
                self.renewal = Some(Renewal { seq, sent: now });
            }
            Some(_) | None => {}
        }
        if self.opening.is_none() && self.open_at.is_some_and(|at| at <= now) {
            self.open_at = None;
            self.begin_opening();
        }
    }

    fn follow(&mut self, now: Moment, command: Command) {
        match command {
            Command::Acquire(ask) => self.table.acquire(now, *ask),
            Command::Cancel(key) => self.table.cancel(key),
            Command::Release(giving) => self.table.release(giving),
            Command::RevokeAnswer { key, will_release } => {
                self.table.answer_revoke(key, will_release);
            }
            // Sent only once the session has ended here; on another thread that may have been between two looks.
            Command::Close(told) => self.closing = Some(told),
        }
    }

    /// Takes what was heard, and what else has come meanwhile.
    fn heard_all(&mut self, now: Moment, first: Result<AttachResponse, Failure>) {
        let mut next = Some(first);
        for _more in 0..BATCH {
            match next.take() {
                None => return,
                Some(Err(failure)) => return self.cut(now, &failure),
                Some(Ok(answer)) => self.heard(now, answer),
            }
            next = match &mut self.wire {
                Some(wire) => wire.next().now_or_never(),
                None => None,
            };
        }
        match next {
            Some(Ok(answer)) => self.heard(now, answer),
            Some(Err(failure)) => self.cut(now, &failure),
            None => {}
        }
    }

    fn heard(&mut self, now: Moment, answer: AttachResponse) {
        let news = match self.table.heard(now, answer) {
            Ok(news) => news,
            Err(garbage) => return self.cut(now, &Failure::garbled(garbage)),
        };
        self.open_pause = Duration::ZERO;
        match news {
            News::Nothing | News::CloseRefused(_) => {}
            News::TtlLeft { sent, left } => {
                self.core.told(sent, left.min(self.core.ttl));
            }
            News::Renewed { seq, left } => {
                if let Some(renewal) = self.renewal.take_if(|renewal| renewal.seq == seq) {
                    self.core.renewed(renewal.sent, left.min(self.core.ttl));
                    self.renewed(renewal.sent, left);
                }
            }
            News::RenewalRefused { seq, failure } => {
                if self.renewal.take_if(|renewal| renewal.seq == seq).is_some() {
                    self.renewal_refused(now, &failure);
                }
            }
            News::Leave { draining } => self.leave(now, draining),
            News::Closed => self.lose(LostReason::Ended),
            News::Ended(reason) => self.lose(reason),
        }
    }

    fn lose(&self, reason: LostReason) {
        self.core.lose(reason);
    }

    /// A renewal is due a third of the TTL after the last; sooner, where less is left than a new one has.
    fn renewed(&mut self, sent: Moment, left: Duration) {
        let gone = self.core.ttl.saturating_sub(left);
        let interval = renew::interval(&self.core).saturating_sub(gone);
        self.renew_at = sent.after(interval.max(renew::first_pause(&self.core)));
        self.renew_pause = Duration::ZERO;
    }

    fn renewal_refused(&mut self, now: Moment, failure: &Failure) {
        if let ClientError::SessionLost { reason } = &failure.error {
            self.core.lose(*reason);
            return;
        }
        if failure.verdict == Verdict::Final {
            warn!(error = %failure.error, "renewal refused");
        }
        self.core.failing();
        self.renew_pause = renew::next_pause(&self.core, self.renew_pause);
        let random = &self.core.shared.random;
        self.renew_at = now.after(random.jittered(self.renew_pause, 500));
        if failure.endpoint_at_fault {
            self.leave(now, None);
        }
    }

    /// Hands to the connection what is to be sent.
    fn flush(&mut self, now: Moment) {
        let Some(wire) = &self.wire else { return };
        let mut all_taken = true;
        for message in self.table.outbox().drain(..) {
            all_taken &= wire.outgoing.try_send(message).is_ok();
        }
        if !all_taken && !wire.over {
            self.cut(now, &Failure::no_answer(true));
        }
    }
}

async fn heard(wire: &mut Option<Wire>) -> Result<AttachResponse, Failure> {
    match wire {
        Some(wire) => wire.next().await,
        None => std::future::pending().await,
    }
}

async fn opened(
    opening: &mut Option<BoxFuture<'static, Result<Opened, Failure>>>,
) -> Result<Opened, Failure> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}
