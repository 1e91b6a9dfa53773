//! Single writes: what is admitted, and what each refusal is called.

use super::check::{
    Refusal, fence_is, first, grant, held_by, lacks, open, refused, seal, try_write, value_is,
    within, write,
};
use super::{Capability, Subject, resources};
use crate::GuardError;

/// A token equal to the fence, of the holder that sealed it, is admitted any number of times.
pub async fn equal_is_admitted<S: Subject>(subject: S) {
    let resource = first();
    let sealed = seal(&subject, &grant(&resource, 10)).await;
    for value in 1..4 {
        write(&subject, &sealed, &resource, value).await;
    }
    write(&subject, &sealed.clone(), &resource, 4).await;
}

/// A lower token is stale from the moment a higher one is sealed, and stays so.
pub async fn stale_is_refused<S: Subject>(subject: S) {
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    let new = seal(&subject, &grant(&resource, 12)).await;
    let stale = Refusal::Stale {
        presented: 10,
        fence: 12,
    };
    for again in ["the first write after it", "the second"] {
        refused(
            again,
            try_write(&subject, &old, &resource, 2).await,
            &resource,
            stale,
        );
        value_is(&subject, again, &resource, Some(1)).await;
    }
    write(&subject, &new, &resource, 3).await;
    refused(
        "after a new write",
        try_write(&subject, &old, &resource, 4).await,
        &resource,
        stale,
    );
    value_is(&subject, "after a stale write", &resource, Some(3)).await;
}

/// Once one clone of a sealed grant was refused as stale, all of them know it.
pub async fn stale_kills_every_clone<S: Subject>(subject: S) {
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    let clone = old.clone();
    seal(&subject, &grant(&resource, 11)).await;
    let stale = Refusal::Stale {
        presented: 10,
        fence: 11,
    };
    refused(
        "one clone",
        try_write(&subject, &old, &resource, 1).await,
        &resource,
        stale,
    );
    if !lacks::<S>(Capability::Liveness) {
        assert!(
            !subject.is_live(&old),
            "expected the refused grant to be dead, saw it alive"
        );
        assert!(
            !subject.is_live(&clone),
            "expected its clone to be dead, saw it alive"
        );
    }
    refused(
        "the other",
        try_write(&subject, &clone, &resource, 2).await,
        &resource,
        stale,
    );
    value_is(&subject, "after both", &resource, None).await;
}

/// A write that shows the sealed token under another holder's name is refused.
pub async fn another_holder_collides<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Show) {
        return;
    }
    let resource = first();
    let sealed = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &sealed, &resource, 1).await;
    let seen = within(
        &subject,
        "show",
        subject.show(&held_by(&resource, 10, 7), 2),
    )
    .await;
    refused(
        "another holder",
        seen,
        &resource,
        Refusal::Collision { token: 10 },
    );
    value_is(&subject, "after a collision", &resource, Some(1)).await;
    write(&subject, &sealed, &resource, 3).await;
}

/// A token above the fence, or without one, is refused: it is never sealed on the quiet.
pub async fn unsealed_is_refused<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Show) {
        return;
    }
    let resource = first();
    let seen = within(&subject, "show", subject.show(&grant(&resource, 10), 1)).await;
    refused(
        "no fence",
        seen,
        &resource,
        Refusal::Unsealed {
            presented: 10,
            fence: None,
        },
    );
    fence_is(&subject, &resource, None).await;
    let sealed = seal(&subject, &grant(&resource, 10)).await;
    let seen = within(&subject, "show", subject.show(&grant(&resource, 11), 1)).await;
    let unsealed = Refusal::Unsealed {
        presented: 11,
        fence: Some(10),
    };
    refused("above the fence", seen, &resource, unsealed);
    value_is(&subject, "after an unsealed write", &resource, None).await;
    fence_is(&subject, &resource, Some(&grant(&resource, 10))).await;
    let seen = within(&subject, "show", subject.show(&grant(&resource, 9), 1)).await;
    refused(
        "below it",
        seen,
        &resource,
        Refusal::Stale {
            presented: 9,
            fence: 10,
        },
    );
    let seen = within(&subject, "show", subject.show(&grant(&resource, 10), 2)).await;
    assert!(
        seen.is_ok(),
        "the sealed grant itself: expected Ok, saw {seen:?}"
    );
    write(&subject, &sealed, &resource, 3).await;
}

/// A write that has forgotten the guard is refused: before any seal, after one, and beside an open write.
pub async fn unguarded_is_refused<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Unguarded) {
        return;
    }
    let resource = first();
    let unguarded = async |step: &str| {
        let seen = within(&subject, step, subject.unguarded(&resource, 1)).await;
        refused(step, seen, &resource, Refusal::Unguarded);
        value_is(&subject, step, &resource, None).await;
    };
    unguarded("before any seal").await;
    let sealed = seal(&subject, &grant(&resource, 10)).await;
    unguarded("after a seal").await;
    drop(open(&subject, &[&sealed], &resource, 2).await);
    unguarded("after a write that was dropped").await;
    write(&subject, &sealed, &resource, 3).await;
    let seen = within(&subject, "unguarded", subject.unguarded(&resource, 4)).await;
    refused("after a write", seen, &resource, Refusal::Unguarded);
    value_is(&subject, "after a write", &resource, Some(3)).await;
}

