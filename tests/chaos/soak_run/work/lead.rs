//! Leaders that seal, write under the guard, each effect once, and purge.

use std::sync::Arc;
use std::time::Duration;

use palisade_client::{
    Grant, LeaderError, Leadership, LeadershipOptions, Next, SealError, Sealer, SessionOptions,
};
use palisade_guard::GuardError;
use palisade_guard::effects::{Fingerprint, IdempotencyKey, KeyPolicy};
use palisade_guard::postgres::{Guard, Sealed};
use sqlx::PgPool;

use super::{PAUSE, Shop, TTL, name};
use crate::tally::{Early, Tally};
use crate::worker::Plant;

/// How many writes a leader makes before it lets another one lead.
const TERM: u64 = 12;
/// How much a purge deletes at most, far more than there is.
const MOST: u64 = 10_000;

fn sealing(pool: PgPool) -> impl Sealer<Sealed = Sealed> {
    move |grant: Grant| {
        let pool = pool.clone();
        async move {
            match Guard::new().seal(&pool, &grant).await {
                Ok(sealed) => Ok(sealed),
                Err(GuardError::Stale { fence, .. }) => Err(SealError::Refused { fence }),
                Err(other) => Err(SealError::transient(other)),
            }
        }
    }
}

impl Shop {
    /// Leads one resource after the other: all workers campaign for the same two.
    pub(super) async fn lead(&self, number: usize) -> Result<(), Early> {
        let options = LeadershipOptions::default()
            .session(SessionOptions::default().ttl(TTL).label(&self.worker))
            .wait(TTL * 2)
            .seal_limit(TTL)
            .drain_limit(TTL)
            .stop_on(self.stop.clone());
        let (pool, tally) = (self.pool.clone(), Arc::clone(&self.tally));
        let purges = self.plant != Plant::Rows;
        let work = move |leadership| {
            let (pool, tally) = (pool.clone(), Arc::clone(&tally));
            async move { term(&pool, &tally, &leadership, number, purges).await }
        };
        let resource = name(&format!("led/{number}"));
        let campaign =
            self.stream
                .run_as_leader(&resource, options, sealing(self.pool.clone()), work);
        match campaign.await {
            Ok(ended) => {
                self.tally.count("lead.stop", "ok");
                drop(ended);
                Ok(())
            }
            Err(LeaderError::Client(error)) => Err(error.into()),
            Err(other) => {
                self.tally.count("lead.stop", "failed");
                drop(other);
                Ok(())
            }
        }
    }
}

async fn term(
    pool: &PgPool,
    tally: &Tally,
    leadership: &Leadership<Sealed>,
    number: usize,
    purges: bool,
) -> Next {
    for write in 0..TERM {
        if leadership.closing().is_cancelled() {
            break;
        }
        // Every other effect is asked for twice.
        let effect = write / 2;
        match add(pool, leadership.sealed(), number, effect).await {
            Ok(()) => tally.count("write", "ok"),
            Err(GuardError::Stale { fence, .. }) => {
                tally.count("write", "stale");
                return Next::Refused(fence);
            }
            Err(other) => tally.count("write", Early::from(other).word()),
        }
        crate::sleep(PAUSE / 4).await;
    }
    if purges {
        match Guard::new().purge_effects(pool, MOST).await {
            Ok(_deleted) => tally.count("purge", "ok"),
            Err(_other) => tally.count("purge", "failed"),
        }
    }
    Next::Campaign
}

async fn add(pool: &PgPool, sealed: &Sealed, number: usize, effect: u64) -> Result<(), GuardError> {
    let token = sealed.grant().token;
    let key = IdempotencyKey::new("soak", "add", &format!("{number}/{token}/{effect}")).unwrap();
    let asked = Fingerprint::of(&[("effect", &effect.to_be_bytes())]);
    let policy = KeyPolicy::new().with_answer_lifetime(Duration::from_secs(2));
    let mut transaction = Guard::new().begin(pool, sealed).await?;
    let added = transaction.once_with(&key, &asked, &policy, async |connection| {
        let text = "UPDATE soak SET value = value + 1 WHERE id = $1";
        let id = i32::try_from(number).unwrap_or_default();
        sqlx::query(text).bind(id).execute(connection).await?;
        Ok::<_, GuardError>(effect)
    });
    let _answer = added.await?;
    transaction.commit().await?;
    Ok(())
}
