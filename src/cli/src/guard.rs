use std::path::Path;
use std::str::FromStr;

use palisade_guard::{mysql, postgres, sqlite};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Connection, PgPool, SqlitePool};

use crate::args::{Dialect, GuardCommand, GuardProtectArgs, StoreArgs};
use crate::failure::Failure;
use crate::output;
use crate::progress;

mod report;
mod seal;

/// `palisade guard`.
pub(crate) async fn run(command: GuardCommand) -> Result<(), Failure> {
    let doing = match &command {
        GuardCommand::Install(_) => "installing the guard",
        GuardCommand::Protect(_) => "guarding the table, once its writers have ended",
        GuardCommand::Unprotect(_) => "taking the guard off the table, once its writers have ended",
        GuardCommand::Seal(_) => "sealing, once older writers have ended",
        GuardCommand::Status(_) | GuardCommand::Sql(_) => "asking the database",
        GuardCommand::Audit(_) => "looking for what goes past the guard",
    };
    progress::during(doing, carry_out(command)).await
}

async fn carry_out(command: GuardCommand) -> Result<(), Failure> {
    match command {
        GuardCommand::Install(args) => install(&args.store).await,
        GuardCommand::Protect(args) => protect(args).await,
        GuardCommand::Unprotect(args) => {
            match Store::open(&args.store).await? {
                Store::Postgres(pool) => {
                    postgres::Guard::new().unprotect(&pool, &args.table).await?;
                }
                Store::Sqlite(pool) => sqlite::Guard::new().unprotect(&pool, &args.table).await?,
            }
            output::note(format_args!("palisade: {} has no guard now", args.table));
            Ok(())
        }
        GuardCommand::Seal(args) => seal::run(&args).await,
        GuardCommand::Status(args) => {
            let fence = match Store::open(&args.store).await? {
                Store::Postgres(pool) => {
                    postgres::Guard::new().fence(&pool, &args.resource).await?
                }
                Store::Sqlite(pool) => sqlite::Guard::new().fence(&pool, &args.resource).await?,
            };
            let fence = fence.ok_or_else(|| {
                Failure::other(format!("{} was never sealed there", args.resource))
            })?;
            report::fence(&fence, args.output, args.time.times())
        }
        GuardCommand::Audit(args) => {
            let pool = in_postgres(&args.database.postgres).await?;
            let findings = postgres::Guard::new().audit(&pool).await?;
            report::audit(&findings, args.output)
        }
        GuardCommand::Sql(args) => output::data(match args.dialect {
            Dialect::Postgres => postgres::script(),
            Dialect::Mysql => mysql::script(),
            Dialect::Sqlite => sqlite::script(),
        }),
    }
}

/// A database with a connection to it.
enum Store {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Store {
    async fn open(args: &StoreArgs) -> Result<Self, Failure> {
        match (&args.postgres, &args.sqlite) {
            (Some(url), _) => in_postgres(url).await.map(Self::Postgres),
            (None, Some(file)) => in_sqlite(file).await.map(Self::Sqlite),
            (None, None) => Err(Failure::usage(
                "name the database by --postgres or --sqlite",
            )),
        }
    }
}

pub(crate) async fn in_postgres(url: &str) -> Result<PgPool, Failure> {
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        Failure::usage("--postgres is no URL such as postgres://user@127.0.0.1:5432/database")
    })?;
    // A pool would try for half a minute, and then say only that it did.
    PgConnection::connect_with(&options).await?.close().await?;
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

async fn in_sqlite(file: &Path) -> Result<SqlitePool, Failure> {
    if !file.exists() {
        let file = file.display();
        return Err(Failure::other(format!(
            "{file} is not there; --sqlite takes the file of a database that exists"
        )));
    }
    let options = SqliteConnectOptions::new().filename(file);
    Ok(SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

async fn install(args: &StoreArgs) -> Result<(), Failure> {
    match Store::open(args).await? {
        Store::Postgres(pool) => {
            postgres::Guard::new().install(&pool).await?;
            pool.close().await;
        }
        Store::Sqlite(pool) => {
            sqlite::Guard::new().install(&pool).await?;
            pool.close().await;
        }
    }
    output::note(
        "palisade: the guard is installed; next: palisade guard protect TABLE --resource RESOURCE",
    );
    Ok(())
}

async fn protect(args: GuardProtectArgs) -> Result<(), Failure> {
    let (table, resource) = (&args.table, args.resource.as_ref());
    match (Store::open(&args.store).await?, resource) {
        (Store::Postgres(pool), Some(resource)) => {
            postgres::Guard::new()
                .protect(&pool, table, resource)
                .await?;
        }
        (Store::Postgres(pool), None) => {
            let columns: Vec<&str> = args.columns.iter().map(String::as_str).collect();
            postgres::Guard::new()
                .protect_rows(&pool, table, args.prefix.as_ref(), &columns)
                .await?;
        }
        (Store::Sqlite(pool), resource) => {
            let resource = resource
                .ok_or_else(|| Failure::usage("name the table's resource by --resource"))?;
            let guard = sqlite::Guard::new();
            guard.install(&pool).await?;
            guard.protect(&pool, table, resource).await?;
            pool.close().await;
        }
    }
    output::note(format_args!("palisade: {table} is guarded"));
    Ok(())
}
