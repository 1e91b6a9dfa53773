use std::collections::BTreeSet;

use ::redis::aio::ConnectionLike;
use ::redis::{Arg, Cmd, Value, cmd};
use tracing::Instrument as _;

use super::reply::{Reply, text};
use super::{Guard, MAX_COMMANDS, MAX_WORDS, Sealed, errors, fence_key};
use crate::metrics::{self, Operation, StoreKind, Timer};
use crate::{GuardError, spans};

/// Commands that are run together, if the grant is admitted then: from [`Guard::begin`]. Nothing is sent
/// before [`GuardedWrite::commit`], and dropped it leaves nothing.
///
/// ```no_run
/// use palisade_guard::GuardError;
/// use palisade_guard::redis::{Guard, Sealed};
///
/// # async fn example(
/// #     connection: &mut redis::aio::MultiplexedConnection,
/// #     sealed: &Sealed,
/// # ) -> Result<(), palisade_guard::GuardError> {
/// let mut write = Guard::new().begin(sealed)?;
/// write
///     .push(&redis::Cmd::set("cache:{orders}:7", "paid"))?
///     .push(&redis::Cmd::incr("paid:{orders}", 1))?;
/// match write.commit(connection).await {
///     Ok(replies) => assert_eq!(replies.len(), 2),
///     // Some of it may have been written: read before anything is added again.
///     Err(lost @ GuardError::CommitUnknown { .. }) => return Err(lost),
///     Err(error) => return Err(error), // nothing was written: `class` says what to do
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before commit"]
pub struct GuardedWrite {
    sealed: Sealed,
    commands: Vec<Vec<Vec<u8>>>,
}

impl Guard {
    /// Begins a guarded write of one resource. (The keys of several lie on several servers of a cluster: there
    /// is no write that holds for all of them.)
    ///
    /// # Errors
    /// The refusal that killed this [`Sealed`] earlier.
    pub fn begin(&self, sealed: &Sealed) -> Result<GuardedWrite, GuardError> {
        sealed.alive()?;
        Ok(GuardedWrite {
            sealed: sealed.clone(),
            commands: Vec::new(),
        })
    }
}

impl GuardedWrite {
    /// Adds a write command whose first argument is its only key, which has the hash tag of the resource.
    ///
    /// # Errors
    /// [`GuardError::Misuse`] beyond [`MAX_COMMANDS`] and [`MAX_WORDS`], and without a key. Which commands
    /// are allowed is decided by the function, in [`GuardedWrite::commit`].
    pub fn push(&mut self, command: &Cmd) -> Result<&mut Self, GuardError> {
        if self.commands.len() >= MAX_COMMANDS {
            return Err(GuardError::Misuse(
                "a guarded write has at most MAX_COMMANDS commands",
            ));
        }
        let words: Option<Vec<Vec<u8>>> = command
            .args_iter()
            .map(|word| match word {
                Arg::Simple(word) => Some(word.to_vec()),
                _ => None,
            })
            .collect();
        match words {
            Some(words) if (2..=MAX_WORDS).contains(&words.len()) => {
                self.commands.push(words);
                Ok(self)
            }
            _ => Err(GuardError::Misuse(
                "a command of a guarded write has 2 to MAX_WORDS words",
            )),
        }
    }

    /// Checks the grant and runs the commands, as one atomic step of the server; their replies. `Ok` means that
    /// it happened.
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::StoreWentBackwards`], [`GuardError::Collision`], which kill every
    /// clone of the [`Sealed`]; [`GuardError::Misuse`] for a command or key that is not allowed;
    /// [`GuardError::RolledBack`] if the first command failed; [`GuardError::CommitUnknown`] if a later one did
    /// and those before it were made, or the answer was lost; [`GuardError::Backend`] if the server refused
    /// to run anything.
    pub async fn commit(
        self,
        connection: &mut impl ConnectionLike,
    ) -> Result<Vec<Value>, GuardError> {
        let timer = Timer::start();
        let span = spans::commit(StoreKind::Redis, Some(self.sealed.grant()), 1);
        let result = self.check_and_run(connection).instrument(span).await;
        metrics::store_answered(StoreKind::Redis, Operation::Commit, timer);
        metrics::settled(StoreKind::Redis, &result);
        result
    }

    async fn check_and_run(
        self,
        connection: &mut impl ConnectionLike,
    ) -> Result<Vec<Value>, GuardError> {
        self.sealed.alive()?;
        let value: Value = self
            .call()
            .query_async(connection)
            .await
            .map_err(errors::of_write)?;
        let lost = || errors::unknown("the function answered what it cannot answer");
        let reply = Reply::from(value).ok_or_else(lost)?;
        match reply.kind() {
            "ok" => reply
                .into_rest()
                .into_iter()
                .map(|reply| match reply {
                    Value::Array(mut one) => Some(one.pop().unwrap_or(Value::Nil)),
                    _ => None,
                })
                .collect::<Option<_>>()
                .ok_or_else(lost),
            "failed" => Err(failed(reply)),
            _ => Err(self.sealed.learn(reply.refusal(self.sealed.grant()))),
        }
    }

    fn call(&self) -> Cmd {
        let grant = self.sealed.grant();
        let keys: BTreeSet<&[u8]> = self
            .commands
            .iter()
            .filter_map(|words| words.get(1).map(Vec::as_slice))
            .collect();
        let mut call = cmd("FCALL");
        call.arg("palisade_write_1")
            .arg(keys.len() + 1)
            .arg(fence_key(&grant.resource));
        for key in keys {
            call.arg(key);
        }
        call.arg(grant.resource.as_str())
            .arg(grant.token.to_string())
            .arg(grant.holder.to_string());
        for words in &self.commands {
            call.arg(words.len());
            for word in words {
                call.arg(word.as_slice());
            }
        }
        call
    }
}

/// A command failed for what its key holds: those before it were made.
fn failed(reply: Reply) -> GuardError {
    let mut rest = reply.into_rest().into_iter();
    let index: Option<u64> = rest
        .next()
        .and_then(text)
        .and_then(|text| text.parse().ok());
    let why = rest.next().and_then(text).unwrap_or_default();
    match index {
        Some(0) => GuardError::RolledBack(Some(Box::from(why))),
        index => errors::unknown(format!(
            "command {} failed, and those before it were made: {why}",
            index.map_or_else(|| "?".to_owned(), |index| index.to_string())
        )),
    }
}
