//! What a key that is shown meets, as pure code. PostgreSQL decides the same in SQL, under its locks, and a
//! property test holds the two against each other.

use std::time::SystemTime;

use palisade_token::Grant;

use super::{Fingerprint, IdempotencyKey, KeyPolicy};

/// What a store knows of a key.
///
/// ```
/// use palisade_guard::effects::{Fingerprint, KeyState, Known};
///
/// let asked = Fingerprint::of(&[("order", b"7"), ("amount", b"100")]);
/// let known = Known { fingerprint: asked, state: KeyState::Done };
/// assert_ne!(known.fingerprint, Fingerprint::of(&[("order", b"7"), ("amount", b"101")]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What was asked for.
    pub fingerprint: Fingerprint,
    /// How far it has come.
    pub state: KeyState,
}

/// How far the effect of a key has come.
///
/// ```
/// # use std::time::{Duration, SystemTime};
/// # use palisade_guard::effects::{Claim, Fingerprint, KeyState, Known, claim};
/// # use palisade_token::Grant;
/// # let asked = Fingerprint::of(&[("amount", b"100")]);
/// let by: Grant = "orders#41#000102030405060708090a0b0c0d0e0f".parse()?;
/// let next: Grant = "orders#42#101112131415161718191a1b1c1d1e1f".parse()?;
/// let now = SystemTime::UNIX_EPOCH;
/// let until = now + Duration::from_secs(60);
/// let known = Known { fingerprint: asked, state: KeyState::Begun { by: by.clone(), until } };
/// // The same holder waits for its time to be over; who has sealed after it does not.
/// assert_eq!(claim(&by, &asked, Some(&known), true, now), Claim::InProgress);
/// assert_eq!(claim(&by, &asked, Some(&known), true, until), Claim::TakenOver);
/// assert_eq!(claim(&next, &asked, Some(&known), true, now), Claim::TakenOver);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// An attempt was begun, and not finished.
    Begun {
        /// The grant under which it was begun last.
        by: Grant,
        /// When the same holder may begin it again.
        until: SystemTime,
    },
    /// It is done, and its answer is kept.
    Done,
}

/// What a key that is shown meets.
///
/// ```
/// use palisade_guard::effects::Claim;
///
/// fn what_to_do(claim: Claim) -> &'static str {
///     match claim {
///         Claim::Claimed | Claim::TakenOver => "do it, and keep its answer",
///         Claim::Replayed => "give the answer that is kept",
///         Claim::InProgress => "ask again later",
///         Claim::Mismatch => "refuse: the key belongs to another request",
///         Claim::Expired => "refuse: find out first whether it was done",
///     }
/// }
/// assert_eq!(what_to_do(Claim::Replayed), "give the answer that is kept");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It was not known, and is claimed now.
    Claimed,
    /// Its attempt was begun by another, or earlier, and is begun again now.
    TakenOver,
    /// It is done: its answer is replayed.
    Replayed,
    /// Its attempt is under way.
    InProgress,
    /// It was used for another request.
    Mismatch,
    /// It was made so long ago that its answer may have been kept and purged.
    Expired,
}

/// Says what a key meets that is shown in a transaction of `grant`, which was admitted: the fence of its
/// resource is at its token. `as_attempt` says that it is to be begun now and finished in a later
/// transaction.
///
/// An attempt that was begun is taken over only within its own resource: by a greater token (its own can
/// never be written with again), or by the same grant when its time is over. Time alone takes nothing over,
/// and the fence of another resource says nothing about it.
///
/// ```
/// # use std::time::SystemTime;
/// use palisade_guard::effects::{Claim, Fingerprint, KeyState, Known, claim};
///
/// let now = SystemTime::UNIX_EPOCH; // the store's clock
/// let grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// let asked = Fingerprint::of(&[("amount", b"100")]);
/// assert_eq!(claim(&grant, &asked, None, false, now), Claim::Claimed);
/// let known = Known { fingerprint: asked, state: KeyState::Done };
/// assert_eq!(claim(&grant, &asked, Some(&known), false, now), Claim::Replayed);
/// let other = Fingerprint::of(&[("amount", b"101")]);
/// assert_eq!(claim(&grant, &other, Some(&known), false, now), Claim::Mismatch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn claim(
    grant: &Grant,
    fingerprint: &Fingerprint,
    known: Option<&Known>,
    as_attempt: bool,
    now: SystemTime,
) -> Claim {
    let Some(known) = known else {
        return Claim::Claimed;
    };
    if known.fingerprint != *fingerprint {
        return Claim::Mismatch;
    }
    match &known.state {
        KeyState::Done => Claim::Replayed,
        KeyState::Begun { by, until } => {
            let is_outlived = by.token < grant.token || (by == grant && *until <= now);
            if as_attempt && by.resource == grant.resource && is_outlived {
                Claim::TakenOver
            } else {
                Claim::InProgress
            }
        }
    }
}

