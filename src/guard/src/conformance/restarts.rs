//! Crashes, restores and deletions: the fence is as durable as the data, and more so.

use super::check::{
    Refusal, fence_is, first, grant, held_by, lacks, open, refused, seal, try_write, value_is,
    write,
};
use super::{Capability, Subject, resources};

/// A sealed fence and a committed write survive a crash.
pub async fn a_restart_keeps_the_fence<S: Subject>(mut subject: S) {
    if lacks::<S>(Capability::Restart) {
        return;
    }
    let [one, two, _] = resources();
    let old = seal(&subject, &grant(&one, 10)).await;
    write(&subject, &old, &one, 1).await;
    let beside = seal(&subject, &grant(&two, 5)).await;
    let new = seal(&subject, &grant(&one, 11)).await;
    subject.restart().await;
    fence_is(&subject, &one, Some(&grant(&one, 11))).await;
    fence_is(&subject, &two, Some(&grant(&two, 5))).await;
    value_is(&subject, "after a restart", &one, Some(1)).await;
    let stale = Refusal::Stale {
        presented: 10,
        fence: 11,
    };
    refused(
        "after a restart",
        try_write(&subject, &old, &one, 2).await,
        &one,
        stale,
    );
    write(&subject, &new, &one, 3).await;
    write(&subject, &beside, &two, 4).await;
    subject.restart().await;
    fence_is(&subject, &one, Some(&grant(&one, 11))).await;
    value_is(&subject, "after another", &one, Some(3)).await;
}

/// A crash in the middle of a write leaves nothing of it, and nobody who waits for it.
pub async fn a_restart_under_an_open_write<S: Subject>(mut subject: S) {
    if lacks::<S>(Capability::Restart) {
        return;
    }
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    let attempt = open(&subject, &[&old], &resource, 2).await;
    subject.restart().await;
    let new = seal(&subject, &grant(&resource, 11)).await;
    value_is(&subject, "after the crash and a seal", &resource, Some(1)).await;
    let late = subject.commit(attempt).await;
    assert!(
        late.is_err(),
        "a commit of before the crash: expected an error, saw {late:?}"
    );
    value_is(&subject, "after a late commit", &resource, Some(1)).await;
    write(&subject, &new, &resource, 3).await;
}

/// A store that was set back is found out by the holder whose seal is lost, and not sealed on the quiet.
pub async fn a_restore_is_noticed<S: Subject>(mut subject: S) {
    if lacks::<S>(Capability::Restore) {
        return;
    }
    let resource = first();
    let old = grant(&resource, 10);
    let before = seal(&subject, &old).await;
    write(&subject, &before, &resource, 1).await;
    subject.back_up().await;
    let new = grant(&resource, 11);
    let lost = seal(&subject, &new).await;
    write(&subject, &lost, &resource, 2).await;
    subject.restore().await;
    let backwards = Refusal::Backwards {
        sealed: 11,
        fence: Some(10),
    };
    for again in ["the first write after it", "the second"] {
        let seen = try_write(&subject, &lost, &resource, 3).await;
        refused(again, seen, &resource, backwards);
        fence_is(&subject, &resource, Some(&old)).await;
        value_is(&subject, again, &resource, Some(1)).await;
    }
    if !lacks::<S>(Capability::Liveness) {
        assert!(
            !subject.is_live(&lost),
            "expected the lost grant to be dead, saw it alive"
        );
    }
    let again = seal(&subject, &new).await;
    write(&subject, &again, &resource, 4).await;
}

/// The same, where the backup is older than any seal.
pub async fn a_restore_to_before_the_first_seal_is_noticed<S: Subject>(mut subject: S) {
    if lacks::<S>(Capability::Restore) {
        return;
    }
    let resource = first();
    subject.back_up().await;
    let lost = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &lost, &resource, 1).await;
    subject.restore().await;
    let seen = try_write(&subject, &lost, &resource, 2).await;
    let backwards = Refusal::Backwards {
        sealed: 10,
        fence: None,
    };
    refused("a write after the restore", seen, &resource, backwards);
    fence_is(&subject, &resource, None).await;
    value_is(&subject, "after it", &resource, None).await;
}

/// After a restore a coordinator may give the number again; the first holder of it does not write then.
pub async fn a_restore_and_another_holder_collide<S: Subject>(mut subject: S) {
    if lacks::<S>(Capability::Restore) {
        return;
    }
    let resource = first();
    subject.back_up().await;
    let lost = seal(&subject, &grant(&resource, 10)).await;
    subject.restore().await;
    let twin = held_by(&resource, 10, 7);
    let new = seal(&subject, &twin).await;
    let seen = try_write(&subject, &lost, &resource, 1).await;
    refused(
        "the first holder",
        seen,
        &resource,
        Refusal::Collision { token: 10 },
    );
    write(&subject, &new, &resource, 2).await;
    fence_is(&subject, &resource, Some(&twin)).await;
}

/// Deleting what is protected does not delete what protects it.
pub async fn deleted_data_leaves_the_fence<S: Subject>(mut subject: S) {
    if lacks::<S>(Capability::DeleteData) {
        return;
    }
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    let new = seal(&subject, &grant(&resource, 11)).await;
    write(&subject, &new, &resource, 2).await;
    subject.delete_data().await;
    value_is(&subject, "after the deletion", &resource, None).await;
    fence_is(&subject, &resource, Some(&grant(&resource, 11))).await;
    let stale = Refusal::Stale {
        presented: 10,
        fence: 11,
    };
    refused(
        "after the deletion",
        try_write(&subject, &old, &resource, 3).await,
        &resource,
        stale,
    );
    value_is(&subject, "after a stale write", &resource, None).await;
    write(&subject, &new, &resource, 4).await;
}
