//! Looks, plans, and has shards led: the shell around [`plan`](super::plan).

use std::sync::Arc;
use std::time::Duration;

use palisade_token::ResourceName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::member::MemberId;
use super::plan::{Bounds, Holder, plan};
use super::view::{Held, View, look};
use super::{Shards, ShardsEnded};
use crate::client::Client;
use crate::clock::Moment;
use crate::error::ClientError;
use crate::leadership::{Backoff, Campaign, Hurdle, Kept, LeaderError, Sealer, Waited, hurdle};
use crate::lease::Lease;

mod reports;

/// The least share of the interval between two looks, in thousandths.
const REFRESH_PERMILLE: u32 = 800;

pub(super) struct Runner<G: Sealer> {
    client: Client,
    shards: Shards,
    me: MemberId,
    campaign: Arc<Campaign<G>>,
    states: Vec<State>,
    /// Of each shard that did not go well.
    pauses: Vec<Backoff>,
    slots: Vec<Slot>,
    /// Ends every shard's leadership, whatever becomes of this.
    stop: CancellationToken,
    /// Each shard has one task at most, and it reports once: so many fit.
    reports: mpsc::Receiver<Report>,
    reporting: mpsc::Sender<Report>,
    membership: Arc<Kept>,
    joined: Option<Lease>,
    /// When something may be taken; not known before the first look.
    takes_from: Option<Moment>,
    surplus_since: Option<Moment>,
    members: usize,
    quota: usize,
    leaderships: u64,
}

/// One shard, here.
#[derive(Debug)]
enum State {
    Idle {
        /// It is not taken before.
        not_before: Moment,
    },
    /// Led, or on the way to it or from it.
    Busy {
        stop: CancellationToken,
        slot: usize,
        leaving: bool,
    },
    /// All was to end, and this has not: still held.
    Stuck,
    Resigned,
}

/// A session that shards share.
#[derive(Debug)]
struct Slot {
    kept: Arc<Kept>,
    used: usize,
    /// Something in it did not end when it was to.
    stuck: bool,
}

struct Report {
    shard: usize,
    what: What,
}

enum What {
    GivenUp,
    NotElected(Hurdle),
    Led(Waited),
}

impl<G: Sealer> Runner<G> {
    pub(super) fn new(client: Client, shards: Shards, me: MemberId, campaign: Campaign<G>) -> Self {
        let count = shards.names.len();
        let (reporting, reports) = mpsc::channel(count);
        let idle = || State::Idle {
            not_before: Moment::default(),
        };
        let session = campaign.options().session.clone();
        let membership = Arc::new(Kept::new(Arc::clone(client.shared()), session));
        Self {
            states: std::iter::repeat_with(idle).take(count).collect(),
            pauses: vec![campaign.backoff(); count],
            client,
            shards,
            me,
            campaign: Arc::new(campaign),
            slots: Vec::new(),
            stop: CancellationToken::new(),
            reports,
            reporting,
            membership,
            joined: None,
            takes_from: None,
            surplus_since: None,
            members: 0,
            quota: 0,
            leaderships: 0,
        }
    }

    pub(super) async fn run(mut self) -> Result<ShardsEnded, LeaderError> {
        let _dropped = self.stop.clone().drop_guard();
        let outcome = self.spread_on().await;
        // Others count without this one from here on, and take over what is released below.
        drop(self.joined.take());
        self.stop.cancel();
        while self
            .states
            .iter()
            .any(|state| matches!(state, State::Busy { .. }))
        {
            let Some(report) = self.reports.recv().await else {
                break;
            };
            // What is final is so already, or does not matter any more.
            drop(self.took(report));
        }
        self.membership.close().await;
        for slot in &self.slots {
            if slot.stuck {
                slot.kept.let_expire().await;
            } else {
                slot.kept.close().await;
            }
        }
        let stuck = |state: &&State| matches!(state, State::Stuck);
        outcome.map(|()| ShardsEnded {
            leaderships: self.leaderships,
            still_running: self.states.iter().filter(stuck).count(),
        })
    }

    /// Until told to stop.
    async fn spread_on(&mut self) -> Result<(), LeaderError> {
        let clock = Arc::clone(&self.client.shared().clock);
        let mut failures = self.campaign.backoff();
        let mut worked_before = false;
        loop {
            let Some((joined, looked)) = self.meanwhile(self.look_around()).await? else {
                return Ok(());
            };
            self.joined = joined.or_else(|| self.joined.take());
            let pause = match looked {
                Ok(view) => {
                    worked_before = true;
                    failures.reset();
                    self.act(clock.now(), view);
                    self.client
                        .shared()
                        .random
                        .jittered(self.shards.refresh, REFRESH_PERMILLE)
                }
                Err(error) => {
                    let asked = self.campaign.passes(hurdle(error, worked_before))?;
                    let pause = self.client.shared().random.jittered(failures.next(), 500);
                    pause.max(asked.unwrap_or_default())
                }
            };
            if self.meanwhile(clock.sleep(pause)).await?.is_none() {
                return Ok(());
            }
        }
    }

