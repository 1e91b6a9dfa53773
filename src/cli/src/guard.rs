use std::path::Path;
use std::str::FromStr;

use palisade_guard::{mysql, postgres, sqlite};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Connection, PgPool};

use crate::args::{Dialect, GuardCommand, GuardProtectArgs};
use crate::failure::Failure;
use crate::output;
use crate::progress;

mod report;

/// `palisade guard`.
pub(crate) async fn run(command: GuardCommand) -> Result<(), Failure> {
    let doing = match &command {
        GuardCommand::Install(_) => "installing the guard",
        GuardCommand::Protect(_) => "guarding the table, once its writers have ended",
        GuardCommand::Unprotect(_) => "taking the guard off the table, once its writers have ended",
        GuardCommand::Status(_) | GuardCommand::Sql(_) => "asking the database",
        GuardCommand::Audit(_) => "looking for what goes past the guard",
    };
    progress::during(doing, carry_out(command)).await
}

async fn carry_out(command: GuardCommand) -> Result<(), Failure> {
    match command {
        GuardCommand::Install(args) => match (args.postgres, args.sqlite) {
            (Some(url), _) => install_in_postgres(&url).await,
            (None, Some(file)) => install_in_sqlite(&file).await,
            (None, None) => Err(Failure::usage(
                "name the database by --postgres or --sqlite",
            )),
        },
        GuardCommand::Protect(args) => protect(args).await,
        GuardCommand::Unprotect(args) => {
            let pool = connect(&args.database.postgres).await?;
            postgres::Guard::new().unprotect(&pool, &args.table).await?;
            output::note(format_args!("palisade: {} has no guard now", args.table));
            Ok(())
        }
        GuardCommand::Status(args) => {
            let pool = connect(&args.database.postgres).await?;
            let fence = postgres::Guard::new().fence(&pool, &args.resource).await?;
            let fence = fence.ok_or_else(|| {
                Failure::other(format!("{} was never sealed there", args.resource))
            })?;
            report::fence(&fence, args.output)
        }
        GuardCommand::Audit(args) => {
            let pool = connect(&args.database.postgres).await?;
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

async fn connect(url: &str) -> Result<PgPool, Failure> {
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

async fn install_in_postgres(url: &str) -> Result<(), Failure> {
    let pool = connect(url).await?;
    postgres::Guard::new().install(&pool).await?;
    pool.close().await;
    output::note(
        "palisade: the guard is installed; next: SELECT palisade.protect('TABLE', 'RESOURCE')",
    );
    Ok(())
}

async fn protect(args: GuardProtectArgs) -> Result<(), Failure> {
    let (guard, pool) = (
        postgres::Guard::new(),
        connect(&args.database.postgres).await?,
    );
    if let Some(resource) = &args.resource {
        guard.protect(&pool, &args.table, resource).await?;
    } else {
        let columns: Vec<&str> = args.columns.iter().map(String::as_str).collect();
        guard
            .protect_rows(&pool, &args.table, args.prefix.as_ref(), &columns)
            .await?;
    }
    output::note(format_args!("palisade: {} is guarded", args.table));
    Ok(())
}

async fn install_in_sqlite(file: &Path) -> Result<(), Failure> {
    let options = SqliteConnectOptions::new().filename(file);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    sqlite::Guard::new().install(&pool).await?;
    pool.close().await;
    output::note(format_args!(
        "palisade: the guard is installed in {}",
        file.display()
    ));
    Ok(())
}