/// A write that is guarded for one resource does not reach another's data.
pub async fn one_entry_does_not_cover_another_resource<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Unguarded) {
        return;
    }
    let [own, other, _] = resources();
    let sealed = seal(&subject, &grant(&own, 10)).await;
    let foreign = seal(&subject, &grant(&other, 10)).await;
    let mut attempt = open(&subject, &[&sealed], &own, 1).await;
    let seen = within(&subject, "put", subject.put(&mut attempt, &other, 2)).await;
    refused(
        "a write to another's register",
        seen,
        &other,
        Refusal::Unguarded,
    );
    drop(attempt);
    value_is(&subject, "after it", &other, None).await;
    write(&subject, &foreign, &other, 3).await;
}

/// Tokens are compared within one resource only.
pub async fn same_token_of_two_resources<S: Subject>(subject: S) {
    let [one, two, _] = resources();
    let in_one = seal(&subject, &grant(&one, 10)).await;
    let in_two = seal(&subject, &grant(&two, 10)).await;
    write(&subject, &in_one, &one, 1).await;
    write(&subject, &in_two, &two, 2).await;
    seal(&subject, &grant(&one, 11)).await;
    let stale = Refusal::Stale {
        presented: 10,
        fence: 11,
    };
    refused(
        "the one that was sealed",
        try_write(&subject, &in_one, &one, 3).await,
        &one,
        stale,
    );
    write(&subject, &in_two, &two, 4).await;
    value_is(&subject, "after a seal of its own", &one, Some(1)).await;
}

/// One write carries several grants, and commits as one.
pub async fn several_resources_in_one_write<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Several) {
        return;
    }
    let [one, two, three] = resources();
    let sealed = [
        seal(&subject, &grant(&one, 10)).await,
        seal(&subject, &grant(&two, 7)).await,
        seal(&subject, &grant(&three, 3)).await,
    ];
    // In an order that is nobody's.
    let mut write = open(&subject, &[&sealed[2], &sealed[0], &sealed[1]], &two, 22).await;
    for (resource, value) in [(&one, 21), (&three, 23)] {
        let seen = within(&subject, "put", subject.put(&mut write, resource, value)).await;
        assert!(seen.is_ok(), "put to {resource}: expected Ok, saw {seen:?}");
    }
    let seen = within(&subject, "commit", subject.commit(write)).await;
    assert!(
        seen.is_ok(),
        "commit of three resources: expected Ok, saw {seen:?}"
    );
    for (resource, value) in [(&one, 21), (&two, 22), (&three, 23)] {
        value_is(&subject, "after the commit", resource, Some(value)).await;
    }
}

/// A write for several resources of which one is stale commits nothing, in whatever order they are put.
pub async fn one_stale_resource_stops_the_whole_write<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Several) {
        return;
    }
    let [one, two, _] = resources();
    for (round, [fresh, stale]) in (1..).zip([[&one, &two], [&two, &one]]) {
        let (before, after) = (10 * round, 10 * round + 5);
        let good = seal(&subject, &grant(fresh, before + 1)).await;
        let old = seal(&subject, &grant(stale, before + 1)).await;
        let (good_value, old_value) = (subject.get(fresh).await, subject.get(stale).await);
        seal(&subject, &grant(stale, after)).await;
        let write = async {
            let mut write = subject.begin(&[&good, &old]).await?;
            subject.put(&mut write, fresh, 70 + round).await?;
            subject.put(&mut write, stale, 80 + round).await?;
            subject.commit(write).await
        };
        let seen: Result<(), GuardError> = within(&subject, "write", write).await;
        let expected = Refusal::Stale {
            presented: before + 1,
            fence: after,
        };
        refused("one of two is stale", seen, stale, expected);
        value_is(&subject, "of the fresh one", fresh, good_value).await;
        value_is(&subject, "of the stale one", stale, old_value).await;
        write_fresh(&subject, &good, fresh, 90 + round).await;
    }
}

/// The refusal of one grant says nothing about the other.
async fn write_fresh<S: Subject>(
    subject: &S,
    sealed: &S::Sealed,
    resource: &palisade_token::ResourceName,
    value: u64,
) {
    write(subject, sealed, resource, value).await;
}

/// A write that was not committed leaves nothing behind, and keeps neither writers nor a seal waiting.
pub async fn a_dropped_write_leaves_nothing<S: Subject>(subject: S) {
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    drop(open(&subject, &[&old], &resource, 2).await);
    value_is(&subject, "after a drop", &resource, Some(1)).await;
    write(&subject, &old, &resource, 3).await;
    drop(open(&subject, &[&old], &resource, 4).await);
    let new = seal(&subject, &grant(&resource, 11)).await;
    value_is(&subject, "after a drop and a seal", &resource, Some(3)).await;
    write(&subject, &new, &resource, 5).await;
}
