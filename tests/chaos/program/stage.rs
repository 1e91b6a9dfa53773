//! The servers that a field stands on: etcd, coordinators, PostgreSQL.

use std::time::Duration;

use palisade_test_support::{Coordinator, Etcd, Postgres};
use palisade_token::ResourceName;
use sqlx::PgPool;

use crate::clock;
use crate::field::Plan;
use crate::workload::{Failed, Workload};

const COORDINATORS: usize = 2;
/// Long enough for clients to go over to another coordinator.
const COORDINATOR_AWAY: Duration = Duration::from_millis(1500);
/// Every worker has a few connections, and there may be a hundred of them.
const POSTGRES_CONNECTIONS: &str = "400";

pub(crate) struct Stage {
    _etcd: Etcd,
    pub(crate) coordinators: Vec<Coordinator>,
    postgres: Postgres,
}

/// One side of the comparison: a database of its own, with the guard or without.
pub(crate) struct Arm {
    pub(crate) guarded: bool,
    /// Of its resources' names.
    pub(crate) prefix: ResourceName,
    pub(crate) pool: PgPool,
    /// Where PostgreSQL listens.
    pub(crate) postgres: String,
    url: String,
    /// Where the coordinators listen.
    pub(crate) coordinators: Vec<String>,
}

impl Stage {
    pub(crate) async fn set() -> Result<Self, Failed> {
        let etcd = Etcd::start();
        let postgres = Postgres::builder()
            .setting("max_connections", POSTGRES_CONNECTIONS)
            .start();
        let (etcd, postgres) = tokio::try_join!(etcd, postgres)?;
        let mut coordinators = Vec::new();
        for _ in 0..COORDINATORS {
            let builder = Coordinator::builder().etcd(&etcd.endpoints());
            coordinators.push(builder.start().await?);
        }
        Ok(Self {
            _etcd: etcd,
            coordinators,
            postgres,
        })
    }

    pub(crate) async fn arm(&self, plan: &Plan, guarded: bool) -> Result<Arm, Failed> {
        let workload = plan.workload;
        let side = if guarded { "guarded" } else { "unguarded" };
        let prefix = ResourceName::new(format!("{workload}/{side}"))?;
        let database = format!("{workload}_{side}").replace('-', "_");
        let url = self.postgres.create_database(&database).await?;
        let pool = PgPool::connect(&url).await?;
        workload.prepare(&pool, plan.rows).await?;
        if guarded {
            let protected = !(plan.plant && workload == Workload::LockSet);
            workload.guard(&pool, &prefix, protected).await?;
        }
        Ok(Arm {
            guarded,
            prefix,
            pool,
            postgres: self.postgres.host_port(),
            url,
            coordinators: self
                .coordinators
                .iter()
                .map(Coordinator::host_port)
                .collect(),
        })
    }
}

impl Arm {
    /// The database's address with another way to the server.
    pub(crate) fn postgres_through(&self, host_port: &str) -> String {
        self.url.replace(&self.postgres, host_port)
    }
}

/// Kills one coordinator with SIGKILL in the middle of a run, and starts it again.
pub(crate) async fn strike(
    coordinators: &mut [Coordinator],
    seed: u64,
    after: Duration,
) -> Result<u64, Failed> {
    clock::pause(after).await;
    let index = usize::try_from(seed)? % coordinators.len();
    coordinators[index].kill()?;
    clock::pause(COORDINATOR_AWAY).await;
    coordinators[index].start_again().await?;
    Ok(1)
}
