//! What every guarded store must do, as tests that every implementation runs: ours and yours.
//!
//! A store takes part through a [`Subject`]: a fresh store of its own for each case, and the few
//! operations that the cases are made of. Then one line makes a test of every case, so that a failure
//! names it:
//!
//! ```
//! // tests/conformance.rs, with palisade-guard's feature `conformance` in [dev-dependencies]
//! # use std::{collections::HashMap, sync::Mutex, time::Duration};
//! # use palisade_guard::{GuardError, decide::Mark};
//! # use palisade_token::{Grant, ResourceName};
//! use palisade_guard::conformance::{Capability, Subject};
//! use palisade_guard::memory::{FenceTable, OwnedPermit, Sealed, Volatile};
//!
//! struct MyStore { fences: FenceTable<Volatile>, values: Mutex<HashMap<ResourceName, u64>> }
//! struct Write {
//!     permits: Vec<OwnedPermit>,
//!     covers: Vec<ResourceName>,
//!     puts: Vec<(ResourceName, u64)>,
//! }
//! # impl MyStore {
//! #     async fn fresh() -> Self {
//! #         Self { fences: FenceTable::new(Volatile), values: Mutex::default() }
//! #     }
//! # }
//! impl Subject for MyStore {
//!     const LACKS: &'static [Capability] = &[
//!         Capability::Unguarded, // no write goes round: it needs a permit
//!         Capability::Restart, Capability::Restore, Capability::DeleteData, // keeps nothing
//!         Capability::Show, Capability::Liveness,
//!     ];
//!     type Sealed = Sealed;
//!     type Write = Write;
//!
//!     async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
//!         self.fences.seal(grant).await
//!     }
//!     async fn begin(&self, sealed: &[&Sealed]) -> Result<Write, GuardError> {
//!         let permits = self.fences.enter_all(sealed)?;
//!         let covers = sealed.iter().map(|sealed| sealed.grant().resource.clone()).collect();
//!         Ok(Write { permits, covers, puts: Vec::new() })
//!     }
//!     async fn put(&self, write: &mut Write, of: &ResourceName, value: u64)
//!         -> Result<(), GuardError> {
//!         if !write.covers.contains(of) {
//!             return Err(GuardError::Unguarded { resource: of.to_string(), table: None });
//!         }
//!         write.puts.push((of.clone(), value));
//!         Ok(())
//!     }
//!     async fn commit(&self, write: Write) -> Result<(), GuardError> {
//!         self.values.lock().unwrap().extend(write.puts);
//!         drop(write.permits); // only now may a seal go on
//!         Ok(())
//!     }
//! #   async fn get(&self, of: &ResourceName) -> Option<u64> {
//! #       self.values.lock().unwrap().get(of).copied()
//! #   }
//! #   async fn fence(&self, of: &ResourceName) -> Option<Mark> { self.fences.fence(of) }
//! #   async fn patience(&self) { tokio::time::sleep(Duration::from_secs(30)).await }
//! #   async fn pause(&self) { tokio::time::sleep(Duration::from_millis(5)).await }
//!     // … get, fence, patience, pause
//! }
//!
//! palisade_guard::conformance_tests!(#[tokio::test] MyStore::fresh);
//! // Or all of them in one test:
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! palisade_guard::conformance::run_all(MyStore::fresh).await;
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The attribute is that of your runtime's tests; the suite itself needs none. [`run_all`] runs the same
//! cases one after the other in one test, for stores that are dear to start. The sources have subjects
//! for every store of this crate (`tests/conformance`).
//!
//! # What a subject is
//!
//! A register for each of three [`resources`], each guarded for its own name: [`Subject::put`] sets one
//! in a guarded write, [`Subject::get`] reads what is committed. No method may block the thread: the cases
//! run several at once on one task, and never spawn.
//!
//! What a store cannot do by its nature is named in [`Subject::LACKS`], and the cases that need it pass
//! without a look. A method that is missing without being named there fails its cases.
//!
//! # Time
//!
//! No case depends on speed. A wait that must end is given up after [`Subject::patience`], which fails the
//! case. [`Subject::pause`] lets what is under way get as far as it can: a longer one makes the suite
//! keener, a shorter one never makes it wrong.
//!
//! # That the suite bites
//!
//! Take the check out of your store and see the suite fail: [`verdicts`] gives the cases' names and what
//! they saw. For each store of this crate a test does so.

mod check;
mod restarts;
mod running;
mod seals;
mod writes;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use palisade_token::{Grant, ResourceName};

use crate::GuardError;
use crate::decide::Mark;

pub use restarts::*;
pub use running::*;
pub use seals::*;
pub use writes::*;

