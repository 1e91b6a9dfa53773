//! How long a call may take: its own deadline, kept here because the transport's answers with the wrong
//! code and ignores what it cannot read.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataMap;

use super::error::{BadField, CallError};
use super::parse::bad;
use crate::clock::{Clock, Moment, within};
use crate::config::Timeouts;
use crate::store::{Outcome, StoreError};

const HEADER: &str = "grpc-timeout";
const BOUND: &str = "1 to 8 digits and one of H M S m u n";
/// The gRPC protocol allows so many digits.
const MAX_DIGITS: usize = 8;

/// Whether an operation of a store changes something, so that an unanswered one may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// When a call's answer must have been sent.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    clock: Arc<dyn Clock>,
    at: Moment,
}

impl Deadline {
    /// The deadline of a call that came in just now and may wait besides.
    pub(super) fn of(
        headers: &MetadataMap,
        clock: &Arc<dyn Clock>,
        timeouts: &Timeouts,
        wait: Duration,
    ) -> Result<Self, BadField> {
        let allowed = timeouts.max_call.saturating_add(wait);
        let budget = match headers.get(HEADER) {
            None => timeouts.default_call.saturating_add(wait),
            Some(given) => {
                let text = given.to_str().unwrap_or_default();
                let asked = parse(text).ok_or_else(|| bad(HEADER, BOUND, format!("{given:?}")))?;
                // The answer must have arrived by then, not just been sent; of a short deadline
                // the margin is a part, so that something is left.
                let margin = timeouts.reply_margin.min(asked / 4);
                asked.min(allowed).saturating_sub(margin)
            }
        };
        Ok(Self {
            clock: Arc::clone(clock),
            at: clock.now().after(budget),
        })
    }

    /// A deadline a while from now, for what has none of its own.
    pub(super) fn within(clock: &Arc<dyn Clock>, while_: Duration) -> Self {
        Self {
            clock: Arc::clone(clock),
            at: clock.now().after(while_),
        }
    }

    /// What is left.
    pub(super) fn left(&self) -> Duration {
        self.clock.now().until(self.at)
    }

    /// When it is.
    pub(super) fn at(&self) -> Moment {
        self.at
    }

    /// Waits for a store no longer than is left.
    pub(super) async fn run<T>(
        &self,
        kind: Kind,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, CallError>
    where
        T: Send,
    {
        let left = self.left();
        if left.is_zero() {
            return Err(CallError::TooLate);
        }
        match within(&self.clock, left, work).await {
            Ok(done) => done.map_err(CallError::Store),
            Err(_) => Err(CallError::StoreSlow(match kind {
                Kind::Read => Outcome::NotApplied,
                Kind::Write => Outcome::Unknown,
            })),
        }
    }
}

/// Reads a `grpc-timeout`.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || digits.len() > MAX_DIGITS || !plain {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// What a client, or a proxy, says of how long it waits.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_timeout(input: &[u8]) {
    if let Some(asked) = std::str::from_utf8(input).ok().and_then(parse) {
        assert!(input.len() <= MAX_DIGITS + 1);
        assert!(asked <= Duration::from_secs(99_999_999 * 3600));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::metadata::MetadataMap;

    use super::{Deadline, Kind, parse};
    use crate::clock::SystemClock;
    use crate::config::Timeouts;
    use crate::service::error::CallError;
    use crate::store::Outcome;

    #[test]
    fn all_units_are_read_and_nothing_else() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            " 1S",
            "1ä",
            "ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    fn left(header: Option<&str>, wait: Duration) -> Duration {
        let mut headers = MetadataMap::new();
        if let Some(header) = header {
            headers.insert("grpc-timeout", header.parse().unwrap());
        }
        let clock = SystemClock::shared();
        Deadline::of(&headers, &clock, &Timeouts::default(), wait)
            .unwrap()
            .left()
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_comes_on_top_and_the_answer_before_the_deadline() {
        let seconds = Duration::from_secs;
        assert_eq!(left(None, Duration::ZERO), seconds(10));
        assert_eq!(left(None, seconds(30)), seconds(40));
        assert_eq!(left(Some("2S"), seconds(30)), Duration::from_millis(1900));
        assert_eq!(left(Some("40m"), Duration::ZERO), Duration::from_millis(30));
        assert_eq!(left(Some("9H"), seconds(30)), Duration::from_millis(89_900));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_write_may_have_happened_and_a_late_call_did_nothing() {
        let clock = SystemClock::shared();
        let mut headers = MetadataMap::new();
        headers.insert("grpc-timeout", "1S".parse().unwrap());
        let made = Deadline::of(&headers, &clock, &Timeouts::default(), Duration::ZERO);
        let deadline = made.unwrap();
        let never = std::future::pending::<Result<(), _>>;
        let slow = deadline.run(Kind::Write, never()).await;
        assert!(matches!(slow, Err(CallError::StoreSlow(Outcome::Unknown))));
        let late = deadline.run(Kind::Write, never()).await;
        assert!(matches!(late, Err(CallError::TooLate)));
    }
}
