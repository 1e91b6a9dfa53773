use clap::{Args, ValueEnum};
use palisade_token::ResourceName;

use super::{ClientArgs, Format};

/// Tell what happens to leases, line by line, until it is ended.
///
/// First what is held now, then each change in the order of the store's log, with the revision of each. It goes
/// on over restarts of coordinators: where the connection breaks it is taken up again at the last revision,
/// here or at another coordinator, which is told on stderr. It is news, not proof that a lease is held.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade watch orders/eu-1
  palisade watch orders/ --output jsonl | jq -c 'select(.event == \"expired\")'
  palisade watch orders/eu-1 --until vacant
  palisade watch --from 4711 --output jsonl >> events.jsonl")]
pub(crate) struct WatchArgs {
    /// A resource, or what names begin with, if that ends with /; nothing for all
    #[arg(
        value_name = "RESOURCE|PREFIX/",
        default_value = "",
        hide_default_value = true
    )]
    #[arg(value_parser = parse_watched)]
    pub(crate) what: Watched,
    /// Go on after this revision, with no list of what is held first; a new list comes where what happened since is
    /// no longer known
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) from: Option<i64>,
    /// End once the resource is in this state; for one resource
    #[arg(
        long,
        value_name = "granted|vacant",
        value_enum,
        hide_possible_values = true
    )]
    pub(crate) until: Option<Until>,
    /// How it is shown; json is the same as jsonl
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Watched {
    Resource(ResourceName),
    Prefix(String),
}

/// When a watch has seen what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// Somebody holds it
    Granted,
    /// Nobody holds it
    #[value(alias = "released")]
    Vacant,
}

fn parse_watched(text: &str) -> Result<Watched, String> {
    if text.is_empty() || text.ends_with('/') {
        return Ok(Watched::Prefix(text.to_owned()));
    }
    let resource = ResourceName::new(text).map_err(|error| error.to_string())?;
    Ok(Watched::Resource(resource))
}