/// What a store may lack by its nature ([`Subject::LACKS`]).
///
/// ```
/// use palisade_guard::conformance::Capability;
///
/// // Of a cache that guards who asks, one resource at a time, and keeps nothing over a restart:
/// const LACKS: &[Capability] = &[
///     Capability::Unguarded,
///     Capability::Several,
///     Capability::Restart,
///     Capability::Restore,
///     Capability::DeleteData,
/// ];
/// assert!(!LACKS.contains(&Capability::Liveness)); // so `Subject::is_live` is there
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Refusing writes that go round the guard: [`Subject::unguarded`]. A store that lacks it guards
    /// only those who ask.
    Unguarded,
    /// A way to show a grant without a seal, as other languages have: [`Subject::show`].
    Show,
    /// Several resources in one write.
    Several,
    /// Telling whether a sealed grant is still alive in this process: [`Subject::is_live`].
    Liveness,
    /// Keeping anything over a restart: [`Subject::restart`].
    Restart,
    /// Being set back to an older state: [`Subject::back_up`] and [`Subject::restore`].
    Restore,
    /// Losing its data without its fence: [`Subject::delete_data`].
    DeleteData,
}

/// A store under test: empty, with nothing sealed, and used by one case only.
///
/// ```
/// # use palisade_guard::{GuardError, conformance::Subject};
/// # use palisade_token::Grant;
/// /// A case of your own, beside those of the suite.
/// async fn the_last_write_is_read<S: Subject>(store: S, grant: &Grant) -> Result<(), GuardError> {
///     let sealed = store.seal(grant).await?;
///     let mut write = store.begin(&[&sealed]).await?;
///     store.put(&mut write, &grant.resource, 7).await?;
///     store.commit(write).await?;
///     assert_eq!(store.get(&grant.resource).await, Some(7));
///     Ok(())
/// }
/// ```
pub trait Subject: Sized {
    /// What this store cannot do.
    const LACKS: &'static [Capability] = &[];

    /// What sealing gives, and writing needs.
    type Sealed: Clone;

    /// A guarded write under way. Dropped, it leaves nothing.
    type Write;

    /// Seals a grant.
    fn seal(&self, grant: &Grant) -> impl Future<Output = Result<Self::Sealed, GuardError>>;

    /// Opens a guarded write, for one resource or (unless it lacks [`Capability::Several`]) for several.
    /// A grant that is refused may be refused here, or as late as in [`Subject::commit`].
    fn begin(
        &self,
        sealed: &[&Self::Sealed],
    ) -> impl Future<Output = Result<Self::Write, GuardError>>;

    /// Sets the register of a resource within the write.
    fn put(
        &self,
        write: &mut Self::Write,
        resource: &ResourceName,
        value: u64,
    ) -> impl Future<Output = Result<(), GuardError>>;

    /// Commits the write. `Ok` means that it happened.
    fn commit(&self, write: Self::Write) -> impl Future<Output = Result<(), GuardError>>;

    /// The committed value of a register, `None` if it was never set. It reads what any commit that was
    /// answered before has written.
    fn get(&self, resource: &ResourceName) -> impl Future<Output = Option<u64>>;

    /// Where the fence of a resource is.
    fn fence(&self, resource: &ResourceName) -> impl Future<Output = Option<Mark>>;

    /// Ready when a wait has been in vain: long enough for a busy machine, such as 30 s.
    fn patience(&self) -> impl Future<Output = ()>;

    /// Ready when what was begun has had time to get as far as it can, such as 100 ms.
    fn pause(&self) -> impl Future<Output = ()>;

    /// Sets a register going round the guard: a plain statement, a connection that has forgotten it.
    fn unguarded(
        &self,
        resource: &ResourceName,
        value: u64,
    ) -> impl Future<Output = Result<(), GuardError>> {
        let _given = (resource, value);
        missing("unguarded", Capability::Unguarded)
    }

    /// Sets a register in a write that shows a grant which this process has not sealed: the whole write,
    /// as another language would do it.
    fn show(&self, grant: &Grant, value: u64) -> impl Future<Output = Result<(), GuardError>> {
        let _given = (grant, value);
        missing("show", Capability::Show)
    }

    /// Says whether a sealed grant has not been refused yet.
    fn is_live(&self, sealed: &Self::Sealed) -> bool {
        let _given = sealed;
        panic!("{}", Missing("is_live", Capability::Liveness))
    }

    /// Ends the store as a crash would, and starts it again on what it kept. Writes that were open end with
    /// it: a later commit of one is an error.
    fn restart(&mut self) -> impl Future<Output = ()> {
        missing("restart", Capability::Restart)
    }

    /// Keeps a copy of all the store holds, data and fences.
    fn back_up(&mut self) -> impl Future<Output = ()> {
        missing("back_up", Capability::Restore)
    }

    /// Puts back what [`Subject::back_up`] kept.
    fn restore(&mut self) -> impl Future<Output = ()> {
        missing("restore", Capability::Restore)
    }

    /// Deletes the data of every resource, in the most thorough way that the store's owner has for data:
    /// tables dropped and made again, objects removed, logs cut off.
    fn delete_data(&mut self) -> impl Future<Output = ()> {
        missing("delete_data", Capability::DeleteData)
    }
}

