use std::time::SystemTime;

use palisade_token::{FencingToken, HolderId, ResourceName};

/// The fence of a resource, as a person or a tool looks at it. Comparing with it is no check: the
/// answer is old when it arrives.
///
/// ```
/// use palisade_guard::sqlite::Guard;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("app.db");
/// # let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
/// # let pool = sqlx::SqlitePool::connect_with(options.create_if_missing(true)).await?;
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
///
/// let guard = Guard::new();
/// guard.install(&pool).await?;
/// assert_eq!(guard.fence(&pool, &grant.resource).await?, None);
///
/// guard.seal(&pool, &grant).await?;
/// let fence = guard.fence(&pool, &grant.resource).await?.ok_or("it was sealed")?;
/// assert_eq!((fence.token, fence.holder), (grant.token, grant.holder));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fence {
    /// What is protected.
    pub resource: ResourceName,
    /// The token that was last sealed.
    pub token: FencingToken,
    /// The hold that sealed it.
    pub holder: HolderId,
    /// When it was sealed, by the store's clock. Orders nothing.
    pub sealed_at: SystemTime,
}

impl Fence {
    /// Reads what a store holds; `None` if that is no fence.
    pub(crate) fn from_store(
        resource: &ResourceName,
        token: i64,
        holder: &str,
        sealed_at_micros: i64,
    ) -> Option<Self> {
        let since_epoch = std::time::Duration::from_micros(sealed_at_micros.try_into().ok()?);
        Some(Self {
            resource: resource.clone(),
            token: token.try_into().ok()?,
            holder: holder.parse().ok()?,
            sealed_at: SystemTime::UNIX_EPOCH.checked_add(since_epoch)?,
        })
    }
}
