//! Room on other people's servers, and leaving it clean.

use std::str::FromStr;
use std::time::Duration;

use etcd_client::{ConnectOptions, DeleteOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use crate::clock;
use crate::failure::{Failure, Kind};

/// What a server that is well does at once.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes a database of the demo's own: the guard's schema and its fences, which nobody may delete, would
/// else stay in the user's.
pub(crate) async fn create_database(server: &str, name: &str) -> Result<(), Failure> {
    // `name` is of the demo's making: letters, digits and underscores.
    run(server, &format!("CREATE DATABASE {name}")).await
}

/// Drops it, whoever is still connected to it. One that was never made is no error.
pub(crate) async fn drop_database(server: &str, name: &str) -> Result<(), Failure> {
    run(
        server,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    )
    .await
}

async fn run(server: &str, statement: &str) -> Result<(), Failure> {
    let options = PgConnectOptions::from_str(server).map_err(|_| {
        Failure::usage("--postgres is no URL such as postgres://user@127.0.0.1:5432/postgres")
    })?;
    let work = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        connection.close().await
    };
    match clock::within(LIMIT, work).await {
        Some(result) => result.map_err(|error| Failure::from(error).while_doing(statement)),
        None => Err(Failure::new(
            Kind::Unreachable,
            "PostgreSQL does not answer",
        )),
    }
}

/// Deletes all keys that begin with `prefix`.
pub(crate) async fn delete_prefix(endpoints: &[String], prefix: &str) -> Result<(), Failure> {
    let work = async {
        let options = ConnectOptions::new().with_connect_timeout(LIMIT);
        let mut client = etcd_client::Client::connect(endpoints, Some(options)).await?;
        client
            .delete(prefix, Some(DeleteOptions::new().with_prefix()))
            .await
    };
    match clock::within(LIMIT, work).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Failure::other(format!(
            "etcd did not delete the keys that begin with {prefix}: {error}"
        ))),
        None => Err(Failure::other(format!(
            "etcd does not answer; keys that begin with {prefix} may remain"
        ))),
    }
}