struct Missing(&'static str, Capability);

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(method, capability) = self;
        write!(
            formatter,
            "Subject::{method} is missing: implement it, or name Capability::{capability:?} in LACKS"
        )
    }
}

#[allow(
    clippy::unused_async,
    reason = "the body of a provided method that must be a future"
)]
async fn missing<T>(method: &'static str, capability: Capability) -> T {
    panic!("{}", Missing(method, capability))
}

/// The resources of the suite. A subject has a register for each, guarded for its name.
#[must_use]
pub fn resources() -> [ResourceName; 3] {
    ["orders", "bills/eu", "stock:1"].map(|name| ResourceName::new(name).expect("a valid name"))
}

/// What a case of the suite said about a store.
///
/// ```
/// use palisade_guard::conformance::{Subject, Verdict, verdicts};
///
/// /// A store without its check has to fail the cases that show a stale token.
/// async fn bites<S: Subject>(without_check: impl AsyncFn() -> S) -> Result<(), Verdict> {
///     for verdict in verdicts(without_check, |case| case.contains("stale")).await {
///         if verdict.failure.is_none() {
///             return Err(verdict);
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The case.
    pub case: &'static str,
    /// What it expected and saw, if the store failed it.
    pub failure: Option<String>,
}

/// Runs a case and catches its panic.
#[doc(hidden)]
pub async fn verdict(case: &'static str, run: impl Future<Output = ()>) -> Verdict {
    let failure = AssertUnwindSafe(run).catch_unwind().await.err();
    Verdict {
        case,
        failure: failure.map(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("a panic without words").to_owned()
        }),
    }
}

/// Calls `$then! { $prefix case, case, … }` with every case of the suite: the one list of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __palisade_conformance_cases {
    ([$($then:tt)+] { $($prefix:tt)* }) => {
        $($then)+! { $($prefix)*
            equal_is_admitted, stale_is_refused, stale_kills_every_clone,
            another_holder_collides, unsealed_is_refused, unguarded_is_refused,
            one_entry_does_not_cover_another_resource, same_token_of_two_resources,
            several_resources_in_one_write, one_stale_resource_stops_the_whole_write,
            a_dropped_write_leaves_nothing,
            sealing_again_changes_nothing, a_lower_seal_is_refused,
            a_seal_of_another_holder_collides, concurrent_seals_have_one_winner,
            concurrent_holders_of_one_token_have_one_winner,
            a_running_writer_commits_before_the_seal_returns_or_never,
            a_writer_that_has_only_begun_writes_before_the_seal_returns_or_never,
            a_running_writer_of_several_resources_holds_each_seal,
            a_running_writer_of_another_resource_goes_on,
            a_seal_given_up_blocks_nobody, seals_under_load,
            a_restart_keeps_the_fence, a_restart_under_an_open_write,
            a_restore_is_noticed, a_restore_to_before_the_first_seal_is_noticed,
            a_restore_and_another_holder_collide, deleted_data_leaves_the_fence,
        }
    };
}

/// Makes a test of every case of the [suite](crate::conformance) for the subject that the function
/// makes, each with the attributes given: `conformance_tests!(#[tokio::test] MyStore::fresh);`.
#[macro_export]
macro_rules! conformance_tests {
    ($(#[$attribute:meta])+ $fresh:path) => {
        $crate::__palisade_conformance_cases! { [$crate::conformance_tests] { @each [$(#[$attribute])+] $fresh; } }
    };
    (@each $attributes:tt $fresh:path; $($case:ident),+ $(,)?) => {
        $($crate::conformance_tests! { @one $attributes $fresh; $case })+
    };
    (@one [$(#[$attribute:meta])+] $fresh:path; $case:ident) => {
        $(#[$attribute])+
        async fn $case() {
            ::std::boxed::Box::pin($crate::conformance::$case($fresh().await)).await;
        }
    };
}

macro_rules! verdicts_where {
    ($is_wanted:ident $fresh:ident $verdicts:ident; $($case:ident),+ $(,)?) => {
        $(if $is_wanted(stringify!($case)) {
            // On the heap: together they would not fit the stack of a test.
            let case = Box::pin(async { $case($fresh().await).await });
            $verdicts.push(verdict(stringify!($case), case).await);
        })+
    };
}

/// Runs the cases that are wanted by name, each on a subject of its own, and says how each ended.
pub async fn verdicts<S: Subject>(
    fresh: impl AsyncFn() -> S,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    crate::__palisade_conformance_cases! {
        [verdicts_where] { is_wanted fresh verdicts; }
    }
    verdicts
}

/// Runs every case, each on a subject of its own, one after the other.
///
/// # Panics
/// When all have run, with the names of those that failed and what they saw.
pub async fn run_all<S: Subject>(fresh: impl AsyncFn() -> S) {
    let failed: Vec<String> = verdicts(fresh, |_| true)
        .await
        .into_iter()
        .filter_map(|Verdict { case, failure }| Some(format!("\n  {case}: {}", failure?)))
        .collect();
    assert!(failed.is_empty(), "cases failed:{}", failed.concat());
}
