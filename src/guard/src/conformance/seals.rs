//! Seals without writers: the fence only rises, and each number has one holder.

use futures::future;

use super::Subject;
use super::check::{
    Refusal, fence_is, first, grant, held_by, refused, seal, try_seal, try_write, write,
};
use crate::GuardError;

/// How many seal at once.
const SEALERS: u64 = 6;

/// Sealing the same grant again is no more than asking.
pub async fn sealing_again_changes_nothing<S: Subject>(subject: S) {
    let resource = first();
    let once = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &once, &resource, 1).await;
    let twice = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &twice, &resource, 2).await;
    write(&subject, &once, &resource, 3).await;
    fence_is(&subject, &resource, Some(&grant(&resource, 10))).await;
}

/// A seal below the fence is stale, and lowers nothing.
pub async fn a_lower_seal_is_refused<S: Subject>(subject: S) {
    let resource = first();
    let held = grant(&resource, 10);
    let sealed = seal(&subject, &held).await;
    for lower in [1, 9] {
        let seen = try_seal(&subject, &grant(&resource, lower)).await.map(drop);
        let stale = Refusal::Stale {
            presented: lower,
            fence: 10,
        };
        refused("a lower seal", seen, &resource, stale);
        fence_is(&subject, &resource, Some(&held)).await;
    }
    write(&subject, &sealed, &resource, 1).await;
}

/// A second holder of one number cannot seal it.
pub async fn a_seal_of_another_holder_collides<S: Subject>(subject: S) {
    let resource = first();
    let held = grant(&resource, 10);
    let sealed = seal(&subject, &held).await;
    let seen = try_seal(&subject, &held_by(&resource, 10, 7))
        .await
        .map(drop);
    refused(
        "another holder's seal",
        seen,
        &resource,
        Refusal::Collision { token: 10 },
    );
    fence_is(&subject, &resource, Some(&held)).await;
    write(&subject, &sealed, &resource, 1).await;
}

/// Of many seals at once the greatest wins; the others are sealed before it, or stale.
pub async fn concurrent_seals_have_one_winner<S: Subject>(subject: S) {
    let resource = first();
    let greatest = 10 + SEALERS;
    let grants: Vec<_> = (11..=greatest)
        .map(|token| grant(&resource, token))
        .collect();
    let seals = grants.iter().map(|grant| try_seal(&subject, grant));
    for (grant, seen) in grants.iter().zip(future::join_all(seals).await) {
        let token = grant.token.get();
        match seen {
            Ok(sealed) if token == greatest => write(&subject, &sealed, &resource, token).await,
            Ok(sealed) => {
                let seen = try_write(&subject, &sealed, &resource, token).await;
                let stale = Refusal::Stale {
                    presented: token,
                    fence: greatest,
                };
                refused("a write of a loser", seen, &resource, stale);
            }
            Err(GuardError::Stale {
                presented, fence, ..
            }) if presented == grant.token && fence > presented => {}
            Err(error) => panic!("seal {token}: expected Ok or Stale, saw {error:?}"),
        }
    }
    fence_is(&subject, &resource, Some(&grant(&resource, greatest))).await;
}

/// Of two holders of one number that seal at once, one wins.
pub async fn concurrent_holders_of_one_token_have_one_winner<S: Subject>(subject: S) {
    let resource = first();
    let mut winner = None;
    let grants: Vec<_> = (0..4).map(|twin| held_by(&resource, 10, twin)).collect();
    let seals = grants.iter().map(|grant| try_seal(&subject, grant));
    for (grant, seen) in grants.iter().zip(future::join_all(seals).await) {
        match seen {
            Ok(sealed) => {
                let earlier = winner.replace((grant, sealed));
                let earlier = earlier.map(|(grant, _)| grant);
                assert!(
                    earlier.is_none(),
                    "expected one winner, saw {grant} and {earlier:?}"
                );
            }
            error => refused(
                "a loser",
                error.map(drop),
                &resource,
                Refusal::Collision { token: 10 },
            ),
        }
    }
    let (grant, sealed) = winner.expect("expected one winner, saw none");
    fence_is(&subject, &resource, Some(grant)).await;
    write(&subject, &sealed, &resource, 1).await;
}
