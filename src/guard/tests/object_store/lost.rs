use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};
use palisade_guard::GuardError;
use palisade_token::{Grant, HolderId};

use crate::{Bucket, grant, manifest};

async fn copy(bucket: &Bucket) -> PutPayload {
    let found = bucket.store.inner().get(&manifest()).await.unwrap();
    found.bytes().await.unwrap().into()
}

/// The barriers are there for this: an old holder is not let in by an old manifest.
#[tokio::test]
async fn a_manifest_that_was_set_back_alone_admits_no_old_holder() {
    let bucket = Bucket::new();
    let old = bucket.seal(10).await;
    bucket.write(&old, "first").await.unwrap();
    let backup = copy(&bucket).await;
    let new = bucket.seal(12).await;
    bucket.store.inner().put(&manifest(), backup).await.unwrap();
    for token in [10, 11] {
        let error = bucket
            .guard
            .seal(&grant("orders/eu", token))
            .await
            .unwrap_err();
        assert!(matches!(error, GuardError::Stale { fence, .. } if fence.get() == 12));
    }
    let error = bucket.write(&old, "late").await.unwrap_err();
    assert!(
        matches!(error, GuardError::Stale { fence, .. } if fence.get() == 12),
        "{error:?}"
    );
    let error = bucket.write(&new, "lost").await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { .. }),
        "{error:?}"
    );
    assert_eq!(bucket.fence().await, Some(12));
    let again = bucket.seal(12).await;
    bucket.write(&again, "second").await.unwrap();
    assert_eq!(bucket.text().await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_manifest_that_was_deleted_lowers_nothing() {
    let bucket = Bucket::new();
    let old = bucket.seal(10).await;
    let sealed = bucket.seal(11).await;
    let under_way = bucket.guard.begin(&sealed).await.unwrap();
    bucket.store.inner().delete(&manifest()).await.unwrap();
    let error = under_way.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: None, .. }),
        "{error:?}"
    );
    let error = bucket.write(&old, "late").await.unwrap_err();
    assert!(matches!(error, GuardError::Stale { .. }), "{error:?}");
    assert_eq!(bucket.fence().await, Some(11));
    let twin = Grant {
        holder: HolderId::from_bytes([99; 16]),
        ..grant("orders/eu", 11)
    };
    let error = bucket.guard.seal(&twin).await.unwrap_err();
    assert!(matches!(error, GuardError::Collision { .. }), "{error:?}");
    let again = bucket.seal(11).await;
    bucket.write(&again, "text").await.unwrap();
}

/// Every seal leaves one barrier, and sealing again no second one.
#[tokio::test]
async fn barriers_are_made_once_and_kept() {
    let bucket = Bucket::new();
    for token in [10, 10, 11, 15, 15] {
        bucket.seal(token).await;
    }
    let folder = object_store::path::Path::from("tables/orders!eu/barrier");
    let found = bucket
        .store
        .inner()
        .list_with_delimiter(Some(&folder))
        .await
        .unwrap();
    let names: Vec<_> = found
        .objects
        .iter()
        .filter_map(|meta| meta.location.filename())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names[2].starts_with("00000000000000000015-0f0f"),
        "{names:?}"
    );
}

/// What is no manifest admits nobody.
#[tokio::test]
async fn a_manifest_that_cannot_be_read_admits_nobody() {
    let bucket = Bucket::new();
    let sealed = bucket.seal(10).await;
    for bad in ["", "{}", "null", "{\"format\":9}"] {
        bucket
            .store
            .inner()
            .put(&manifest(), bad.into())
            .await
            .unwrap();
        assert!(bucket.write(&sealed, "text").await.is_err(), "{bad}");
        assert!(
            bucket.guard.seal(&grant("orders/eu", 11)).await.is_err(),
            "{bad}"
        );
    }
}

/// Names that differ in `/` only, or look like parts of one another, share nothing.
#[tokio::test]
async fn resources_do_not_meet() {
    let bucket = Bucket::new();
    for (token, name) in (10..).zip(["a", "a/manifest", "a/barrier", "a-b", "a/b", "a/data/b"]) {
        let held = grant(name, token);
        let sealed = bucket.guard.seal(&held).await.unwrap();
        let mut write = bucket.guard.begin(&sealed).await.unwrap();
        write.put(name.to_owned()).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(
            bucket
                .guard
                .fence(&held.resource)
                .await
                .unwrap()
                .unwrap()
                .token,
            held.token
        );
    }
}
