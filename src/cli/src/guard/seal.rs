//! `palisade guard seal`.

use palisade_client::{AcquireOptions, SessionOptions};
use palisade_guard::{postgres, sqlite};
use palisade_token::{Grant, ResourceName};

use super::Store;
use crate::args::GuardSealArgs;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(args: &GuardSealArgs) -> Result<(), Failure> {
    // Asked first: a lease that is taken for nothing ends the wrong holder's turn.
    let store = Store::open(&args.store).await?;
    match (&args.grant, &args.resource) {
        (Some(grant), _) => seal(&store, grant).await,
        (None, Some(resource)) => acquired(args, resource, &store).await,
        (None, None) => Err(Failure::usage("name a RESOURCE, or a --grant")),
    }
}

async fn acquired(
    args: &GuardSealArgs,
    resource: &ResourceName,
    store: &Store,
) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let label = format!("palisade guard seal, pid {}", std::process::id());
    let options = SessionOptions::default().label(label);
    let session = client.open_session(options).await?;
    let wanted = AcquireOptions::default().wait(args.wait);
    let sealed = match session.acquire(resource, wanted).await {
        Ok(lease) => {
            let sealed = seal(store, &lease.grant()?).await;
            lease.release().await?;
            sealed
        }
        Err(error) => Err(crate::acquire::refused(error, resource, args.wait)),
    };
    // What it held is released: no harm if its end is not heard of.
    if let Err(error) = session.close().await {
        tracing::debug!(%error, "the session was not closed");
    }
    sealed
}

async fn seal(store: &Store, grant: &Grant) -> Result<(), Failure> {
    match store {
        Store::Postgres(pool) => drop(postgres::Guard::new().seal(pool, grant).await?),
        Store::Sqlite(pool) => {
            drop(sqlite::Guard::new().seal(pool, grant).await?);
            pool.close().await;
        }
    }
    let (resource, token) = (&grant.resource, grant.token);
    output::note(format_args!(
        "palisade: {resource} is sealed: no write with a token below {token} commits any more"
    ));
    Ok(())
}
