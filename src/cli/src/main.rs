//! The `palisade` binary: parses, calls, prints.

mod acquire;
mod actor;
mod args;
mod bench;
mod check;
mod child;
mod clock;
mod completions;
mod config;
mod demo;
mod doctor;
mod drain;
mod failure;
mod generation;
mod guard;
mod leases;
mod log;
mod man;
mod output;
mod progress;
mod release;
mod revoke;
#[cfg(target_os = "linux")]
mod run;
mod serve;
mod signals;
mod table;
mod top;
mod traces;
mod units;
mod watch;

use std::env;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::FromArgMatches;
use mimalloc::MiMalloc;
use tokio::runtime::Builder;

use crate::args::{Cli, ClientArgs, Command, LogFormat};
use crate::failure::Failure;
use crate::log::Log;

/// A coordinator makes many small and short-lived allocations on all its threads: this takes a third of its CPU
/// away (measured by `palisade bench lease`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Says how many threads the runtime has, where somebody wants to: the runtime's own variable.
const THREADS: &str = "TOKIO_WORKER_THREADS";

/// How long what still runs in threads may go on after the end: a read of stdin would forever.
const LINGER: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&args::command().get_matches());
    let cli = cli.unwrap_or_else(|error| error.exit());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                output::note(format_args!("palisade: {failure}"));
            }
            ExitCode::from(failure.kind.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    if let Command::RunStage(args) = cli.command {
        return Err(run::stage(args));
    }
    let (format, default, is_for_others) = match &cli.command {
        Command::Serve(args) => (args.log.log_format, "info", true),
        Command::Dev(args) => (args.log.log_format, "info", true),
        Command::Demo(_) | Command::DemoWorker => (LogFormat::Text, "off", false),
        _ => (LogFormat::Text, "error", false),
    };
    let _log = log::start(Log {
        format,
        default,
        is_for_others,
    })?;
    // Two crates could otherwise each bring one, and TLS would not know which to take.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return Err(Failure::other(
            "TLS was set up twice: a fault of this build",
        ));
    }
    let mut runtime = Builder::new_multi_thread();
    let shares = matches!(cli.command, Command::Serve(_) | Command::Bench(_));
    if shares && env::var_os(THREADS).is_none() {
        runtime.worker_threads(half_of_the_cores());
    }
    #[cfg(target_os = "linux")]
    if matches!(cli.command, Command::RunGuardian(_)) {
        // There may be one for each command of a machine, and it has little to do.
        runtime.worker_threads(1);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(Failure::io("start the runtime"))?;
    let result = runtime.block_on(Box::pin(dispatch(cli.command)));
    runtime.shutdown_timeout(LINGER);
    result
}

/// The other half is for etcd beside it, and for those who load it; and threads that wake each other for little
/// cost more than they bring.
fn half_of_the_cores() -> usize {
    let cores = available_parallelism().map_or(1, NonZero::get);
    (cores / 2).max(1)
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Dev(args) => serve::dev(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Config(args) => config::run(args.command).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Bench(args) => bench::run(args).await,
        Command::Acquire(args) => acquire::run(args).await,
        Command::Release(args) => release::run(args).await,
        Command::Get(args) => leases::get(args).await,
        Command::List(args) => leases::list(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Revoke(args) => revoke::run(args).await,
        Command::Generation(args) => generation::run(args.command).await,
        Command::Drain(args) => drain::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Guard(args) => guard::run(args.command).await,
        Command::DemoWorker => demo::worker().await,
        #[cfg(target_os = "linux")]
        Command::Run(args) => run::run(args).await,
        #[cfg(target_os = "linux")]
        Command::RunGuardian(args) => run::guardian(args).await,
        // It has become the command, or failed, before there was a runtime.
        #[cfg(target_os = "linux")]
        Command::RunStage(args) => Err(run::stage(args)),
    }
}

fn connect(args: &ClientArgs) -> Result<palisade_client::Client, Failure> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(Failure::io(format_args!("read {}", path.display())))
    };
    let mut client = palisade_client::Client::builder();
    if let Some(path) = &args.ca_file {
        client = client.ca_certificate(read(path)?);
    }
    if let (Some(cert), Some(key)) = (&args.cert_file, &args.key_file) {
        client = client.identity(read(cert)?, read(key)?);
    }
    if let Some(path) = &args.token_file {
        let token = String::from_utf8_lossy(&read(path)?).trim().to_owned();
        client = client.bearer_token(token);
    }
    let client = client
        .endpoints(args.addr.iter().map(String::as_str))
        .call_timeout(args.timeout.min(CALL_TIMEOUT))
        .operation_timeout(args.timeout);
    Ok(client.connect()?)
}

/// After this another coordinator is tried, where there is one.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
