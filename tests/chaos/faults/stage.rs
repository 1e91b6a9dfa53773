//! Servers under load, faults put to them one after the other, and what all clients were told held against etcd's log.

use std::path::Path;
use std::time::Duration;

use palisade_test_support::{
    Coordinator, CoordinatorBuilder, Etcd, EtcdCluster, Proxy, eventually, within,
};

use super::check;
use super::load::{Figures, Load, TTL};
use super::log::{Door, Log};
use crate::common::{LIMIT, now, pause};
use crate::report::Row;

/// After a fault has ended, each client is granted something again within this: what is left of lost sessions has
/// expired, a new leader has been elected and connections that were given up are tried again. Seconds; on a machine that
/// does much else besides, each of them takes its time.
pub(super) const HEALED: Duration = Duration::from_secs(100);

/// Between two looks at what etcd holds: each takes a connection.
const LOOK: Duration = Duration::from_millis(300);

/// What is between coordinators and etcd, and what coordinators are given.
pub(super) struct Plan {
    pub(super) coordinators: usize,
    pub(super) args: Vec<Vec<String>>,
    /// Whether sessions may overlap in what their clients believe: only where etcd's history is lost, since then etcd
    /// knows nothing of a holder who is well.
    pub(super) history_is_lost: bool,
    pub(super) user: Option<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            coordinators: 2,
            args: Vec::new(),
            history_is_lost: false,
            user: None,
        }
    }
}

/// One fault that was tried.
struct Tried {
    fault: &'static str,
    since: Figures,
    recovery: Vec<Duration>,
    until: Figures,
}

pub(super) struct Stage {
    test: &'static str,
    plan: Plan,
    pub(super) etcd: EtcdCluster,
    /// Per coordinator, one before each member.
    pub(super) links: Vec<Vec<Proxy>>,
    pub(super) coordinators: Vec<Coordinator>,
    pub(super) load: Load,
    pub(super) log: Log,
    /// Coordinators that others have taken the place of; their ports stay theirs.
    replaced: Vec<Coordinator>,
    tried: Vec<Tried>,
}

pub(super) async fn one_node() -> EtcdCluster {
    Etcd::builder().start_cluster(1).await.unwrap()
}

/// Elections take their time, so that a busy machine does not call for one after the other by itself.
pub(super) async fn three_nodes() -> EtcdCluster {
    let nodes = Etcd::builder().peer_links();
    let nodes = nodes
        .arg("--heartbeat-interval=300")
        .arg("--election-timeout=3000");
    nodes.start_cluster(3).await.unwrap()
}

impl Stage {
    /// Coordinators, and clients at work.
    pub(super) async fn start(test: &'static str, etcd: EtcdCluster, plan: Plan) -> Self {
        let mut links = Vec::new();
        let mut coordinators = Vec::new();
        for number in 0..plan.coordinators {
            let mut own = Vec::new();
            for member in 0..etcd.size() {
                own.push(Proxy::start(&etcd.host_port(member)).await.unwrap());
            }
            let urls: Vec<_> = own.iter().map(Proxy::url).collect();
            let mut builder = Coordinator::builder().etcd(&urls);
            for arg in plan.args.get(number).into_iter().flatten() {
                builder = builder.arg(arg);
            }
            coordinators.push(builder.start().await.unwrap());
            links.push(own);
        }
        let addresses: Vec<_> = coordinators.iter().map(Coordinator::addr).collect();
        let door = Door {
            endpoints: etcd.endpoints(),
            user: plan.user.clone(),
        };
        let stage = Self {
            test,
            plan,
            etcd,
            links,
            log: Log::follow(door),
            load: Load::start(&addresses),
            coordinators,
            replaced: Vec::new(),
            tried: Vec::new(),
        };
        stage.load.all_get_on(HEALED).await;
        stage
    }

    pub(super) fn door(&self) -> Door {
        Door {
            endpoints: self.etcd.endpoints(),
            user: self.plan.user.clone(),
        }
    }

    /// All links of a coordinator, or of all.
    pub(super) fn links_of(&self, coordinator: Option<usize>) -> impl Iterator<Item = &Proxy> {
        let chosen = self.links.iter().enumerate();
        let chosen = chosen.filter(move |(number, _)| coordinator.is_none_or(|one| one == *number));
        chosen.flat_map(|(_, links)| links)
    }

    pub(super) async fn heal_links(&self) {
        for link in self.links_of(None) {
            link.heal().await.unwrap();
        }
    }

    /// Puts a fault to it. `faulty` returns when the fault is over; from then on it is measured how long the next
    /// grant takes, and every client must get on within a bound.
    pub(super) async fn suffers(
        &mut self,
        fault: &'static str,
        faulty: impl AsyncFnOnce(&mut Self),
    ) {
        let since = self.load.figures();
        within(fault, HEALED * 4, faulty(self)).await.unwrap();
        let healed = now();
        self.load.one_gets_on(HEALED).await;
        let recovery = healed.until(now());
        self.load.all_get_on(HEALED).await;
        let until = self.load.figures();
        // What was tried before goes on in one line.
        match self.tried.iter_mut().find(|tried| tried.fault == fault) {
            Some(tried) => {
                tried.recovery.push(recovery);
                tried.since.operations += tried.until.operations.abs_diff(since.operations);
                tried.since.unknown += tried.until.unknown.abs_diff(since.unknown);
                tried.until = until;
            }
            None => self.tried.push(Tried {
                fault,
                since,
                recovery: vec![recovery],
                until,
            }),
        }
    }

