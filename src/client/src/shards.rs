//! Many resources in one process, spread over the instances that are there.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use palisade_token::ResourceName;
use tokio::sync::watch;

use crate::client::Client;
use crate::error::ClientError;
use crate::leadership::{Campaign, LeaderError, Leadership, LeadershipOptions, Next, Sealer, Work};

mod member;
mod plan;
mod runner;
mod view;

use self::member::MemberId;
use self::runner::Runner;

/// More are a resource too few: each member lists all of them at every look.
const MAX_SHARDS: usize = 10_000;
/// Two requests for each may be open for a moment, and a session has 1000.
const MAX_PER_SESSION: usize = 500;
/// So many are lost together where a session is, unless told otherwise.
const PER_SESSION: usize = 100;
/// How often a member looks, unless told otherwise.
const REFRESH: Duration = Duration::from_secs(2);
/// The shortest time between two looks: each is a call or more.
const LEAST_REFRESH: Duration = Duration::from_millis(50);
/// How long a surplus is seen before it is given up, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(3);

/// Resources that are to be led by the instances of a group, each by one of them, each instance as many as any
/// other, but for one.
///
/// An instance shows that it is there by a lease of its own beside the shards, in a session of its own. It looks at
/// the leases every so often: takes vacant shards up to its part, `shards / members`, and gives up what it has
/// above it, gracefully: stop → drain → release. Nobody decides for others, so nothing stops working
/// when an instance dies, and what two instances think of the spreading never makes both lead a shard.
///
/// ```
/// use palisade_client::Shards;
///
/// let shards = Shards::numbered(&"jobs".parse()?, 64)?.at_most(40);
/// assert_eq!(shards.names().len(), 64);
/// assert_eq!(shards.names()[3].as_str(), "jobs/3");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use]
#[derive(Clone)]
pub struct Shards {
    names: Arc<[ResourceName]>,
    numbers: Arc<HashMap<ResourceName, usize>>,
    /// What the names of the members' leases begin with.
    members: String,
    cap: usize,
    per_session: usize,
    slack: usize,
    refresh: Duration,
    patience: Duration,
    spread: Option<watch::Sender<Spread>>,
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards")
            .field("count", &self.names.len())
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// What an instance saw at its last look, and what it leads by now.
///
/// ```
/// use palisade_client::{Shards, Spread};
/// use tokio::sync::watch;
///
/// let (told, spread) = watch::channel(Spread::default());
/// let shards = Shards::numbered(&"jobs".parse()?, 64)?.spread(told);
/// println!("{} of {}", spread.borrow().leading.len(), spread.borrow().quota);
/// # drop(shards);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spread {
    /// How many instances there are, this one counted.
    pub members: usize,
    /// How many shards are this one's part.
    pub quota: usize,
    /// The shards that it leads or is about to lead, by number.
    pub leading: Vec<usize>,
    /// Those that it is giving up.
    pub leaving: Vec<usize>,
}

/// How [`Client::run_shards`] ended.
///
/// ```
/// fn line(ended: palisade_client::ShardsEnded) -> String {
///     format!("{} leaderships, {} still running", ended.leaderships, ended.still_running)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardsEnded {
    /// How many leaderships there were.
    pub leaderships: u64,
    /// How many shards' work did not end, though it was dropped: their sessions are left to expire.
    pub still_running: usize,
}

impl Shards {
    /// `PREFIX/0`, `PREFIX/1` and so on, `count` of them, 1 to 10,000. Members show themselves at `PREFIX/members/…`.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a count or a name outside its bound.
    pub fn numbered(prefix: &ResourceName, count: usize) -> Result<Self, ClientError> {
        // Nothing is made of a count that is refused.
        let names: Result<Vec<_>, _> = (0..count.min(MAX_SHARDS + 1))
            .map(|number| below(prefix, &number.to_string()))
            .collect();
        Self::of(prefix, names?)
    }