/// Says until when the answer of a key is kept that is given `now`. A key that tells when it was made is kept
/// until its own age is the lifetime, at least; unless it says that it is from a time more than
/// [`KeyPolicy::MOST_AHEAD`] from now.
///
/// ```
/// # use std::time::{Duration, SystemTime};
/// use palisade_guard::effects::{IdempotencyKey, KeyPolicy, keep_until};
///
/// let policy = KeyPolicy::new().with_answer_lifetime(Duration::from_secs(3600));
/// let key = IdempotencyKey::new("tenant-7", "charge", "5f0c8d1e42aa7b90")?;
/// let now = SystemTime::UNIX_EPOCH; // the store's clock
/// assert_eq!(keep_until(&key, &policy, now), Some(now + Duration::from_secs(3600)));
/// # Ok::<(), palisade_guard::effects::KeyError>(())
/// ```
#[must_use]
pub fn keep_until(key: &IdempotencyKey, policy: &KeyPolicy, now: SystemTime) -> Option<SystemTime> {
    let made = key.made_at().unwrap_or(now).max(now);
    let from = made.min(now.checked_add(KeyPolicy::MOST_AHEAD)?);
    from.checked_add(policy.answer_lifetime())
}

/// Says whether a key that is *not known* is too old to be taken for new: it tells when it was made, and what
/// was done under it then may have been purged since.
///
/// ```
/// use palisade_guard::effects::{IdempotencyKey, KeyPolicy, is_expired};
///
/// let policy = KeyPolicy::new();
/// let key = IdempotencyKey::new("tenant-7", "charge", "01977d1e-9d2c-7e5e-8a6c-0c9b1f6f3a10")?;
/// let made = key.made_at().expect("a UUID of version 7");
/// assert!(!is_expired(&key, &policy, made));
/// assert!(is_expired(&key, &policy, made + policy.answer_lifetime()));
/// let undated = IdempotencyKey::new("tenant-7", "charge", "5f0c8d1e42aa7b90")?;
/// assert!(!is_expired(&undated, &policy, made + policy.answer_lifetime()));
/// # Ok::<(), palisade_guard::effects::KeyError>(())
/// ```
#[must_use]
pub fn is_expired(key: &IdempotencyKey, policy: &KeyPolicy, now: SystemTime) -> bool {
    key.made_at()
        .and_then(|made| made.checked_add(policy.answer_lifetime()))
        .is_some_and(|end| end <= now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use palisade_token::{FencingToken, HolderId, ResourceName};
    use proptest::prelude::*;

    use super::*;

    fn grants() -> impl Strategy<Value = Grant> {
        (0..2_usize, 1..5_u64, 0..2_u8).prop_map(|(resource, token, holder)| Grant {
            resource: ResourceName::new(["a", "b"][resource]).unwrap(),
            token: FencingToken::new(token).unwrap(),
            holder: HolderId::from_bytes([holder; 16]),
        })
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Else a wrong clock would fill the table with what is never purged.
    #[test]
    fn a_key_from_a_far_future_is_not_kept_until_then() {
        let key = IdempotencyKey::new("t", "o", "ffffffff-ffff-7fff-8fff-ffffffffffff").unwrap();
        let policy = KeyPolicy::new().with_answer_lifetime(Duration::from_secs(100));
        let kept = keep_until(&key, &policy, at(1000)).unwrap();
        assert_eq!(kept, at(1100) + KeyPolicy::MOST_AHEAD);
    }

    proptest! {
        /// I14: what was begun under one resource is never taken over because of another's fence, nor by
        /// time alone, nor by a token below its own.
        #[test]
        fn an_attempt_is_taken_over_within_its_resource_only(
            by in grants(), grant in grants(), until in 0..4_u64, now in 0..4_u64, as_attempt: bool,
        ) {
            let asked = Fingerprint::of(&[]);
            let state = KeyState::Begun { by: by.clone(), until: at(until) };
            let known = Known { fingerprint: asked, state };
            let claim = claim(&grant, &asked, Some(&known), as_attempt, at(now));
            if claim == Claim::TakenOver {
                prop_assert!(as_attempt);
                prop_assert_eq!(&by.resource, &grant.resource);
                prop_assert!(by.token <= grant.token);
                prop_assert!(by.token < grant.token || (by == grant && until <= now));
            } else {
                prop_assert_eq!(claim, Claim::InProgress);
                prop_assert!(!as_attempt || by.resource != grant.resource || by.token >= grant.token);
            }
        }

        #[test]
        fn what_is_asked_is_compared_before_anything_is_replayed(grant in grants(), as_attempt: bool) {
            let done = Known { fingerprint: Fingerprint::of(&[("a", b"1")]), state: KeyState::Done };
            let same = claim(&grant, &done.fingerprint, Some(&done), as_attempt, at(1));
            prop_assert_eq!(same, Claim::Replayed);
            let other = claim(&grant, &Fingerprint::of(&[]), Some(&done), as_attempt, at(1));
            prop_assert_eq!(other, Claim::Mismatch);
        }

        /// A key is refused from the moment on at which its answer might be gone, whatever the clock of its
        /// maker has shown.
        #[test]
        fn no_key_is_new_again_after_its_answer_was_purged(
            made in 0..400_u64, first in 0..400_u64, lifetime in 1..200_u64, later in 0..800_u64,
        ) {
            let text = format!("{:08x}-{:04x}-7000-8000-000000000000", (made * 1000) >> 16, (made * 1000) & 0xffff);
            let key = IdempotencyKey::new("t", "o", &text).unwrap();
            prop_assert_eq!(key.made_at(), Some(at(made)));
            let policy = KeyPolicy::new().with_answer_lifetime(Duration::from_secs(lifetime));
            let kept = keep_until(&key, &policy, at(first)).unwrap();
            let is_purged = kept < at(later);
            prop_assert!(!is_purged || is_expired(&key, &policy, at(later)));
        }
    }
}
