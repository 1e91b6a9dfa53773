use std::collections::HashMap;

use ::redis::aio::ConnectionLike;
use ::redis::cmd;

use super::{Guard, errors};
use crate::GuardError;

const LIBRARY: &str = include_str!("../../sql/redis/guard.lua");

/// A setting of the server with which it loses fences that it has acknowledged ([`Guard::weaknesses`]), besides
/// its asynchronous replication, which is always one.
///
/// ```no_run
/// use palisade_guard::redis::{Guard, Weakness};
///
/// # async fn example(
/// #     connection: &mut redis::aio::MultiplexedConnection,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// for weakness in Guard::new().weaknesses(connection).await? {
///     match weakness {
///         Weakness::Evicts => return Err(weakness.into()), // fences would vanish while it runs
///         other => eprintln!("{other}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Weakness {
    /// Short of memory it drops any key.
    #[error("maxmemory-policy evicts keys without a TTL: a fence may be dropped")]
    Evicts,
    /// A restart loses what came after the last snapshot.
    #[error("appendonly is off: a restart takes seals back")]
    NoAppendOnlyFile,
    /// The append-only file is not flushed at each write.
    #[error("appendfsync is not always: a crash of the machine takes seals back")]
    NotFlushed,
    /// The server does not tell its settings.
    #[error("CONFIG GET is not allowed: how the server keeps its data is not known")]
    Untold,
}

impl Guard {
    /// Loads the functions, or puts the same ones in their place. Any number of installers may run at once. In a
    /// cluster, run it on each primary. Logs what [`Guard::weaknesses`] finds.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn install(&self, connection: &mut impl ConnectionLike) -> Result<(), GuardError> {
        let name: String = cmd("FUNCTION")
            .arg("LOAD")
            .arg("REPLACE")
            .arg(LIBRARY)
            .query_async(connection)
            .await
            .map_err(errors::plain)?;
        for weakness in self.weaknesses(connection).await? {
            tracing::warn!(library = name, %weakness, "this server may lose fences that it has acknowledged");
        }
        Ok(())
    }

    /// The settings of the server with which fences can be lost, none if it is set up well.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn weaknesses(
        &self,
        connection: &mut impl ConnectionLike,
    ) -> Result<Vec<Weakness>, GuardError> {
        let told: Result<HashMap<String, String>, _> = cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .arg("appendonly")
            .arg("appendfsync")
            .query_async(connection)
            .await;
        let settings = match told {
            Ok(settings) => settings,
            Err(error) if error.is_io_error() => return Err(errors::plain(error)),
            Err(_refused) => return Ok(vec![Weakness::Untold]),
        };
        let setting = |name: &str| settings.get(name).map(String::as_str);
        let mut found = Vec::new();
        if !setting("maxmemory-policy")
            .is_some_and(|policy| policy == "noeviction" || policy.starts_with("volatile-"))
        {
            found.push(Weakness::Evicts);
        }
        if setting("appendonly") != Some("yes") {
            found.push(Weakness::NoAppendOnlyFile);
        } else if setting("appendfsync") != Some("always") {
            found.push(Weakness::NotFlushed);
        }
        Ok(found)
    }
}
