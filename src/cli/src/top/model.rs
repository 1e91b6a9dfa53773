//! What is known and how it is looked at. Pure: it is told everything, also the time.

use std::sync::Arc;
use std::time::Duration;

use palisade_client::Occupancy;
use palisade_token::ResourceName;

pub(super) use self::order::Sort;
use super::layout::{self, Areas};
use super::news::{News, Row, Standing};
use super::text::shown;
use super::world::{Leases, World};

mod order;

/// When it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Now {
    /// By the wall clock, in milliseconds since 1970: for what others have dated.
    pub(super) unix_ms: i64,
    /// Since the start: for what was seen here.
    pub(super) up: Duration,
}

/// Whether the events come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// Not yet.
    Connecting,
    Live,
    /// Not since then, and why.
    Reconnecting(Duration, String),
}

/// What a moment showed, to be looked at while the world goes on.
#[derive(Debug)]
struct Paused {
    world: World,
    now: Now,
}

/// What was told of a resource, and when.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) resource: ResourceName,
    pub(super) at: Duration,
    pub(super) answer: Result<Box<Occupancy>, String>,
}

/// What is known of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coordinator {
    pub(super) address: String,
    /// How it stood when it last answered, and when that was...
    pub(super) last: Option<(Duration, Box<Standing>)>,
    /// ...and why it does not answer now.
    pub(super) fault: Option<String>,
}

/// The state of the view.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) prefix: String,
    pub(super) link: Link,
    /// How the coordinators stand, as far as it is known, in the order of their addresses.
    pub(super) coordinators: Vec<Coordinator>,
    /// What was told of the selected resource.
    pub(super) looked: Option<Looked>,
    /// When the waiters of all leases were counted.
    pub(super) counted_at: Option<Duration>,
    now: Now,
    size: (u16, u16),
    world: World,
    coming: Option<Leases>,
    had_snapshot: bool,
    paused: Option<Paused>,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// While the filter is written: what it was before.
    pub(super) filter_before: Option<String>,
    pub(super) shows_details: bool,
    pub(super) shows_help: bool,
    /// None as long as nobody has moved: then it is the first.
    selected: Option<ResourceName>,
    cursor: usize,
    offset: usize,
    /// The leases that match, in their order. Made by [`Model::settle`].
    order: Vec<Arc<Row>>,
    is_settled: bool,
}

impl Model {
    pub(super) fn new(addresses: &[String], prefix: String) -> Self {
        let coordinators = addresses.iter().map(|address| Coordinator {
            address: shown(address),
            last: None,
            fault: None,
        });
        let coordinators = coordinators.collect();
        Self {
            prefix,
            link: Link::Connecting,
            coordinators,
            looked: None,
            counted_at: None,
            now: Now::default(),
            size: (0, 0),
            world: World::default(),
            coming: None,
            had_snapshot: false,
            paused: None,
            sort: Sort::default(),
            is_reversed: false,
            filter: String::new(),
            filter_before: None,
            shows_details: false,
            shows_help: false,
            selected: None,
            cursor: 0,
            offset: 0,
            order: Vec::new(),
            is_settled: false,
        }
    }

    /// It is later now.
    pub(super) fn at(&mut self, now: Now) {
        self.now = now;
    }

    /// The screen is this large now, in columns and rows.
    pub(super) fn resize(&mut self, size: (u16, u16)) {
        self.size = size;
    }

    pub(super) fn hear(&mut self, news: News) {
        let at = self.now.up;
        match news {
            News::Away(why) => {
                let since = match self.link {
                    Link::Reconnecting(since, _) => since,
                    _ => at,
                };
                self.link = Link::Reconnecting(since, why);
            }
            News::Counted { counts, is_last } => {
                for (resource, token, waiters) in &counts {
                    self.world.counted(resource, *token, Some(*waiters));
                }
                if is_last {
                    self.counted_at = Some(at);
                }
                self.is_settled = false;
            }
            News::Status(answers) => {
                for (coordinator, answer) in self.coordinators.iter_mut().zip(answers) {
                    match answer {
                        Ok(standing) => {
                            coordinator.last = Some((at, standing));
                            coordinator.fault = None;
                        }
                        Err(why) => coordinator.fault = Some(why),
                    }
                }
            }
            News::Looked(resource, answer) => self.look(resource, answer),
            change => {
                self.change(change, at);
                self.is_settled = false;
            }
        }
    }

