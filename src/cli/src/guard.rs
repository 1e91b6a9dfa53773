use std::path::Path;
use std::str::FromStr;

use palisade_guard::{postgres, sqlite};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::args::GuardCommand;
use crate::failure::Failure;
use crate::output;

/// `palisade guard`.
pub(crate) async fn run(command: GuardCommand) -> Result<(), Failure> {
    match command {
        GuardCommand::Install(args) => match (args.postgres, args.sqlite) {
            (Some(url), _) => install_in_postgres(&url).await,
            (None, Some(file)) => install_in_sqlite(&file).await,
            (None, None) => Err(Failure::usage(
                "name the database by --postgres or --sqlite",
            )),
        },
    }
}

async fn install_in_postgres(url: &str) -> Result<(), Failure> {
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        Failure::usage("--postgres is no URL such as postgres://user@127.0.0.1:5432/database")
    })?;
    // A pool would try for half a minute, and then say only that it did.
    PgConnection::connect_with(&options).await?.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    postgres::Guard::new().install(&pool).await?;
    pool.close().await;
    output::note(
        "palisade: the guard is installed; next: SELECT palisade.protect('TABLE', 'RESOURCE')",
    );
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
