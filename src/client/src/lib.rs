//! Sessions and leases of a Palisade coordinator, with a local deadline that is never too late.
//!
//! [`Client`] → [`Session`] → [`Lease`]. A lease is an optimisation: it keeps most stale work from being tried.
//! **The guard is the safety**: only it, in the transaction of the write, stops a holder that was
//! paused. So the order is always acquire → seal → read → write.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use palisade_client::{AcquireOptions, Client, SessionOptions};
//!
//! let client = Client::builder()
//!     .endpoints(["http://10.0.0.1:7650", "http://10.0.0.2:7650"])
//!     .connect()?;
//! let session = client.open_session(SessionOptions::default().label("worker-7")).await?;
//! let wait = AcquireOptions::default().wait(Duration::from_secs(60));
//! let lease = session.acquire(&"orders/eu-1".parse()?, wait).await?;
//! // Seal with lease.grant()?, read, write; stop when lease.lost() fires.
//! lease.release().await?;
//! session.close().await?;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod acquire;
mod bearer;
mod calls;
mod client;
mod clock;
mod connector;
mod credentials;
mod detached;
mod endpoints;
mod epoch;
mod error;
#[cfg(any(test, fuzzing))]
#[allow(missing_docs, reason = "for fuzzing only")]
pub mod fuzz;
mod info;
mod leadership;
mod lease;
mod operator;
mod random;
mod release;
mod session;
mod shards;
#[cfg(test)]
mod simulation;
mod standing;
mod stream;
mod tasks;
mod watch;

pub use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
pub use tokio_util::sync::CancellationToken;
pub use tonic::transport::Uri;

pub use self::acquire::{AcquireOptions, QueuePlace};
pub use self::client::{Client, ClientBuilder, Transport};
pub use self::clock::{Clock, Moment, SystemClock};
pub use self::connector::{Connection, Connector};
pub use self::credentials::{Credentials, Secret};
pub use self::detached::DetachedSession;
pub use self::error::{ClientError, LeaseError, Source, Unavailable};
pub use self::info::{
    Generation, LeaseEnd, LeaseInfo, LeasePage, Metadata, Occupancy, PreviousLease, WaiterInfo,
};
pub use self::leadership::{
    Ended, LeaderError, Leadership, LeadershipEnd, LeadershipOptions, Next, SealError, Sealer,
    Stopped, Trouble,
};
pub use self::lease::{Lease, LeaseLoss, RevokeRequest};
pub use self::operator::{
    AdvanceOptions, CoordinatorLimits, CoordinatorStatus, CoordinatorUsage, DrainOptions,
    EndpointStatus, GenerationChange, Revocation, RevokeOptions, RevokeOutcome, StoreEndpoint,
    StoreKind, TokenCheck, TokenState,
};
pub use self::random::{Entropy, SystemEntropy};
pub use self::release::{Hold, Released};
pub use self::session::{Session, SessionOptions};
pub use self::shards::{Shards, ShardsEnded, Spread};
pub use self::standing::{LostReason, SessionState};
pub use self::watch::{LeaseWatch, WatchEvent, WatchOptions, WatchPosition, WatchScope};
