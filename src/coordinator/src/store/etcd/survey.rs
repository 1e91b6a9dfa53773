//! A look at etcd from outside, for operators: what a coordinator meets there, found out by what a coordinator
//! uses itself. Nothing is granted over such a connection.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error, PutOptions};
use tonic::Code;

use super::codec;
use super::connect::{self, BoxError};
use super::keys::Keys;
use super::version::{self, Version};
use super::vitals::{self, Alarms, Vitals};
use crate::clock::{Clock, within};
use crate::config::EtcdAccess;
use crate::domain::{Generation, Revision};
use crate::entropy::Entropy;

/// The least that etcd is asked for, to see what it makes of it.
const SHORTEST_TTL: i64 = 1;

/// Why something was not found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// No connection: see that it runs, and its address.
    #[error("no connection")]
    Unreachable(#[source] BoxError),
    /// No answer in time: it is frozen, overloaded, or cannot agree with its peers.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// It answers that it cannot serve: it has no leader, or no quorum.
    #[error("no leader, or no quorum")]
    NoQuorum(#[source] BoxError),
    /// It does not allow this to the user or certificate that was shown.
    #[error("not allowed")]
    Refused(#[source] BoxError),
    /// It takes no more data.
    #[error("no space is left")]
    NoSpace(#[source] BoxError),
    /// Anything else, such as a file that cannot be read.
    #[error("it failed")]
    Failed(#[source] BoxError),
}

impl From<Error> for SurveyError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::GRpcStatus(status) => status.code(),
            _ => return Self::Unreachable(error.into()),
        };
        match code {
            Code::Unavailable => Self::NoQuorum(error.into()),
            Code::PermissionDenied | Code::Unauthenticated => Self::Refused(error.into()),
            // So it refuses a user's name or password.
            Code::InvalidArgument => Self::Refused(error.into()),
            Code::ResourceExhausted => Self::NoSpace(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

/// What a version of etcd gets wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownFault {
    /// What it does to those who use this version.
    pub what: &'static str,
    /// The first versions without it, for people.
    pub mended_in: String,
    /// A coordinator that is told to be strict refuses etcd for it.
    pub is_grave: bool,
}

/// What one member of etcd says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The id of its cluster.
    pub cluster: u64,
    /// Its version, as it writes it.
    pub version: String,
    /// What that version gets wrong; none where it is not known as a version.
    pub faults: Option<Vec<KnownFault>>,
    /// It leads.
    pub leads: bool,
    /// It does not vote, and takes neither writes nor streams.
    pub is_learner: bool,
    /// The cluster has raised its NOSPACE alarm: it takes no more data.
    pub is_full: bool,
    /// The cluster has raised its CORRUPT alarm: its members differ.
    pub is_corrupt: bool,
    /// How large its file is, in bytes.
    pub file_bytes: u64,
    /// How much of the file is in use, in bytes.
    pub used_bytes: u64,
    /// How large the file may become, in bytes, where it tells: from 3.6 on.
    pub quota_bytes: Option<u64>,
}

/// What a linearizable read showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// The generation below the prefix; none where no coordinator has used it yet.
    pub generation: Option<Generation>,
    /// The store's revision.
    pub revision: Revision,
    /// How long the read took.
    pub took: Duration,
}

/// What a write showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Writing {
    /// How long the write took.
    pub took: Duration,
    /// The shortest time to live that etcd gives: it follows its election timeout.
    pub least_ttl: Duration,
}

/// A connection to one endpoint, to look at it.
pub struct Survey {
    client: Client,
    keys: Keys,
    clock: Arc<dyn Clock>,
    limit: Duration,
}

impl fmt::Debug for Survey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Survey");
        shown.field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Survey {
    /// Connects. No step, this one included, takes longer than `limit`. `prefix` is what a coordinator's keys
    /// begin with.
    ///
    /// # Errors
    /// [`SurveyError`], as all that it can be asked.
    pub async fn open(
        url: &str,
        access: &EtcdAccess,
        prefix: &str,
        clock: &Arc<dyn Clock>,
        limit: Duration,
    ) -> Result<Self, SurveyError> {
        let opening = Box::pin(connect::open(url, access, clock));
        let connected = match within(clock, limit, opening).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(not_opened(error)),
            Err(_elapsed) => return Err(SurveyError::Silent(limit)),
        };
        Ok(Self {
            client: connected.client,
            keys: Keys::new(prefix),
            clock: Arc::clone(clock),
            limit,
        })
    }

    /// What the member says of itself. None where it tells that to its administrator only.
    ///
    /// # Errors
    /// [`SurveyError`].
    pub async fn member(&self) -> Result<Option<Member>, SurveyError> {
        let mut maintenance = self.client.maintenance_client();
        self.bounded(async {
            let (seen, sizes) = match (
                Vitals::of(&mut maintenance).await,
                maintenance.status().await,
            ) {
                (Ok(seen), Ok(sizes)) => (seen, sizes),
                (Err(error), _) | (_, Err(error)) if vitals::is_secret(&error) => return Ok(None),
                (Err(error), _) | (_, Err(error)) => return Err(error.into()),
            };
            let Alarms {
                is_full,
                is_corrupt,
            } = seen.alarms;
            let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
            Ok(Some(Member {
                faults: seen.version().map(known_faults),
                cluster: seen.cluster,
                version: seen.version,
                leads: seen.leads,
                is_learner: seen.is_learner,
                is_full,
                is_corrupt,
                file_bytes: bytes(sizes.db_size()),
                used_bytes: bytes(sizes.raft_used_db_size()),
                quota_bytes: Some(bytes(sizes.db_size_quota())).filter(|quota| *quota > 0),
            }))
        })
        .await
    }

    /// How many members the cluster has that vote. None where this caller may not know.
    ///
    /// # Errors
    /// [`SurveyError`].
    pub async fn voters(&self) -> Result<Option<usize>, SurveyError> {
        let mut cluster = self.client.cluster_client();
        self.bounded(async {
            match cluster.member_list().await {
                Ok(listed) => {
                    let voters = listed.members().iter().filter(|one| !one.is_learner());
                    Ok(Some(voters.count()))
                }
                Err(error) if vitals::is_secret(&error) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Reads the generation, linearizably.
    ///
    /// # Errors
    /// [`SurveyError`].
    pub async fn read(&self) -> Result<Reading, SurveyError> {
        let mut kv = self.client.kv_client();
        let sent = self.clock.now();
        let found = self
            .bounded(async { Ok(kv.get(self.keys.generation(), None).await?) })
            .await?;
        let took = sent.until(self.clock.now());
        let broken = |error: crate::store::StoreError| SurveyError::Failed(Box::new(error));
        let generation = match found.kvs().first() {
            Some(key) => Some(codec::generation(key).map_err(broken)?.record),
            None => None,
        };
        let revision = found
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        Ok(Reading {
            generation,
            revision: codec::revision(revision).map_err(broken)?,
            took,
        })
    }

    /// Writes a key of its own below the prefix, and removes it: it hangs on a lease of its own, so that it goes
    /// also if this process does.
    ///
    /// # Errors
    /// [`SurveyError`]. What could not be removed goes by itself within seconds.
    pub async fn write(&self, entropy: &Arc<dyn Entropy>) -> Result<Writing, SurveyError> {
        let (mut kv, mut leases) = (self.client.kv_client(), self.client.lease_client());
        let granted = self
            .bounded(async { Ok(leases.grant(SHORTEST_TTL, None).await?) })
            .await?;
        let least_ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default());
        let key = self.keys.look(entropy.nonce());
        let sent = self.clock.now();
        let options = PutOptions::new().with_lease(granted.id());
        let put = async { Ok(kv.put(key.clone(), "", Some(options)).await.map(drop)?) };
        let put = self.bounded(put).await;
        let took = sent.until(self.clock.now());
        // Also after a write of which nobody knows whether it happened.
        let deleted = self
            .bounded(async { Ok(kv.delete(key, None).await.map(drop)?) })
            .await;
        let revoked = self
            .bounded(async { Ok(leases.revoke(granted.id()).await.map(drop)?) })
            .await;
        put.and(deleted).and(revoked)?;
        Ok(Writing { took, least_ttl })
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, SurveyError>> + Send,
    ) -> Result<T, SurveyError> {
        let done = within(&self.clock, self.limit, work).await;
        done.unwrap_or(Err(SurveyError::Silent(self.limit)))
    }
}

fn not_opened(error: BoxError) -> SurveyError {
    match error.downcast::<Error>() {
        Ok(error) => (*error).into(),
        Err(error) if error.is::<tonic::transport::Error>() => SurveyError::Unreachable(error),
        Err(error) => SurveyError::Failed(error),
    }
}

fn known_faults(version: Version) -> Vec<KnownFault> {
    let faults = version::gaps(version).map(|gap| KnownFault {
        what: gap.what,
        mended_in: gap.mended_in(),
        is_grave: gap.is_grave,
    });
    faults.collect()
}
