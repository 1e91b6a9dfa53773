use std::env;
use std::io;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::failure::Failure;
use crate::output;

/// Sends log lines to stderr. What is logged is told by `PALISADE_LOG`, else `RUST_LOG`, else `default`.
pub(crate) fn start(format: LogFormat, default: &str) -> Result<(), Failure> {
    let told = ["PALISADE_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        env::var(name)
            .ok()
            .filter(|text| !text.is_empty())
            .map(|text| (name, text))
    });
    let filter = match &told {
        None => EnvFilter::try_new(default),
        Some((_, text)) => EnvFilter::try_new(text),
    };
    let filter = filter.map_err(|error| {
        let name = told.map_or("the log filter", |(name, _)| name);
        Failure::usage(format!(
            "{name} is no filter such as `info` or `palisade=debug`: {error}"
        ))
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Told where the line could not be told, that would end the thread that logs.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(output::has_colour(&io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
