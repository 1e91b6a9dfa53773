//! From what etcd shows of one revision to what happened.
//!
//! | at one revision | means |
//! |---|---|
//! | a lease's key deleted with a session's | expired: etcd ends a session's keys in one step |
//! | a lease's key deleted or overwritten, and `revoked` put that names it | revoked |
//! | a lease's key deleted or overwritten otherwise | released |
//! | a delay's key deleted | its resource can be granted again |

use std::collections::BTreeSet;
use std::sync::Arc;

use etcd_client::{Event as EtcdEvent, EventType, KeyValue};
use palisade_token::ResourceName;

use crate::domain::{Ended, Event, Granted, LeaseEnd, Notice, ReadHold, Revision};
use crate::store::etcd::codec;
use crate::store::etcd::keys::{Keys, Kind};
use crate::store::etcd::revoke::Revoked;

pub(super) fn revision_of(event: &EtcdEvent) -> i64 {
    event.kv().map_or(0, KeyValue::mod_revision)
}

/// All of one revision, sorted.
#[derive(Default)]
pub(super) struct Told {
    ended: Vec<ResourceName>,
    granted: Vec<Arc<Granted>>,
    vacant: BTreeSet<ResourceName>,
    asked: Vec<Notice>,
    declined: Vec<ResourceName>,
    reopened: Vec<ResourceName>,
    /// What leases with a lock-delay left behind: put, or taken away.
    pub(super) left: Vec<(ResourceName, bool)>,
    revoked: Option<Revoked>,
    is_sessions_end: bool,
    pub(super) generation: Option<Vec<u8>>,
}

impl Told {
    pub(super) fn sort(&mut self, keys: &Keys, event: &EtcdEvent) {
        let Some(key) = event.kv() else {
            return;
        };
        match (keys.kind_of(key.key()), event.event_type()) {
            (Kind::Lease(resource), EventType::Delete) => {
                self.ended.push(resource.clone());
                self.vacant.insert(resource);
            }
            (Kind::Lease(resource), EventType::Put) => {
                if key.version() > 1 {
                    self.ended.push(resource.clone());
                }
                self.grant(keys, resource, key);
            }
            (Kind::Session, EventType::Delete) => self.is_sessions_end = true,
            (Kind::Last(resource), kind) => {
                self.left.push((resource, kind == EventType::Put));
            }
            (Kind::Delay(resource), EventType::Delete) => self.reopened.push(resource),
            (Kind::Notice(_), EventType::Put) => self.asked.extend(codec::notice(key)),
            (Kind::Notice(resource), EventType::Delete) => self.declined.push(resource),
            (Kind::Revoked, EventType::Put) => self.revoked = codec::revoked(key),
            (Kind::Generation, EventType::Put) => self.generation = Some(key.value().to_vec()),
            (Kind::Session | Kind::Delay(_) | Kind::Other, EventType::Put)
            | (Kind::Revoked | Kind::Generation | Kind::Other, EventType::Delete) => {}
        }
    }

    fn grant(&mut self, keys: &Keys, resource: ResourceName, key: &KeyValue) {
        let session = keys.session_of(key.lease());
        let at = codec::revision(key.mod_revision());
        if let (Some(session), Ok(at)) = (session, at) {
            let read: ReadHold = codec::read_hold;
            let value = (key.value().to_vec(), read);
            let granted = Granted::unread(resource, session, at, value);
            self.granted.push(Arc::new(granted));
        }
    }

    pub(super) fn in_order(
        self,
        revision: Revision,
        delayed: &BTreeSet<ResourceName>,
    ) -> Vec<Event> {
        let revoked = self.revoked.as_ref();
        let mut ended_here = BTreeSet::new();
        let mut to_close = Vec::new();
        let mut events = Vec::with_capacity(self.ended.len() * 2 + self.granted.len());
        for resource in self.ended {
            let by_operator = revoked.filter(|revoked| revoked.resource == resource);
            let end = match by_operator {
                Some(_) => LeaseEnd::Revoked,
                None if self.is_sessions_end => LeaseEnd::Expired,
                None => LeaseEnd::Released,
            };
            if end != LeaseEnd::Released && delayed.contains(&resource) {
                to_close.push(resource.clone());
            }
            ended_here.insert(resource.clone());
            events.push(Event::Ended(Ended {
                resource,
                revision,
                end: Some(end),
                reason: by_operator.map_or_else(String::new, |revoked| revoked.reason.clone()),
                actor: by_operator.map_or_else(String::new, |revoked| revoked.actor.clone()),
                lease: None,
                told: by_operator.map(|revoked| (revoked.token, revoked.label.clone())),
            }));
        }
        events.extend(self.granted.into_iter().map(Event::Granted));
        let vacant = self.vacant.into_iter();
        events.extend(vacant.map(|resource| Event::Vacant { resource, revision }));
        let reopened = self.reopened.into_iter();
        events.extend(reopened.map(|resource| Event::Reopened { resource, revision }));
        let to_close = to_close.into_iter();
        events.extend(to_close.map(|resource| Event::ToClose { resource, revision }));
        events.extend(self.asked.into_iter().map(Event::Asked));
        // With its lease the notice goes, too, and nobody declined anything.
        let declined = self.declined.into_iter();
        let declined = declined.filter(|resource| !ended_here.contains(resource));
        events.extend(declined.map(|resource| Event::Declined { resource, revision }));
        events
    }
}