    /// Lets etcd forget what came before.
    pub(super) async fn compacts(&self) {
        let now = self.etcd.revision().await.unwrap().to_string();
        self.etcd.etcdctl(&["compact", &now]).await.unwrap();
    }

    /// Starts another coordinator in the place of one, which has ended, with all members of etcd as they are now.
    pub(super) async fn replaces(
        &mut self,
        one: usize,
        with: impl FnOnce(CoordinatorBuilder) -> CoordinatorBuilder,
    ) {
        let mut links = Vec::new();
        for member in 0..self.etcd.size() {
            links.push(Proxy::start(&self.etcd.host_port(member)).await.unwrap());
        }
        let urls: Vec<_> = links.iter().map(Proxy::url).collect();
        let address = self.coordinators[one].host_port();
        let builder = Coordinator::builder().etcd(&urls).listen(&address);
        let next = with(builder).start().await.unwrap();
        self.links[one] = links;
        let before = std::mem::replace(&mut self.coordinators[one], next);
        self.replaced.push(before);
    }

    /// Restores etcd's data from a snapshot, or none, under load.
    pub(super) async fn loses_history(&mut self, snapshot: Option<&Path>, bump: Option<u64>) {
        self.etcd.kill_all().unwrap();
        let copy = self
            .etcd
            .copy_data(&format!("before-{:?}", now().0))
            .unwrap();
        match (snapshot, bump) {
            (Some(snapshot), Some(bump)) => self.etcd.restore_bumped(snapshot, bump).await,
            (Some(snapshot), None) => self.etcd.restore_from(snapshot).await,
            (None, _) => self.etcd.wipe().await,
        }
        .unwrap();
        let old = Etcd::builder().data_dir(copy).start().await.unwrap();
        let copy = Door {
            endpoints: old.endpoints(),
            user: None,
        };
        let next = self.door();
        self.log.begins_anew(copy, next).await;
    }

    /// Ends the load and compares. Every fault that was tried is reported.
    pub(super) async fn ends(self) {
        let Self {
            test,
            plan,
            load,
            mut log,
            tried,
            ..
        } = self;
        let figures = load.figures();
        let mut rest = load.end().await;
        let mut violations = Vec::new();
        // What nobody knows of goes while the sessions live, and what sessions that were lost had with them (I5).
        let mut seen = (None, None);
        let settled = async || {
            pause(LOOK).await;
            seen = (log.held().await, log.queued().await);
            seen == (Some(rest.believed()), Some(0))
        };
        if eventually("only what is kept is held", LIMIT + TTL, settled)
            .await
            .is_err()
        {
            violations.push(format!("I5: {seen:?}, believed: {:?}", rest.believed()));
        }
        let (shared, told, found) = rest.close().await;
        violations.extend(found);
        if eventually("nothing is left", LIMIT, async || {
            pause(LOOK).await;
            log.is_empty().await
        })
        .await
        .is_err()
        {
            violations.push("I5: something is left".to_owned());
        }
        let histories = log.histories().await;
        for history in &histories {
            violations.extend(check::log(history));
        }
        violations.extend(check::tokens_grow_as_told(&told));
        violations.extend(check::told_is_in_the_log(&histories, &told));
        if !plan.history_is_lost {
            violations.extend(check::nobody_believed_at_once(&told));
        }
        report(test, &tried, violations.len());
        tell(test, figures, told.len(), shared.engine.count());
        assert!(violations.is_empty(), "{}", violations.join("\n"));
        assert!(
            told.len() > 10 && shared.engine.count() > 10,
            "it was hardly any load"
        );
    }

    /// The fault goes on for so long.
    pub(super) async fn lasts(length: Duration) {
        pause(length).await;
    }
}

fn report(test: &str, tried: &[Tried], violations: usize) {
    for one in tried {
        Row {
            fault: one.fault,
            test,
            operations: one.until.operations - one.since.operations,
            unknown: one.until.unknown - one.since.unknown,
            violations: u64::try_from(violations).unwrap_or(u64::MAX),
            recovery: one.recovery.clone(),
        }
        .write();
    }
}

#[allow(clippy::print_stderr, reason = "figures are shown beside the test")]
fn tell(test: &str, figures: Figures, told: usize, writes: usize) {
    let Figures {
        operations,
        unknown,
        lost,
    } = figures;
    eprintln!(
        "{test}: {operations} operations, {unknown} of unknown outcome, {told} grants, {writes} guarded writes, \
         {lost} sessions lost"
    );
}