    /// These resources, 1 to 10,000, no two alike. Members show themselves at `GROUP/members/…`.
    ///
    /// All leases whose names begin as all of these do are listed at each look: let them have a beginning in
    /// common that others have not.
    ///
    /// # Errors
    /// [`ClientError::Invalid`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use palisade_client::{ResourceName, Shards};
    ///
    /// let regions = ["orders/eu".parse::<ResourceName>()?, "orders/us".parse()?];
    /// let shards = Shards::of(&"orders".parse()?, regions)?
    ///     .per_session(1)
    ///     .slack(1)
    ///     .refresh(Duration::from_secs(1))
    ///     .patience(Duration::from_secs(10));
    /// assert_eq!(shards.names()[1].as_str(), "orders/us");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(
        group: &ResourceName,
        names: impl IntoIterator<Item = ResourceName>,
    ) -> Result<Self, ClientError> {
        let names: Vec<_> = names.into_iter().take(MAX_SHARDS + 1).collect();
        if names.is_empty() || names.len() > MAX_SHARDS {
            let given = match names.len() {
                0 => "none".to_owned(),
                count => format!("{count} or more"),
            };
            return Err(ClientError::invalid(
                "shards",
                format!("1 to {MAX_SHARDS}"),
                given,
            ));
        }
        let members = format!("{group}/members/");
        MemberId::LONGEST.lease(&members)?;
        let mut numbers = HashMap::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            if name.as_str().starts_with(&members) {
                let given = name.to_string();
                return Err(ClientError::invalid("shards", "no member's name", given));
            }
            if let Some(_before) = numbers.insert(name.clone(), number) {
                return Err(ClientError::invalid(
                    "shards",
                    "no two alike",
                    name.to_string(),
                ));
            }
        }
        Ok(Self {
            names: names.into(),
            numbers: Arc::new(numbers),
            members,
            cap: usize::MAX,
            per_session: PER_SESSION,
            slack: 0,
            refresh: REFRESH,
            patience: PATIENCE,
            spread: None,
        })
    }

    /// The shards, by number.
    #[must_use]
    pub fn names(&self) -> &[ResourceName] {
        &self.names
    }

    /// An instance leads no more, even if some are led by none then: no limit unless set, at least 1. Every
    /// instance must say the same, or the spreading is not even.
    pub fn at_most(mut self, shards: usize) -> Self {
        self.cap = shards;
        self
    }

    /// So many share a session, and are lost with it: 100 unless set, 1 to 500. More sessions are opened as it
    /// takes.
    pub fn per_session(mut self, shards: usize) -> Self {
        self.per_session = shards;
        self
    }

    /// So many above its part an instance keeps rather than moves: none unless set.
    pub fn slack(mut self, shards: usize) -> Self {
        self.slack = shards;
        self
    }

    /// How often to look: every 2 s unless set, at least 50 ms; sooner by up to a fifth, by chance.
    pub fn refresh(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// How long a surplus must last before it is given up, and how long a new instance waits before it takes
    /// anything: 3 s unless set. Whoever comes and goes within it moves nothing.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where to tell what is seen and led, whenever it changes.
    pub fn spread(mut self, told: watch::Sender<Spread>) -> Self {
        self.spread = Some(told);
        self
    }

    fn checked(&self) -> Result<(), ClientError> {
        let count = |field, bound: String, given: usize| {
            Err(ClientError::invalid(field, bound, given.to_string()))
        };
        if self.cap == 0 {
            return count("at_most", "at least 1".to_owned(), self.cap);
        }
        if self.per_session == 0 || self.per_session > MAX_PER_SESSION {
            let bound = format!("1 to {MAX_PER_SESSION}");
            return count("per_session", bound, self.per_session);
        }
        if self.refresh < LEAST_REFRESH {
            let bound = format!("at least {LEAST_REFRESH:?}");
            let given = format!("{:?}", self.refresh);
            return Err(ClientError::invalid("refresh", bound, given));
        }
        Ok(())
    }
}

fn below(prefix: &ResourceName, name: &str) -> Result<ResourceName, ClientError> {
    let whole = format!("{prefix}/{name}");
    ResourceName::new(&whole).map_err(|error| {
        let bound = format!("a resource's name: {error}");
        ClientError::invalid("shards", bound, whole)
    })
}

impl Client {
    /// Leads this instance's part of `shards` until it is told to stop; as [`Client::run_as_leader`], each.
    ///
    /// What differs, as they share sessions: `options` give no wait and no metadata (vacant shards are tried for, and
    /// their metadata name the member). Where a drain overruns, the shard stays held until its work has ended,
    /// for what shares its session is not to be lost; where all is to stop, the session is left to expire. Work that
    /// resigns gives its shard up, and this instance takes it no more, though it counts as one that it may have:
    /// an instance that has too few takes it, and if there is none nobody. Work that returns
    /// [`Next::Campaign`] gives it up, and after a pause whoever has too few takes it.
    ///
    /// # Errors
    /// [`LeaderError`]: what no further campaign can mend; every shard's work has been stopped.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use palisade_client::{CancellationToken, LeadershipOptions, Next, Shards};
    ///
    /// let stop = CancellationToken::new();
    /// let options = LeadershipOptions::default().stop_on(stop.clone());
    /// let shards = Shards::numbered(&"jobs".parse()?, 64)?;
    /// // `()` seals nothing: see `Sealer` for how a guard's seal gets here.
    /// let ended = client.run_shards(shards, options, (), |leadership| async move {
    ///     println!("leading {}", leadership.resource());
    ///     leadership.closing().cancelled().await;
    ///     Next::Campaign
    /// });
    /// println!("led {} times", ended.await?.leaderships);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_shards<G, W, F>(
        &self,
        shards: Shards,
        options: LeadershipOptions,
        sealer: G,
        work: W,
    ) -> Result<ShardsEnded, LeaderError>
    where
        G: Sealer,
        W: Fn(Leadership<G::Sealed>) -> F + Send + Sync + 'static,
        F: Future<Output = Next> + Send + 'static,
    {
        shards.checked().map_err(LeaderError::Client)?;
        let me = MemberId::random(&self.shared().random);
        let work: Work<G::Sealed> = Arc::new(move |leadership| Box::pin(work(leadership)));
        let options = options.metadata(me.metadata());
        let campaign = Campaign::new(Arc::clone(self.shared()), options, sealer, work)?;
        Box::pin(Runner::new(self.clone(), shards, me, campaign).run()).await
    }
}
