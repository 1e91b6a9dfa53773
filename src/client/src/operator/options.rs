//! How operators' calls are made.

use std::time::Duration;

use palisade_token::FencingToken;

/// Why, and who.
#[derive(Debug, Clone)]
pub(super) struct Why {
    pub(super) reason: String,
    pub(super) actor: String,
}

impl Why {
    fn new(reason: impl Into<String>, actor: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            actor: actor.into(),
        }
    }
}

/// How a lease is revoked. See [`Client::revoke_lease`](crate::Client::revoke_lease).
///
/// ```
/// use std::time::Duration;
/// use palisade_client::RevokeOptions;
///
/// let options = RevokeOptions::because("host 7 is taken down", "alice").ask_for(Duration::from_secs(30));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RevokeOptions {
    pub(super) why: Why,
    pub(super) ask_for: Duration,
}

impl RevokeOptions {
    /// Why (1 to 256 bytes) and who (1 to 128 bytes), without control characters: told to the holder, logged.
    pub fn because(reason: impl Into<String>, actor: impl Into<String>) -> Self {
        Self {
            why: Why::new(reason, actor),
            ask_for: Duration::ZERO,
        }
    }

    /// How long the holder is asked to release it before it is forced: not at all unless set, most 10 min. A
    /// holder that declines is not waited for.
    pub fn ask_for(mut self, time: Duration) -> Self {
        self.ask_for = time;
        self
    }
}

/// How a new generation is made. See [`Client::advance_generation`](crate::Client::advance_generation).
///
/// ```
/// use palisade_client::AdvanceOptions;
///
/// let token = "1732180000000000".parse()?;
/// let options = AdvanceOptions::because("the guard's database was restored", "alice").past(token);
/// # let _ = options;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct AdvanceOptions {
    pub(super) why: Why,
    pub(super) past: Option<FencingToken>,
    pub(super) force: bool,
}

impl AdvanceOptions {
    /// Why (1 to 256 bytes) and who (1 to 128 bytes), without control characters: logged.
    pub fn because(reason: impl Into<String>, actor: impl Into<String>) -> Self {
        Self {
            why: Why::new(reason, actor),
            past: None,
            force: false,
        }
    }

    /// All tokens granted from now on are above this one; at most 2^52. Unless set the coordinator's clock
    /// alone counts.
    pub fn past(mut self, token: FencingToken) -> Self {
        self.past = Some(token);
        self
    }

    /// Goes more than a day past the coordinator's clock, too. Tokens that far ahead are used up for good.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client, token: palisade_client::FencingToken) {
    /// use palisade_client::{AdvanceOptions, ClientError};
    ///
    /// let why = AdvanceOptions::because("a clock was a week ahead", "alice").past(token);
    /// match client.advance_generation(why.clone()).await {
    ///     Err(ClientError::ForceRequired { clock_unix_micros, .. }) => {
    ///         println!("{token} against the clock's {clock_unix_micros:?}: are both right?");
    ///         let forced = client.advance_generation(why.force(true)).await;
    ///         # drop(forced);
    ///     }
    ///     other => println!("{other:?}"),
    /// }
    /// # }
    /// ```
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}

/// How a coordinator is drained. See [`Client::drain`](crate::Client::drain).
///
/// ```
/// use std::time::Duration;
/// use palisade_client::DrainOptions;
///
/// let options = DrainOptions::because("upgrade", "alice").within(Duration::from_secs(30));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct DrainOptions {
    pub(super) why: Why,
    pub(super) within: Duration,
}

impl DrainOptions {
    /// Why (1 to 256 bytes) and who (1 to 128 bytes), without control characters: logged.
    pub fn because(reason: impl Into<String>, actor: impl Into<String>) -> Self {
        Self {
            why: Why::new(reason, actor),
            within: Duration::ZERO,
        }
    }

    /// How long its streams have to go elsewhere: 10 s unless set, most 10 min.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}
