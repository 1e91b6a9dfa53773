//! What a key that is shown meets, as pure code. PostgreSQL decides the same in SQL, under its locks, and a
//! property test holds the two against each other.

use std::time::SystemTime;

use palisade_token::Grant;

use super::{Fingerprint, IdempotencyKey, KeyPolicy};

/// What a store knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What was asked for.
    pub fingerprint: Fingerprint,
    /// How far it has come.
    pub state: KeyState,
}

/// How far the effect of a key has come.
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
#[must_use]
pub fn keep_until(key: &IdempotencyKey, policy: &KeyPolicy, now: SystemTime) -> Option<SystemTime> {
    let made = key.made_at().unwrap_or(now).max(now);
    let from = made.min(now.checked_add(KeyPolicy::MOST_AHEAD)?);
    from.checked_add(policy.answer_lifetime())
}

/// Says whether a key that is *not known* is too old to be taken for new: it tells when it was made, and what
/// was done under it then may have been purged since.
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
