//! Error reasons as they travel in `ErrorInfo.reason` and [`Refusal::reason`](crate::Refusal::reason).

use crate::v1::ErrorReason;

const PREFIX: &str = "ERROR_REASON_";

impl ErrorReason {
    /// The text that `ErrorInfo.reason` carries: the value's name without its prefix.
    ///
    /// ```
    /// use palisade_api::ErrorReason;
    ///
    /// assert_eq!(ErrorReason::SessionEnded.reason(), "SESSION_ENDED");
    /// ```
    #[must_use]
    pub fn reason(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    /// The value whose [`reason`](Self::reason) is `text`; `None` for a reason that this version does not
    /// know, where the caller goes by the status code alone.
    ///
    /// ```
    /// use palisade_api::ErrorReason;
    ///
    /// assert_eq!(ErrorReason::from_reason("LEASE_HELD"), Some(ErrorReason::LeaseHeld));
    /// assert_eq!(ErrorReason::from_reason("UNSPECIFIED"), None);
    /// assert_eq!(ErrorReason::from_reason("FROM_THE_FUTURE"), None);
    /// ```
    #[must_use]
    pub fn from_reason(text: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{text}"))
            .filter(|reason| *reason != Self::Unspecified)
    }
}
