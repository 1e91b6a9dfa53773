//! One endpoint of etcd: what it has shown, and how long it is left alone after it failed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::MaintenanceClient;
use tracing::{debug, info, warn};

use super::connect::{self, BoxError};
use super::link::{Context, Link};
use super::version::{self, Version};
use super::vitals::{self, Vitals};
use crate::clock::{Moment, within};
use crate::store::{self, Failure, Outcome, StoreError};

/// How long an endpoint is left alone after it failed once. It doubles with each further failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest it is left alone while others serve: a member that is replaced is back within that.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a look at an endpoint may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// An endpoint that cannot be used although it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the member is a learner")]
    Learner,
    #[error(
        "this version of etcd is too old for a coordinator that was told to be strict: update it"
    )]
    Old,
    #[error("etcd does not tell its version to a coordinator that was told to be strict")]
    Secretive,
    #[error("etcd has found that its members differ and raised its CORRUPT alarm: restore it")]
    Corrupt,
}

impl Unfit {
    fn error(self) -> StoreError {
        let failure = match self {
            Self::Corrupt => Failure::Damaged("etcd has raised its CORRUPT alarm"),
            Self::Learner | Self::Old | Self::Secretive => Failure::Unavailable,
        };
        StoreError::Failed {
            failure,
            outcome: Outcome::NotApplied,
            source: Some(Box::new(self)),
        }
    }
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    state: Mutex<State>,
    /// A connection that only vitals are asked for over: nothing is ever granted over it.
    lookout: tokio::sync::Mutex<Lookout>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    not_before: Moment,
    vitals: Option<Vitals>,
    is_healthy: bool,
    /// The version that was last warned of.
    warned: Option<String>,
}

#[derive(Default)]
struct Lookout(Option<MaintenanceClient>);

impl std::fmt::Debug for Lookout {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Lookout")
    }
}

