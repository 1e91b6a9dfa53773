use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong with one conditional put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It does not arrive.
    Lost,
    /// It happens, and the answer is lost.
    Happened,
    /// It happens, is sent again by the client below, and that one's answer is told: an own 412.
    Twice,
    /// It happens, others do what they do, and the answer is lost.
    Overtaken,
    /// It does not arrive yet.
    Delayed,
    /// It met another request: nothing happens, and it looks like one that exists or has changed.
    Conflict,
    /// The client's credentials are over.
    Denied,
    /// The store does not know how.
    Unsupported,
}

/// A store in memory between which and its client the network does what it likes.
#[derive(Default)]
pub(crate) struct Faulty {
    inner: Arc<InMemory>,
    /// What others do meanwhile.
    meanwhile: Mutex<Option<BoxFuture<'static, ()>>>,
    faults: Mutex<VecDeque<Fault>>,
    reads: Mutex<VecDeque<Fault>>,
    delayed: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
}

impl Faulty {
    /// What goes wrong with the next conditional puts, in this order; then nothing.
    pub(crate) fn next(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// What goes wrong with the next reads.
    pub(crate) fn next_reads(&self, faults: &[Fault]) {
        self.reads.lock().unwrap().extend(faults);
    }

    /// Lets what was delayed arrive, and says how many of them happened.
    pub(crate) async fn arrive(&self) -> usize {
        let delayed = std::mem::take(&mut *self.delayed.lock().unwrap());
        let mut happened = 0;
        for (location, payload, options) in delayed {
            let put = self.inner.put_opts(&location, payload, options);
            happened += usize::from(put.await.is_ok());
        }
        happened
    }

    pub(crate) fn meanwhile(&self, others: BoxFuture<'static, ()>) {
        *self.meanwhile.lock().unwrap() = Some(others);
    }

    pub(crate) const fn inner(&self) -> &Arc<InMemory> {
        &self.inner
    }
}

fn timeout() -> Error {
    Error::Generic {
        store: "Faulty",
        source: Box::from("timed out"),
    }
}

fn conflict(location: &Path, mode: &PutMode) -> Error {
    let path = location.to_string();
    let source = Box::from("409 ConditionalRequestConflict");
    match mode {
        PutMode::Update(_) => Error::Precondition { path, source },
        _ => Error::AlreadyExists { path, source },
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.faults.lock().unwrap().pop_front();
        let put = || {
            self.inner
                .put_opts(location, payload.clone(), options.clone())
        };
        match fault.unwrap_or(Fault::None) {
            Fault::None => put().await,
            Fault::Lost => Err(timeout()),
            Fault::Happened => {
                put().await?;
                Err(timeout())
            }
            Fault::Overtaken => {
                put().await?;
                let meanwhile = self.meanwhile.lock().unwrap().take();
                meanwhile.unwrap().await;
                Err(timeout())
            }
            Fault::Twice => {
                put().await?;
                put().await
            }
            Fault::Delayed => {
                let delayed = (location.clone(), payload, options);
                self.delayed.lock().unwrap().push(delayed);
                Err(timeout())
            }
            Fault::Conflict => Err(conflict(location, &options.mode)),
            Fault::Denied => Err(Error::Unauthenticated {
                path: location.to_string(),
                source: Box::from("ExpiredToken"),
            }),
            Fault::Unsupported => match options.mode {
                PutMode::Update(_) => Err(Error::NotImplemented {
                    operation: "put_opts".to_owned(),
                    implementer: "Faulty".to_owned(),
                }),
                _ => put().await,
            },
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.reads.lock().unwrap().pop_front();
        if matches!(fault, Some(Fault::Lost)) {
            return Err(timeout());
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
