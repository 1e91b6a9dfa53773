//! `palisade bench guard`: guarded writes against the same writes without a guard.

mod file;
mod load;
mod memory;
mod postgres;
mod seals;
mod tell;
mod writer;

use tempfile::TempDir;

use crate::args::{BenchStore, GuardBenchArgs};
use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::signals::Stop;
use postgres::Database;
use tell::Findings;

/// Whatever happens, it leaves neither a database nor a file behind.
pub(super) async fn run(args: &GuardBenchArgs, mut stop: Stop) -> Result<(), Failure> {
    let database = match (&args.postgres, args.measures(BenchStore::Postgres)) {
        (Some(url), true) => Some(Database::name(url)?),
        (None, true) => return Err(Failure::usage("name the server by --postgres")),
        (_, false) => None,
    };
    let home = tempfile::Builder::new()
        .prefix("palisade-bench-")
        .tempdir()
        .map_err(Failure::io("make a directory for the bench"))?;
    let measured = tokio::select! {
        measured = Box::pin(measure(args, database.as_ref(), &home)) => measured,
        signal = stop.asked() => Err(signal.failure("the bench was stopped")),
    };
    let strike = async {
        match &database {
            Some(database) => database.strike().await,
            None => Ok(()),
        }
    };
    let struck = tokio::select! {
        struck = strike => struck,
        signal = stop.asked() => Err(signal.failure("the bench was stopped; its database may remain")),
    };
    let deleted = home
        .close()
        .map_err(Failure::io("delete the bench's directory"));
    measured.and(struck).and(deleted)
}

async fn measure(
    args: &GuardBenchArgs,
    database: Option<&Database>,
    home: &TempDir,
) -> Result<(), Failure> {
    let progress = Progress::new("making a database");
    progress
        .during(run_all(args, database, home, &progress))
        .await
}

async fn run_all(
    args: &GuardBenchArgs,
    database: Option<&Database>,
    home: &TempDir,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut findings = Findings::default();
    if let Some(database) = database {
        database.make().await?;
        let most = args.concurrency.iter().copied().max().unwrap_or(1);
        let stage = postgres::Stage::open(database, most).await?;
        for number in 1..=args.rounds {
            progress.step(&format!("PostgreSQL: round {number} of {}", args.rounds));
            stage.round(args, number, &mut findings).await?;
        }
        stage.tell_tuples(&mut findings).await?;
        seals::run(&stage, args, most, (&mut findings, progress)).await?;
        stage.close().await;
    }
    if args.measures(BenchStore::Sqlite) {
        let file = match &args.sqlite {
            Some(file) if file.exists() => {
                let message = format!("{} exists; the bench makes its own", file.display());
                return Err(Failure::new(Kind::Usage, message));
            }
            Some(file) => file.clone(),
            None => home.path().join("bench.sqlite"),
        };
        let file = file::Scratch(file);
        for number in 1..=args.rounds {
            progress.step(&format!("SQLite: round {number} of {}", args.rounds));
            file::round(&file, args, number, &mut findings).await?;
        }
    }
    if args.measures(BenchStore::Memory) {
        let table = memory::Sealing::all().await?;
        for number in 1..=args.rounds {
            progress.step(&format!("memory: round {number} of {}", args.rounds));
            // Its own threads count; nothing else is to be done here meanwhile.
            tokio::task::block_in_place(|| table.round(args, &mut findings))?;
        }
    }
    findings.tell(args)
}
