//! The tasks of one worker: started together, ended together, their failures counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_client::{CancellationToken, Client, Transport};
use palisade_test_support::within;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use crate::Failed;
use crate::tally::Tally;
use crate::work::{Kind, Leak, Shop};
use crate::worker::Order;

/// How long tasks may take to end, beyond what a call of theirs may take.
const END_LIMIT: Duration = Duration::from_secs(60);

/// What a pool holds at most: fewer than the tasks that write, so that they wait for each other, too.
const CONNECTIONS: u32 = 3;

pub(crate) struct Crew {
    order: Order,
    at_work: Option<AtWork>,
    tally: Arc<Tally>,
    leaks: Arc<Mutex<Vec<Leak>>>,
    failures: u64,
}

struct AtWork {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    clients: [Client; 2],
    pool: PgPool,
}

impl Crew {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            at_work: None,
            tally: Arc::default(),
            leaks: Arc::default(),
            failures: 0,
        }
    }

    pub(crate) fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn tally(&self) -> BTreeMap<String, u64> {
        self.tally.all()
    }

    /// Starts the tasks, unless they run.
    pub(crate) fn work(&mut self) -> Result<(), Failed> {
        if let Some(at_work) = &mut self.at_work {
            // None ends by itself: one that has ended has panicked.
            while let Some(ended) = at_work.tasks.try_join_next() {
                self.failures += u64::from(ended.is_err());
            }
            return Ok(());
        }
        let client = |transport| {
            let builder = Client::builder().endpoints(self.order.coordinators.clone());
            builder.transport(transport).connect()
        };
        let clients = [client(Transport::Stream)?, client(Transport::Unary)?];
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS);
        let pool = pool.connect_lazy(&self.order.postgres)?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (kind, times) in Kind::ALL {
            for number in 0..times {
                let shop = Shop {
                    stream: clients[0].clone(),
                    unary: clients[1].clone(),
                    pool: pool.clone(),
                    stop: stop.clone(),
                    tally: Arc::clone(&self.tally),
                    worker: self.order.name.clone(),
                    plant: self.order.plant,
                    leaks: Arc::clone(&self.leaks),
                };
                drop(tasks.spawn(shop.repeats(kind, number)));
            }
        }
        self.at_work = Some(AtWork {
            stop,
            tasks,
            clients,
            pool,
        });
        Ok(())
    }

    /// Ends the tasks, and all that they have left to be given back.
    pub(crate) async fn rest(&mut self) {
        let Some(mut at_work) = self.at_work.take() else {
            return;
        };
        at_work.stop.cancel();
        let ended = within("the tasks end", END_LIMIT, async {
            while let Some(ended) = at_work.tasks.join_next().await {
                self.failures += u64::from(ended.is_err());
            }
        });
        if ended.await.is_err() {
            self.failures += u64::try_from(at_work.tasks.len()).unwrap_or(u64::MAX);
        }
        for client in &at_work.clients {
            if !client.settled(END_LIMIT).await {
                self.failures += 1;
            }
        }
        if within("the pool closes", END_LIMIT, at_work.pool.close())
            .await
            .is_err()
        {
            self.failures += 1;
        }
    }
}