    /// Shows that it is there, and looks. What it has done already it does not do again.
    fn look_around(
        &self,
    ) -> impl Future<Output = (Option<Lease>, Result<View, ClientError>)> + use<G> {
        let (client, shards) = (self.client.clone(), self.shards.clone());
        let membership = Arc::clone(&self.membership);
        let there = self
            .joined
            .as_ref()
            .is_some_and(|lease| lease.grant().is_ok());
        let name = self.me.lease(&self.shards.members);
        async move {
            let join = async || membership.session().await?.try_acquire(&name?).await;
            let joined = match there {
                true => None,
                false => match join().await {
                    Ok(lease) => Some(lease),
                    Err(error) => return (None, Err(error)),
                },
            };
            (joined, look(client, shards).await)
        }
    }

    /// Takes what is reported while `what` is under way. Nothing if it is time to stop.
    async fn meanwhile<T>(
        &mut self,
        what: impl Future<Output = T>,
    ) -> Result<Option<T>, LeaderError> {
        let mut what = Box::pin(what);
        let stop = self.campaign.options().stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                done = &mut what => return Ok(Some(done)),
                Some(report) = self.reports.recv() => {
                    self.took(report)?;
                    self.tell();
                }
            }
        }
    }

    /// Does what is planned after a look.
    fn act(&mut self, now: Moment, view: View) {
        let holders = self.holders(now, &view.held);
        let mut members = view.members;
        members.push(self.me);
        members.sort_unstable();
        members.dedup();
        let bounds = Bounds {
            slack: self.shards.slack,
            cap: self.shards.cap,
        };
        let plan = plan(self.me, &members, &holders, bounds);
        (self.members, self.quota) = (members.len(), plan.quota);
        let patience = self.shards.patience;
        if plan.give_up.is_empty() {
            self.surplus_since = None;
        } else if self.surplus_since.get_or_insert(now).until(now) >= patience {
            self.surplus_since = None;
            for shard in plan.give_up {
                self.give_up(shard);
            }
        }
        if *self.takes_from.get_or_insert_with(|| now.after(patience)) <= now {
            for shard in plan.take {
                self.take(shard);
            }
        }
        self.tell();
    }

    /// Who holds what: of its own shards a member knows better than the leases tell.
    fn holders(&self, now: Moment, held: &[Held]) -> Vec<Holder<MemberId>> {
        let me = self.me;
        let of = |(state, held): (&State, &Held)| match (state, *held) {
            (State::Busy { leaving, .. }, _) if !*leaving => Holder::Member(me),
            (State::Busy { .. } | State::Stuck, _) => Holder::Leaving,
            // Released a moment ago, or of a session that has ended.
            (_, Held::By(member)) if member == me => Holder::Other,
            (_, Held::By(member)) => Holder::Member(member),
            (_, Held::Foreign) => Holder::Other,
            (State::Resigned, Held::Nobody) => Holder::Barred,
            (State::Idle { not_before }, Held::Nobody) if *not_before > now => Holder::Barred,
            (State::Idle { .. }, Held::Nobody) => Holder::Nobody,
        };
        self.states.iter().zip(held).map(of).collect()
    }

    fn give_up(&mut self, number: usize) {
        if let Some(State::Busy { stop, leaving, .. }) = self.states.get_mut(number) {
            debug!(shard = number, "giving up");
            *leaving = true;
            stop.cancel();
        }
    }

    fn take(&mut self, number: usize) {
        let Some(name) = self.shards.names.get(number).cloned() else {
            return;
        };
        if !matches!(self.states.get(number), Some(State::Idle { .. })) {
            return;
        }
        let slot = self.slot();
        let Some(used) = self.slots.get_mut(slot) else {
            return;
        };
        used.used += 1;
        let kept = Arc::clone(&used.kept);
        let stop = self.stop.child_token();
        if let Some(state) = self.states.get_mut(number) {
            *state = State::Busy {
                stop: stop.clone(),
                slot,
                leaving: false,
            };
        }
        let (campaign, reporting) = (Arc::clone(&self.campaign), self.reporting.clone());
        let all = self.stop.clone();
        let tasks = &self.client.shared().tasks;
        tasks.spawn("shard", async move {
            let what = lead(&campaign, &name, &kept, (&stop, &all)).await;
            // Nobody hears it where all was dropped.
            drop(reporting.try_send(Report {
                shard: number,
                what,
            }));
        });
    }

    /// A session with room.
    fn slot(&mut self) -> usize {
        let room = |slot: &Slot| slot.used < self.shards.per_session;
        if let Some(found) = self.slots.iter().position(room) {
            return found;
        }
        let session = self.campaign.options().session.clone();
        self.slots.push(Slot {
            kept: Arc::new(Kept::new(Arc::clone(self.client.shared()), session)),
            used: 0,
            stuck: false,
        });
        self.slots.len() - 1
    }
}

fn free(slots: &mut [Slot], slot: usize) {
    if let Some(slot) = slots.get_mut(slot) {
        slot.used = slot.used.saturating_sub(1);
    }
}

/// Tries for a shard, and leads it until told to stop, this one or all. While all others go on it does not end
/// before its work has: nobody leads it here anew beside work that cannot be ended.
async fn lead<G: Sealer>(
    campaign: &Campaign<G>,
    name: &ResourceName,
    kept: &Kept,
    (stop, all): (&CancellationToken, &CancellationToken),
) -> What {
    let elected = tokio::select! {
        biased;
        () = stop.cancelled() => return What::GivenUp,
        elected = campaign.elect(name, kept, Duration::ZERO, true) => elected,
    };
    match elected {
        Ok(elected) => What::Led(Box::pin(campaign.lead(elected, None, stop, all)).await),
        Err(hurdle) => What::NotElected(hurdle),
    }
}