impl Endpoint {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            state: Mutex::default(),
            lookout: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it was last seen, for people.
    pub(super) fn shown(&self) -> store::Endpoint {
        let state = self.state();
        let vitals = state.vitals.as_ref();
        store::Endpoint {
            address: bare(&self.url),
            is_healthy: state.is_healthy,
            cluster: vitals.map(|vitals| vitals.cluster),
            version: vitals.map(|vitals| vitals.version.clone()),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The cluster that it has last shown.
    pub(super) fn cluster(&self) -> Option<u64> {
        self.state().vitals.as_ref().map(|vitals| vitals.cluster)
    }

    /// Whether it led when it was last seen.
    pub(super) fn leads(&self) -> bool {
        self.state()
            .vitals
            .as_ref()
            .is_some_and(|vitals| vitals.leads)
    }

    /// Until when it is left alone.
    pub(super) fn not_before(&self) -> Moment {
        self.state().not_before
    }

    /// Takes note that it could not be used: it is left alone for a growing while.
    pub(super) fn failed(&self, now: Moment) {
        let mut state = self.state();
        let doublings = state.failures.min(16);
        let pause = FIRST_PAUSE
            .saturating_mul(1 << doublings)
            .min(LONGEST_PAUSE);
        state.failures = state.failures.saturating_add(1);
        state.not_before = now.after(pause);
        state.is_healthy = false;
        if let Some(vitals) = &mut state.vitals {
            vitals.leads = false;
        }
    }

    /// Opens a connection to grant over.
    pub(super) async fn open(&self, context: &Context) -> Result<Link, StoreError> {
        let opened = self.try_open(context).await;
        if let Err(error) = &opened {
            // Ever more seldom while it stays away.
            let failures = self.state().failures;
            if failures.is_power_of_two() || failures == 0 {
                warn!(endpoint = %self.url, %error, source = ?error, failures, "etcd endpoint not usable");
            } else {
                debug!(endpoint = %self.url, %error, source = ?error, failures, "etcd endpoint not usable");
            }
            self.failed(context.clock.now());
        }
        opened
    }

    async fn try_open(&self, context: &Context) -> Result<Link, StoreError> {
        let (link, vitals) = Box::pin(Link::open(&self.url, context.clone())).await?;
        let Some(vitals) = vitals else {
            if context.access.strict {
                return Err(Unfit::Secretive.error());
            }
            self.works();
            return Ok(link);
        };
        let fit = self.judge(&vitals, context.access.strict);
        self.saw(vitals);
        fit.map_err(Unfit::error)?;
        Ok(link)
    }

    /// Looks at it. Errors are taken note of and are of no interest besides.
    pub(super) async fn look(&self, context: &Context) -> Option<Vitals> {
        let now = context.clock.now();
        if now < self.not_before() {
            return None;
        }
        let mut lookout = self.lookout.lock().await;
        let looked = async {
            let mut maintenance = match lookout.0.take() {
                Some(maintenance) => maintenance,
                None => {
                    let opened = connect::open(&self.url, &context.access, &context.clock).await?;
                    opened.client.maintenance_client()
                }
            };
            match Vitals::of(&mut maintenance).await {
                Ok(vitals) => Ok((maintenance, Some(vitals))),
                Err(error) if vitals::is_secret(&error) => Ok((maintenance, None)),
                Err(error) => Err(BoxError::from(error)),
            }
        };
        match within(&context.clock, LOOK_LIMIT, looked).await {
            Ok(Ok((maintenance, vitals))) => {
                lookout.0 = Some(maintenance);
                let Some(vitals) = vitals else {
                    self.works();
                    return None;
                };
                // What it is told apart for counts when it is connected to.
                let _unfit = self.judge(&vitals, context.access.strict);
                self.saw(vitals.clone());
                Some(vitals)
            }
            Ok(Err(error)) => {
                debug!(endpoint = %self.url, %error, "etcd endpoint not seen");
                self.failed(context.clock.now());
                None
            }
            Err(_elapsed) => {
                debug!(endpoint = %self.url, "etcd endpoint silent");
                self.failed(context.clock.now());
                None
            }
        }
    }

    fn saw(&self, vitals: Vitals) {
        self.works();
        let mut state = self.state();
        state.is_healthy = !vitals.is_learner;
        state.vitals = Some(vitals);
    }

    fn works(&self) {
        let mut state = self.state();
        state.is_healthy = true;
        state.failures = 0;
        state.not_before = Moment::default();
    }

    /// Whether it may be used; says once of each version what that gets wrong.
    fn judge(&self, vitals: &Vitals, is_strict: bool) -> Result<(), Unfit> {
        let version = vitals.version();
        if self.is_news(&vitals.version) {
            self.warn_of(version, &vitals.version);
        }
        if vitals.is_learner {
            return Err(Unfit::Learner);
        }
        if vitals.alarms.is_corrupt {
            return Err(Unfit::Corrupt);
        }
        if is_strict && version.is_none_or(version::is_below_floor) {
            return Err(Unfit::Old);
        }
        Ok(())
    }

    /// Whether this version was not the last that was warned of.
    fn is_news(&self, version: &str) -> bool {
        let mut state = self.state();
        let is_news = state.warned.as_deref() != Some(version);
        state.warned = Some(version.to_owned());
        is_news
    }

    fn warn_of(&self, version: Option<Version>, written: &str) {
        let endpoint = &self.url;
        let Some(version) = version else {
            warn!(%endpoint, version = written, "etcd of a version that is not known");
            return;
        };
        let mut gaps = version::gaps(version).peekable();
        if gaps.peek().is_none() {
            info!(%endpoint, %version, "etcd endpoint");
        }
        for gap in gaps {
            warn!(%endpoint, %version, mended_in = gap.mended_in(), "this etcd has a known fault: {}", gap.what);
        }
    }
}

/// A URL without what it may carry of credentials.
fn bare(url: &str) -> String {
    match url.parse::<http::Uri>() {
        Ok(uri) => {
            let port = uri
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            let scheme = uri.scheme_str().unwrap_or("http");
            format!("{scheme}://{}{port}", uri.host().unwrap_or_default())
        }
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Endpoint, LONGEST_PAUSE, Unfit, bare};
    use crate::clock::Moment;
    use crate::store::etcd::vitals::{Alarms, Vitals};

    fn vitals(version: &str) -> Vitals {
        Vitals {
            cluster: 1,
            version: version.to_owned(),
            leads: true,
            is_learner: false,
            alarms: Alarms::default(),
        }
    }

    fn endpoint() -> Endpoint {
        Endpoint::new("http://127.0.0.1:1".to_owned())
    }

    #[test]
    fn who_fails_again_and_again_is_left_alone_for_ever_longer() {
        let endpoint = endpoint();
        let now = Moment(Duration::from_secs(100));
        assert!(endpoint.not_before() <= now);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            endpoint.failed(now);
            let pause = now.until(endpoint.not_before());
            assert!(
                pause > last || pause == LONGEST_PAUSE,
                "{pause:?} after {last:?}"
            );
            last = pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
        assert!(!endpoint.shown().is_healthy);
        endpoint.saw(vitals("3.5.33"));
        assert!(endpoint.not_before() <= now);
        assert!(endpoint.shown().is_healthy && endpoint.leads());
        endpoint.failed(now);
        assert!(now.until(endpoint.not_before()) < Duration::from_secs(1));
        assert!(!endpoint.leads(), "whoever fails is not gone to first");
        assert_eq!(endpoint.cluster(), Some(1), "what it has shown counts on");
    }

    #[test]
    fn each_version_is_warned_of_once() {
        let endpoint = endpoint();
        assert!(endpoint.is_news("3.4.23"));
        assert!(!endpoint.is_news("3.4.23"));
        assert!(endpoint.is_news("3.5.33"));
        assert!(!endpoint.is_news("3.5.33"));
    }

    #[test]
    fn who_is_not_fit_is_not_used() {
        let full = Alarms {
            is_full: true,
            is_corrupt: false,
        };
        let corrupt = Alarms {
            is_corrupt: true,
            ..full
        };
        let rows = [
            (vitals("3.5.33"), true, Ok(())),
            (vitals("3.4.23"), false, Ok(())),
            (vitals("3.4.23"), true, Err(Unfit::Old)),
            (vitals("3.5.13"), true, Err(Unfit::Old)),
            (vitals("unheard of"), false, Ok(())),
            (vitals("unheard of"), true, Err(Unfit::Old)),
            // It keeps what it has, and lets it go.
            (
                Vitals {
                    alarms: full,
                    ..vitals("3.5.33")
                },
                true,
                Ok(()),
            ),
            (
                Vitals {
                    alarms: corrupt,
                    ..vitals("3.5.33")
                },
                false,
                Err(Unfit::Corrupt),
            ),
            (
                Vitals {
                    is_learner: true,
                    ..vitals("3.5.33")
                },
                false,
                Err(Unfit::Learner),
            ),
        ];
        for (vitals, is_strict, fit) in rows {
            assert_eq!(endpoint().judge(&vitals, is_strict), fit, "{vitals:?}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(bare("http://user:word@[::1]:2379/x"), "http://[::1]:2379");
        assert_eq!(bare("http://etcd"), "http://etcd");
    }
}
