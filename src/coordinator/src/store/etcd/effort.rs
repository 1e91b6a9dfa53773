//! One operation that looks and tries until it has its way, or finds that it cannot.

use std::sync::Arc;

use super::batch::Decided;
use super::codec::SeenSession;
use super::known::Listed;
use super::link::{Committed, Link};
use super::step::{self, Step};
use super::view::{self, Sight, Source, Subject};
use crate::domain::AttachMark;
use crate::store::StoreError;

/// What one operation knows while it looks and tries.
#[derive(Debug)]
pub(super) struct Effort<'a> {
    subject: Subject<'a>,
    /// What the last step saw instead, and over which link.
    seen: Option<(Arc<Link>, Sight)>,
    may_guess: bool,
    /// What is known of the resource is what this coordinator has lately done itself, or etcd's log has shown of who
    /// waits: a step by that seldom fails, and carries no looks along.
    is_sure: bool,
    is_alone: bool,
}

/// What a step of an effort came to.
pub(super) enum Taken {
    /// It is in the log. Who waits, where the step lists them.
    Applied(Committed, Option<Listed>),
    /// Somebody else was faster: look again.
    Overtaken,
}

impl<'a> Effort<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Self {
        Self {
            subject,
            seen: None,
            may_guess: true,
            is_sure: false,
            is_alone: false,
        }
    }

    /// How it stands, by the best that is known.
    pub(super) async fn look(&mut self, link: &Arc<Link>) -> Result<Sight, StoreError> {
        if let Some((over, sight)) = self.seen.take()
            && Arc::ptr_eq(&over, link)
        {
            return Ok(sight);
        }
        if self.may_guess
            && let Some(guess) = link.known().guess(link, self.subject)
        {
            self.is_sure = guess.view.waiters == 0 || guess.is_first;
            return Ok(guess);
        }
        self.is_sure = false;
        // In a box, like all that is seldom: it would make every step's future large.
        let mut sight = Box::pin(Sight::of(link, self.subject)).await?;
        link.known().saw(self.subject, &sight);
        let head = sight.head.as_ref();
        sight.is_first = head.is_some_and(|head| link.known().is_first(head));
        Ok(sight)
    }

    /// Looks at etcd itself from here on.
    pub(super) fn stop_guessing(&mut self) {
        self.may_guess = false;
    }

    pub(super) async fn take(&mut self, link: &Arc<Link>, step: Step) -> Result<Taken, StoreError> {
        let step = match self.is_sure {
            true => step,
            false => step.or_look(self.subject.looks(&link.context().keys)),
        };
        let has_list = step.has_list();
        match link.submit(step.alone(self.is_alone)).await? {
            Decided::Applied(committed, reply) if has_list => {
                // What cannot be read is not known, and no more.
                let listed = view::listed(&reply.op_responses()).ok().flatten();
                Ok(Taken::Applied(committed, listed))
            }
            Decided::Applied(committed, _) => Ok(Taken::Applied(committed, None)),
            Decided::Otherwise(..) if self.is_sure => {
                self.stop_guessing();
                Ok(Taken::Overtaken)
            }
            Decided::Otherwise(replies, header) => {
                let sight = Sight::from(link, self.subject, Source::Log, replies, &header)?;
                link.known().saw(self.subject, &sight);
                self.seen = Some((Arc::clone(link), sight));
                Ok(Taken::Overtaken)
            }
            Decided::Unmarked => {
                self.stop_guessing();
                Ok(Taken::Overtaken)
            }
            Decided::Poisoned => {
                self.is_alone = true;
                self.stop_guessing();
                Ok(Taken::Overtaken)
            }
        }
    }

    /// Raises the mark, if it is as it was seen.
    pub(super) async fn raise(
        &mut self,
        link: &Arc<Link>,
        session: &SeenSession,
        mark: AttachMark,
    ) -> Result<bool, StoreError> {
        let step = step::raise(&link.context().keys, session, mark);
        match self.take(link, step).await? {
            Taken::Applied(committed, _) => {
                let raised = step::raised(session, mark, committed);
                link.known().session(Arc::new(raised));
                Ok(true)
            }
            Taken::Overtaken => Ok(false),
        }
    }
}
