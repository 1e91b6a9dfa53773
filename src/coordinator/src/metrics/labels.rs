//! The values that labels can have: all known beforehand, so that no caller can make a new one (I13).

use crate::domain::LeaseEnd;

/// A label whose values are known beforehand.
pub(crate) trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All its values, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The value, as it is exported.
    fn value(self) -> &'static str;

    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! label {
    (
        $(#[$about:meta])*
        $name:ident as $label:literal {
            $($(#[$about_value:meta])* $value:ident = $text:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$about_value])* $value,)+
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn value(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }

            #[allow(clippy::as_conversions, reason = "the number of a variant without fields")]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// What an acquire came to.
    AcquireOutcome as "outcome" {
        /// It holds the lease, now or since an earlier try.
        Granted = "granted",
        /// Another session holds the resource, or others wait, and the request did not wait.
        Held = "held",
        /// It waited as long as it was asked to.
        WaitExpired = "wait_expired",
        /// Whoever asked is gone, gave up, gave it back, or asked again meanwhile.
        Abandoned = "abandoned",
        /// Its session has ended.
        SessionEnded = "session_ended",
        /// It could not be served as it was: bad input, wrong credentials, already held by the session.
        Refused = "refused",
        /// A limit was reached.
        Limit = "limit",
        /// The store or this coordinator was not able to serve it.
        Unavailable = "unavailable",
    }
}

label! {
    /// What a renewal of a session came to.
    RenewOutcome as "outcome" {
        /// The session lives on.
        Renewed = "renewed",
        /// It has ended.
        SessionEnded = "session_ended",
        /// Whoever asked may not renew it.
        Refused = "refused",
        /// The store or this coordinator was not able to.
        Unavailable = "unavailable",
    }
}

label! {
    /// Why a lease ended.
    EndReason as "reason" {
        /// By its holder.
        Released = "released",
        /// With its session, for want of renewal.
        Expired = "expired",
        /// By an operator.
        Revoked = "revoked",
    }
}

impl From<LeaseEnd> for EndReason {
    fn from(end: LeaseEnd) -> Self {
        match end {
            LeaseEnd::Released => Self::Released,
            LeaseEnd::Expired => Self::Expired,
            LeaseEnd::Revoked => Self::Revoked,
        }
    }
}

label! {
    /// What a call to etcd was for.
    EtcdOp as "op" {
        /// A transaction: every read and every write of keys.
        Txn = "txn",
        /// Making a lease of etcd's: opening a session.
        LeaseGrant = "lease_grant",
        /// Ending one: closing a session.
        LeaseRevoke = "lease_revoke",
        /// Asking how long one has left.
        LeaseTimeToLive = "lease_time_to_live",
        /// Renewing one.
        KeepAlive = "keep_alive",
        /// Beginning a watch.
        Watch = "watch",
    }
}

label! {
    /// How a call to etcd went.
    EtcdOutcome as "outcome" {
        /// It was answered. A transaction whose compares failed is answered, too.
        Ok = "ok",
        /// It was refused, and the connection is as good as before.
        Refused = "refused",
        /// It was not answered, or with an error that ends the connection's use.
        Broken = "broken",
    }
}