    /// Something of the stream of events.
    fn change(&mut self, news: News, at: Duration) {
        match news {
            News::Snapshot => self.coming = Some(Leases::default()),
            News::Stands(row) => self.coming.get_or_insert_default().put(*row),
            News::SnapshotEnd => {
                let coming = self.coming.take().unwrap_or_default();
                self.world.replace(coming, !self.had_snapshot, at);
                self.had_snapshot = true;
            }
            News::Granted(row) => self.world.granted(*row, at),
            News::GrantedUnread(resource) => self.world.granted_unread(resource, at),
            News::Ended(ended) => self.world.ended(ended, at),
            _ => {}
        }
        // A snapshot is not true before it is whole.
        if self.coming.is_none() {
            self.link = Link::Live;
        }
    }

    fn look(&mut self, resource: ResourceName, answer: Result<Box<Occupancy>, String>) {
        if let Ok(found) = &answer
            && let Some(lease) = &found.lease
        {
            let (token, waiters) = (lease.grant.token, Some(found.waiters));
            self.world.counted(&resource, token, waiters);
            self.is_settled = false;
        }
        let at = self.now.up;
        if self.wanted().is_some_and(|wanted| *wanted == resource) {
            self.looked = Some(Looked {
                resource,
                at,
                answer,
            });
        }
    }

    /// The resource that more is to be known of.
    pub(super) fn wanted(&self) -> Option<&ResourceName> {
        if !self.shows_details || self.paused.is_some() {
            return None;
        }
        self.selected()
    }

    /// When it is for who looks: while paused, the moment of that.
    pub(super) fn now(&self) -> Now {
        self.paused.as_ref().map_or(self.now, |paused| paused.now)
    }

    /// When what is shown of the leases was known to be so: since the events broke off nobody knows.
    pub(super) fn known_at(&self) -> Now {
        let now = self.now();
        let Link::Reconnecting(since, _) = &self.link else {
            return now;
        };
        let gap = now.up.saturating_sub(*since);
        let gap_ms = i64::try_from(gap.as_millis()).unwrap_or(i64::MAX);
        Now {
            unix_ms: now.unix_ms.saturating_sub(gap_ms),
            up: now.up - gap,
        }
    }

    /// What is looked at.
    pub(super) fn seen(&self) -> &World {
        self.paused
            .as_ref()
            .map_or(&self.world, |paused| &paused.world)
    }

    /// While paused: how much has happened since.
    pub(super) fn missed(&self) -> Option<u64> {
        let paused = self.paused.as_ref()?;
        Some(self.world.changes() - paused.world.changes())
    }

    /// The coordinator to be shown: one that is ready, else one that answers, else any.
    pub(super) fn coordinator(&self) -> Option<&Coordinator> {
        let answers = |one: &&Coordinator| one.fault.is_none() && one.last.is_some();
        let is_ready = |one: &&Coordinator| {
            answers(one) && one.last.as_ref().is_some_and(|(_, last)| last.is_ready)
        };
        let all = || self.coordinators.iter();
        all()
            .find(is_ready)
            .or_else(|| all().find(answers))
            .or_else(|| all().next())
    }

    /// For how long something is so, also while paused.
    pub(super) fn since(&self, then: Duration) -> Duration {
        self.now.up.saturating_sub(then)
    }

    pub(super) fn areas(&self) -> Option<Areas> {
        layout::areas(self.size, self.shows_details)
    }

    pub(super) fn toggle_pause(&mut self) {
        self.paused = match self.paused.take() {
            Some(_) => None,
            None => Some(Paused {
                world: self.world.clone(),
                now: self.now,
            }),
        };
        self.is_settled = false;
    }

    pub(super) fn sort_by(&mut self, sort: Sort, is_reversed: bool) {
        (self.sort, self.is_reversed) = (sort, is_reversed);
        self.is_settled = false;
    }

    pub(super) fn filter_by(&mut self, filter: String) {
        self.filter = filter;
        self.is_settled = false;
    }

    pub(super) fn width(&self) -> u16 {
        self.size.0
    }

    /// Whether it was ever told what stands.
    pub(super) fn is_known(&self) -> bool {
        self.had_snapshot
    }
}
