//! Who wants to know what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashlink::LruCache;
use palisade_token::ResourceName;

use super::mailbox::Mailbox;
use super::memory::Memory;
use super::ring::Ring;
use super::{SessionNews, Subject, WatchNews};
use crate::domain::{Batch, Ended, Event, Granted, Notice, Revision, SessionId};

/// Notices that are remembered for streams that come later: more than operators write by hand.
const MAX_NOTICES: usize = 1000;

#[derive(Debug)]
pub(super) struct State {
    pub(super) memory: Memory,
    ring: Ring,
    is_followed: bool,
    notices: LruCache<ResourceName, Notice>,
    sessions: BTreeMap<SessionId, Listening>,
    /// Whose end which session is told of.
    holders: BTreeMap<ResourceName, BTreeSet<SessionId>>,
    resources: BTreeMap<ResourceName, Vec<Arc<Mailbox<WatchNews>>>>,
    beginnings: Vec<(String, Arc<Mailbox<WatchNews>>)>,
}

#[derive(Debug, Default)]
struct Listening {
    mailboxes: Vec<Arc<Mailbox<SessionNews>>>,
    holds: BTreeSet<ResourceName>,
    grants: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            memory: Memory::new(),
            ring: Ring::default(),
            is_followed: false,
            notices: LruCache::new(MAX_NOTICES),
            sessions: BTreeMap::new(),
            holders: BTreeMap::new(),
            resources: BTreeMap::new(),
            beginnings: Vec::new(),
        }
    }

    pub(super) fn is_followed(&self) -> bool {
        self.is_followed
    }

    pub(super) fn last(&self) -> Revision {
        self.ring.last()
    }

    /// Nobody follows the store now.
    pub(super) fn lost(&mut self) {
        self.is_followed = false;
    }

    /// Takes in what happened; whether the store was being followed before.
    pub(super) fn hear(&mut self, batch: Batch) -> bool {
        let was_followed = self.is_followed;
        match &batch[..] {
            [Event::Resync] => self.resync(),
            [Event::Bookmark(revision)] => {
                self.ring.begins_after(*revision);
                self.is_followed = true;
            }
            [Event::Asked(notice)] => self.asked(notice),
            _ => self.happened(batch),
        }
        was_followed
    }

    fn resync(&mut self) {
        self.ring.clear();
        self.memory.clear();
        self.notices.clear();
        self.is_followed = false;
        for listening in self.sessions.values() {
            for mailbox in &listening.mailboxes {
                mailbox.replace(SessionNews::Missed);
            }
        }
        let by_resource = self.resources.values().flatten();
        let by_beginning = self.beginnings.iter().map(|(_, mailbox)| mailbox);
        for mailbox in by_resource.chain(by_beginning) {
            mailbox.replace(WatchNews::Resync);
        }
    }

    fn asked(&mut self, notice: &Notice) {
        self.notices.insert(notice.resource.clone(), notice.clone());
        self.tell_session(notice.session, &SessionNews::Asked(notice.clone()));
    }

    fn happened(&mut self, batch: Batch) {
        let Some(revision) = batch[0].revision() else {
            return;
        };
        if !self.is_followed {
            // All of this revision is here, so what is missing is before it.
            self.ring
                .begins_after(Revision(revision.0.saturating_sub(1)));
            self.is_followed = true;
        }
        let batch = self.with_leases(batch);
        for event in batch.iter() {
            match event {
                Event::Ended(ended) => {
                    self.notices.remove(&ended.resource);
                    self.tell_holders(ended, &batch);
                    self.memory.note_end(ended);
                }
                Event::Granted(granted) => {
                    self.memory.note_grant(granted);
                    if let Some(listening) = self.sessions.get_mut(&granted.session()) {
                        listening.grants += 1;
                        self.follow(granted.session(), granted.resource());
                    }
                }
                Event::Asked(notice) => self.asked(notice),
                Event::Declined { resource, .. } => drop(self.notices.remove(resource)),
                Event::Vacant { .. }
                | Event::Reopened { .. }
                | Event::ToClose { .. }
                | Event::Bookmark(_)
                | Event::Resync => {}
            }
        }
        self.tell_watchers(&batch);
        if batch.iter().any(Event::is_of_lease) {
            self.ring.push(revision, &batch);
        }
    }

    /// What a store does not tell of the leases that ended is filled in, where their grants were seen.
    fn with_leases(&mut self, batch: Batch) -> Batch {
        let is_bare = |event: &Event| matches!(event, Event::Ended(ended) if ended.lease.is_none());
        if !batch.iter().any(is_bare) {
            return batch;
        }
        let mut events = batch.to_vec();
        for event in &mut events {
            if let Event::Ended(ended) = event
                && ended.lease.is_none()
            {
                ended.lease = self.memory.held(&ended.resource, ended.revision);
            }
        }
        events.into()
    }

    fn tell_holders(&mut self, ended: &Ended, batch: &Batch) {
        let Some(holders) = self.holders.remove(&ended.resource) else {
            return;
        };
        let successor = batch.iter().find_map(|event| match event {
            Event::Granted(granted) if *granted.resource() == ended.resource => Some(granted),
            _ => None,
        });
        let news = SessionNews::Ended {
            ended: ended.clone(),
            successor: successor.map(Arc::<Granted>::clone),
        };
        for session in holders {
            if let Some(listening) = self.sessions.get_mut(&session) {
                listening.holds.remove(&ended.resource);
            }
            self.tell_session(session, &news);
        }
    }

    fn tell_session(&self, session: SessionId, news: &SessionNews) {
        let Some(listening) = self.sessions.get(&session) else {
            return;
        };
        for mailbox in &listening.mailboxes {
            if mailbox.push(news.clone(), 1).is_err() {
                mailbox.replace(SessionNews::Missed);
            }
        }
    }

    fn tell_watchers(&mut self, batch: &Batch) {
        let load = batch.len();
        let tell = |mailbox: &Arc<Mailbox<WatchNews>>| {
            let news = WatchNews::Batch(Batch::clone(batch));
            let fits = mailbox.push(news, load).is_ok();
            if !fits {
                mailbox.close();
            }
            fits
        };
        if !self.resources.is_empty() {
            let mut told = BTreeSet::new();
            for resource in batch.iter().filter_map(Event::resource) {
                if told.insert(resource)
                    && let Some(mailboxes) = self.resources.get_mut(resource)
                {
                    mailboxes.retain(tell);
                }
            }
        }
        self.beginnings.retain(|(beginning, mailbox)| {
            let mut names = batch.iter().filter_map(Event::resource);
            !names.any(|name| name.as_str().starts_with(beginning)) || tell(mailbox)
        });
    }

    pub(super) fn join_session(&mut self, session: SessionId, mailbox: &Arc<Mailbox<SessionNews>>) {
        for (_, notice) in self
            .notices
            .iter()
            .filter(|(_, notice)| notice.session == session)
        {
            if mailbox.push(SessionNews::Asked(notice.clone()), 1).is_err() {
                mailbox.replace(SessionNews::Missed);
            }
        }
        let listening = self.sessions.entry(session).or_default();
        listening.mailboxes.push(Arc::clone(mailbox));
    }

    pub(super) fn grants(&self, session: SessionId) -> Option<u64> {
        let listening = self.sessions.get(&session)?;
        self.is_followed.then_some(listening.grants)
    }

    pub(super) fn follow(&mut self, session: SessionId, resource: &ResourceName) {
        if let Some(listening) = self.sessions.get_mut(&session) {
            listening.holds.insert(resource.clone());
            let holders = self.holders.entry(resource.clone()).or_default();
            holders.insert(session);
        }
    }

    pub(super) fn leave_session(
        &mut self,
        session: SessionId,
        mailbox: &Arc<Mailbox<SessionNews>>,
    ) {
        let Some(listening) = self.sessions.get_mut(&session) else {
            return;
        };
        listening
            .mailboxes
            .retain(|other| !Arc::ptr_eq(other, mailbox));
        if !listening.mailboxes.is_empty() {
            return;
        }
        let gone = self.sessions.remove(&session).unwrap_or_default();
        for resource in gone.holds {
            if let Some(holders) = self.holders.get_mut(&resource) {
                holders.remove(&session);
                if holders.is_empty() {
                    self.holders.remove(&resource);
                }
            }
        }
    }

    pub(super) fn join_watch(
        &mut self,
        subject: &Subject,
        after: Revision,
        bound: usize,
    ) -> Option<Arc<Mailbox<WatchNews>>> {
        let concerns = |batch: &&Batch| {
            let mut names = batch.iter().filter_map(Event::resource);
            names.any(|name| subject.has(name))
        };
        let missed = self.ring.after(after)?.filter(concerns);
        let missed = missed.map(|batch| (WatchNews::Batch(Batch::clone(batch)), batch.len()));
        let mailbox = Arc::new(Mailbox::new(bound, missed.collect()));
        self.add_watch(subject, &mailbox);
        Some(mailbox)
    }

    pub(super) fn join_from_now(
        &mut self,
        subject: &Subject,
        bound: usize,
    ) -> Arc<Mailbox<WatchNews>> {
        let mailbox = Arc::new(Mailbox::new(bound, Vec::new()));
        self.add_watch(subject, &mailbox);
        mailbox
    }

    fn add_watch(&mut self, subject: &Subject, mailbox: &Arc<Mailbox<WatchNews>>) {
        let mailbox = Arc::clone(mailbox);
        match subject {
            Subject::Resource(name) => {
                self.resources
                    .entry(name.clone())
                    .or_default()
                    .push(mailbox);
            }
            Subject::Beginning(text) => self.beginnings.push((text.clone(), mailbox)),
        }
    }

    pub(super) fn leave_watch(&mut self, subject: &Subject, mailbox: &Arc<Mailbox<WatchNews>>) {
        let is_other = |other: &Arc<Mailbox<WatchNews>>| !Arc::ptr_eq(other, mailbox);
        match subject {
            Subject::Resource(name) => {
                if let Some(mailboxes) = self.resources.get_mut(name) {
                    mailboxes.retain(is_other);
                    if mailboxes.is_empty() {
                        self.resources.remove(name);
                    }
                }
            }
            Subject::Beginning(_) => self.beginnings.retain(|(_, other)| is_other(other)),
        }
    }
}
