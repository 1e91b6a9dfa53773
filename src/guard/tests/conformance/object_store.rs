use std::fmt;
use std::sync::Arc;

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use palisade_guard::GuardError;
use palisade_guard::conformance::{Capability, Subject, resources};
use palisade_guard::decide::Mark;
use palisade_guard::object_store::{Guard, GuardedWrite, Sealed};
use palisade_token::{Grant, ResourceName};

use crate::broken::{Check, PATIENCE, PAUSE, UNCHECKED, fails, pass};

palisade_guard::conformance_tests!(
    #[tokio::test]
    Objects::fresh
);

/// Some servers that call themselves compatible ignore the condition.
#[tokio::test]
async fn on_a_store_that_ignores_conditions_it_fails() {
    let cases: &[_] = &[
        "a_running_writer_commits_before_the_seal_returns_or_never",
        "a_writer_that_has_only_begun_writes_before_the_seal_returns_or_never",
    ];
    fails(|| Objects::with(Check::BeforeTheWrite), &[cases]).await;
}

/// The token of the writer in the object's own metadata, and no compare-and-swap.
#[tokio::test]
async fn with_tokens_in_paths_only_it_fails() {
    let with_several = "one_stale_resource_stops_the_whole_write";
    let cases: Vec<_> = UNCHECKED
        .iter()
        .copied()
        .filter(|case| *case != with_several)
        .collect();
    fails(|| Objects::with(Check::Never), &[&cases]).await;
}

/// What is in the store, by its whole contents.
struct Objects {
    store: Arc<InMemory>,
    /// The store as the guard sees it.
    seen: Arc<dyn ObjectStore>,
    backup: InMemory,
    guard: Guard,
    check: Check,
}

struct Write {
    guarded: Option<GuardedWrite>,
    value: Option<(ResourceName, u64)>,
}

impl Objects {
    async fn fresh() -> Self {
        Self::with(Check::Whole).await
    }

    async fn with(check: Check) -> Self {
        tokio::task::yield_now().await;
        Self::over(InMemory::new(), check)
    }

    fn over(store: InMemory, check: Check) -> Self {
        let store = Arc::new(store);
        let seen: Arc<dyn ObjectStore> = match check {
            Check::BeforeTheWrite => Arc::new(Unconditional(Arc::clone(&store))),
            _ => Arc::<InMemory>::clone(&store),
        };
        Self {
            store,
            backup: InMemory::new(),
            guard: Guard::new(Arc::clone(&seen), "tables"),
            seen,
            check,
        }
    }

    fn plain(resource: &ResourceName) -> Path {
        Path::from(format!("plain/{resource}"))
    }
}

impl Subject for Objects {
    /// Each object is written by itself; whoever may write them may go round.
    const LACKS: &'static [Capability] =
        &[Capability::Unguarded, Capability::Show, Capability::Several];

    type Sealed = Sealed;
    type Write = Write;

    async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        self.guard.seal(grant).await
    }

    async fn begin(&self, sealed: &[&Sealed]) -> Result<Write, GuardError> {
        let guarded = match self.check {
            Check::Never => None,
            _ => Some(self.guard.begin(sealed[0]).await?),
        };
        Ok(Write {
            guarded,
            value: None,
        })
    }

    async fn put(
        &self,
        write: &mut Write,
        resource: &ResourceName,
        value: u64,
    ) -> Result<(), GuardError> {
        write.value = Some((resource.clone(), value));
        if let Some(guarded) = &mut write.guarded {
            assert_eq!(guarded.grant().resource, *resource);
            guarded.put(value.to_string()).await?;
        }
        Ok(())
    }

    async fn commit(&self, write: Write) -> Result<(), GuardError> {
        if let Some(guarded) = write.guarded {
            return guarded.commit().await.map(drop);
        }
        let (resource, value) = write.value.unwrap();
        let path = Self::plain(&resource);
        let put = self.store.put(&path, value.to_string().into());
        put.await
            .map(drop)
            .map_err(|error| GuardError::Backend(Box::new(error)))
    }

    async fn get(&self, resource: &ResourceName) -> Option<u64> {
        let path = match self.check {
            Check::Never => Self::plain(resource),
            _ => self.guard.published(resource).await.unwrap()?,
        };
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return None,
            found => found.unwrap().bytes().await.unwrap(),
        };
        Some(std::str::from_utf8(&found).unwrap().parse().unwrap())
    }

    async fn fence(&self, resource: &ResourceName) -> Option<Mark> {
        self.guard.fence(resource).await.unwrap()
    }

    async fn patience(&self) {
        pass(PATIENCE).await;
    }

    async fn pause(&self) {
        pass(PAUSE).await;
    }

    fn is_live(&self, sealed: &Sealed) -> bool {
        sealed.is_live()
    }

    /// Nothing of the guard is outside the store.
    async fn restart(&mut self) {
        self.guard = Guard::new(Arc::clone(&self.seen), "tables");
    }

    async fn back_up(&mut self) {
        self.backup = self.store.fork();
    }

    async fn restore(&mut self) {
        *self = Self::over(self.backup.fork(), self.check);
    }

    async fn delete_data(&mut self) {
        for resource in resources() {
            if let Some(data) = self.guard.published(&resource).await.unwrap() {
                self.store.delete(&data).await.unwrap();
            }
            self.store.delete(&Self::plain(&resource)).await.unwrap();
        }
    }
}

/// Takes conditional updates for plain ones.
#[derive(Debug)]
struct Unconditional(Arc<InMemory>);

impl fmt::Display for Unconditional {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Unconditional")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Unconditional {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        // Others get their turn between a look and the write.
        tokio::task::yield_now().await;
        if matches!(options.mode, PutMode::Update(_)) {
            options.mode = PutMode::Overwrite;
        }
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
