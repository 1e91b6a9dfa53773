//! `palisade generation`: what tokens are made from.

use std::time::Duration;

use palisade_client::{AdvanceOptions, ClientError, Generation};
use palisade_token::FencingToken;
use serde::Serialize;

use crate::actor;
use crate::args::{AdvanceArgs, Format, GenerationCommand, ShowArgs};
use crate::clock;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::progress::{self, ASKING};
use crate::table::{Table, plain};
use crate::units::{Times, show_roughly};

#[derive(Debug, Serialize)]
struct GenerationJson<'a> {
    nonce: &'a str,
    base: i64,
    since_revision: i64,
}

impl<'a> From<&'a Generation> for GenerationJson<'a> {
    fn from(generation: &'a Generation) -> Self {
        Self {
            nonce: &generation.nonce,
            base: generation.base,
            since_revision: generation.since_revision,
        }
    }
}

#[derive(Debug, Serialize)]
struct ShownJson<'a> {
    #[serde(flatten)]
    generation: GenerationJson<'a>,
    /// The highest revision that the coordinator has seen.
    revision: i64,
    /// No token above it can have been issued up to that revision.
    highest_token: i64,
}

#[derive(Debug, Serialize)]
struct AdvancedJson<'a> {
    generation: GenerationJson<'a>,
    previous: Option<GenerationJson<'a>>,
    past: FencingToken,
}

/// `palisade generation`.
pub(crate) async fn run(command: GenerationCommand) -> Result<(), Failure> {
    match command {
        GenerationCommand::Show(args) => show(args).await,
        GenerationCommand::Advance(args) => advance(args).await,
    }
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let status = progress::during(ASKING, client.status()).await?;
    let Some(generation) = &status.generation else {
        let reasons = plain(&status.not_ready_reasons.join(", "));
        let message = format!(
            "the coordinator trusts no generation now ({reasons}); look at its log, or ask another with --addr"
        );
        return Err(Failure::new(Kind::Unreachable, message));
    };
    let since = status.revision.saturating_sub(generation.since_revision);
    let highest_token = generation.base.saturating_add(since.max(0));
    let json = ShownJson {
        generation: GenerationJson::from(generation),
        revision: status.revision,
        highest_token,
    };
    match args.output {
        Format::Json => output::pretty_json(&json),
        Format::Jsonl => output::json(&json),
        Format::Table => {
            let times: Times = args.time.times();
            let mut table = Table::default();
            let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
            row("nonce", plain(&generation.nonce));
            // A base is a reading of a clock in microseconds, unless something pushed it ahead.
            let made = times.show(generation.base / 1_000);
            row("base", format!("{} ({made})", generation.base));
            row("since revision", generation.since_revision.to_string());
            row("revision", status.revision.to_string());
            row("highest token", highest_token.to_string());
            output::data(table)
        }
    }
}

async fn advance(args: AdvanceArgs) -> Result<(), Failure> {
    let past = args.past;
    let ahead = ahead(past).map_or_else(String::new, |ahead| {
        format!(" That is {ahead} ahead of this machine's clock.")
    });
    output::confirm(
        format_args!(
            "Make all further tokens, of all resources, larger than {past}?{ahead} What is passed over is used up for \
             good."
        ),
        args.yes,
    )?;
    let client = crate::connect(&args.client)?;
    let options = AdvanceOptions::because(&args.why.reason, actor::name(args.why.actor.as_deref()))
        .past(past)
        .force(args.force);
    let made = progress::during("making a generation", client.advance_generation(options)).await;
    let made = made.map_err(|error| failed(past, error))?;
    let json = AdvancedJson {
        generation: GenerationJson::from(&made.generation),
        previous: made.previous.as_ref().map(GenerationJson::from),
        past,
    };
    match args.output {
        Format::Json => output::pretty_json(&json),
        Format::Jsonl => output::json(&json),
        Format::Table => output::data(format_args!(
            "advanced: tokens begin at {} from here on",
            made.generation.base
        )),
    }
}

/// How far a token is ahead of this machine's clock, for people; nothing within a second.
fn ahead(token: FencingToken) -> Option<String> {
    let now = u64::try_from(clock::unix_ms()).unwrap_or_default();
    let ahead = token.get().saturating_sub(now.saturating_mul(1_000));
    let ahead = Duration::from_micros(ahead);
    (ahead > Duration::from_secs(1)).then(|| show_roughly(ahead))
}

fn failed(past: FencingToken, error: ClientError) -> Failure {
    match error {
        ClientError::ForceRequired {
            clock_unix_micros, ..
        } => {
            let by = clock_unix_micros.map_or_else(
                || "more than a day".to_owned(),
                |clock| show_roughly(Duration::from_micros(past.get().saturating_sub(clock))),
            );
            Failure::other(format!(
                "token {past} is {by} past the coordinator's clock: find out which of the two is wrong. If neither is, \
                 --force; nothing was changed"
            ))
        }
        other if other.may_have_happened() => {
            let failure = Failure::from(other);
            let message = format!(
                "{failure}: the outcome is unknown. `palisade generation show` tells how it stands; to advance it \
                 again is safe"
            );
            Failure::new(failure.kind, message)
        }
        other => other.into(),
    }
}
