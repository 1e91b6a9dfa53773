use std::env;
use std::io;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::args::LogFormat;
use crate::failure::Failure;
use crate::output;

/// Log lines of a coordinator that wait to be written. More are dropped, audit events too: whoever reads
/// stderr must not be able to hold up renewals by not reading it.
const MAX_LINES_WAITING: usize = 16 * 1024;

/// How log lines are written, and which.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    /// The filter, where the environment says nothing.
    pub(crate) default: &'static str,
    /// Whether somebody else waits for this process, so that a full pipe must not stop it.
    pub(crate) is_for_others: bool,
}

/// The variables that say what is logged; the first that is set counts.
pub(crate) const FILTERS: [&str; 2] = ["PALISADE_LOG", "RUST_LOG"];

/// Sends log lines to stderr. What is logged is told by `PALISADE_LOG`, else `RUST_LOG`, else the default. What
/// is given back writes the last lines when it is dropped.
pub(crate) fn start(log: Log) -> Result<Option<WorkerGuard>, Failure> {
    let told = FILTERS.into_iter().find_map(|name| {
        env::var(name)
            .ok()
            .filter(|text| !text.is_empty())
            .map(|text| (name, text))
    });
    let filter = match &told {
        None => EnvFilter::try_new(log.default),
        Some((_, text)) => EnvFilter::try_new(text),
    };
    let filter = filter.map_err(|error| {
        let name = told.map_or("the log filter", |(name, _)| name);
        Failure::usage(format!(
            "{name} is no filter such as `info` or `palisade=debug`: {error}"
        ))
    })?;
    let (writer, guard) = writer(log.is_for_others);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Told where the line could not be told, that would end the thread that logs.
        .log_internal_errors(false)
        .with_writer(writer);
    match log.format {
        LogFormat::Text => lines.with_ansi(output::has_colour(&io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(guard)
}

fn writer(is_for_others: bool) -> (BoxMakeWriter, Option<WorkerGuard>) {
    if !is_for_others {
        return (BoxMakeWriter::new(io::stderr), None);
    }
    let (lines, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_LINES_WAITING)
        .thread_name("log")
        .finish(io::stderr());
    (BoxMakeWriter::new(lines), Some(guard))
}
