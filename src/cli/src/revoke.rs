//! `palisade revoke`.

use std::io::{self, IsTerminal};

use palisade_client::{Client, ClientError, LeaseEnd, Revocation, RevokeOptions, RevokeOutcome};
use palisade_token::{FencingToken, ResourceName};
use serde::Serialize;

use crate::actor;
use crate::args::{Format, RevokeArgs};
use crate::failure::{Failure, Kind};
use crate::leases::end_name;
use crate::output;
use crate::progress;
use crate::table::plain;
use crate::units::show_duration;

#[derive(Debug, Serialize)]
struct RevokedJson<'a> {
    resource: &'a ResourceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<FencingToken>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    /// What the revoked one wrote since is refused only by a guard that was sealed.
    may_still_write: bool,
    revision: i64,
}

/// `palisade revoke`.
pub(crate) async fn run(args: RevokeArgs) -> Result<(), Failure> {
    let resource = &args.resource;
    let can_be_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.yes && !can_be_asked {
        // Refused before anything is looked at.
        return output::confirm(format_args!("End the lease of {resource}?"), false);
    }
    let client = crate::connect(&args.client)?;
    let found = if args.current || !args.yes {
        named(&client, &args).await?
    } else {
        args.token.map(|token| (token, String::new()))
    };
    let Some((token, label)) = found else {
        output::note(format_args!(
            "palisade: nobody holds {resource}: there is nothing to revoke"
        ));
        return tell(&args, None, "not_held", None, 0);
    };
    let label = if label.is_empty() {
        label
    } else {
        format!(", label {}", plain(&label))
    };
    output::confirm(
        format_args!(
            "End the lease of {resource} with token {token}{label}? What its holder has under way is written \
             until the next holder seals."
        ),
        args.yes,
    )?;
    let options = RevokeOptions::because(&args.why.reason, actor::name(args.why.actor.as_deref()))
        .ask_for(args.cooperative);
    let doing = if args.cooperative.is_zero() {
        "revoking".to_owned()
    } else {
        format!("asking the holder for {}", show_duration(args.cooperative))
    };
    let revoked = progress::during(&doing, client.revoke_lease(resource, token, options)).await;
    let revoked = revoked.map_err(|error| failed(resource, error))?;
    done(&args, token, revoked)
}

/// The lease that is meant, and its label.
async fn named(
    client: &Client,
    args: &RevokeArgs,
) -> Result<Option<(FencingToken, String)>, Failure> {
    let found = progress::during(progress::ASKING, client.get_lease(&args.resource, 0)).await;
    match (args.token, found) {
        (None, found) => {
            let lease = found?.lease;
            Ok(lease.map(|lease| (lease.grant.token, lease.label)))
        }
        (Some(token), Ok(found)) => {
            let lease = found.lease.filter(|lease| lease.grant.token == token);
            Ok(Some((
                token,
                lease.map(|lease| lease.label).unwrap_or_default(),
            )))
        }
        // To revoke needs no right to read.
        (Some(token), Err(_)) => Ok(Some((token, String::new()))),
    }
}

fn failed(resource: &ResourceName, error: ClientError) -> Failure {
    let may_have_happened = error.may_have_happened();
    let failure = match error {
        ClientError::StaleToken { presented, current } => {
            let text = |token: Option<FencingToken>| {
                token.map_or_else(|| "not told".to_owned(), |token| token.to_string())
            };
            let (presented, current) = (text(presented), text(current));
            return Failure::other(format!(
                "token {presented} is above the present one of {resource} ({current}): it was never issued for \
                 it; nothing was revoked. --current takes the lease that stands now"
            ));
        }
        other => Failure::from(other),
    };
    if !may_have_happened {
        return failure;
    }
    let kind = match failure.kind {
        Kind::Other => Kind::Unreachable,
        kind => kind,
    };
    let message = format!(
        "{failure}: the outcome is unknown. The lease of {resource} may have ended, and its holder may have been \
         asked. `palisade get {resource}` tells how it stands; to revoke it again is safe"
    );
    Failure::new(kind, message)
}

fn done(args: &RevokeArgs, token: FencingToken, revoked: Revocation) -> Result<(), Failure> {
    let outcome = match revoked.outcome {
        RevokeOutcome::Released => "released",
        RevokeOutcome::Revoked => "revoked",
        RevokeOutcome::EndedBefore => "not_held",
        _ => "unknown",
    };
    if revoked.end != LeaseEnd::Released {
        let resource = &args.resource;
        output::note(format_args!(
            "palisade: its holder may not know of it, and may still write until the next holder has sealed; \
             `palisade guard seal {resource}` seals now"
        ));
    }
    tell(
        args,
        Some(token),
        outcome,
        Some(revoked.end),
        revoked.revision,
    )
}

fn tell(
    args: &RevokeArgs,
    token: Option<FencingToken>,
    outcome: &'static str,
    end: Option<LeaseEnd>,
    revision: i64,
) -> Result<(), Failure> {
    let resource = &args.resource;
    let json = RevokedJson {
        resource,
        token,
        outcome,
        end: end.map(end_name),
        may_still_write: end.is_some_and(|end| end != LeaseEnd::Released),
        revision,
    };
    match args.output {
        Format::Json => output::pretty_json(&json),
        Format::Jsonl => output::json(&json),
        Format::Table => output::data(match (token, outcome) {
            (Some(token), "released") => {
                format!("released: {resource}, token {token}, by its holder when it was asked")
            }
            (Some(token), "revoked") => format!("revoked: {resource}, token {token}"),
            (Some(token), "not_held") => format!(
                "not held: {resource}; the lease with token {token} had ended before ({})",
                end.map_or("unknown", end_name)
            ),
            (Some(token), _) => format!(
                "ended: {resource}, token {token}; whether by this call is not known, as an earlier try of it was \
                 not answered"
            ),
            (None, _) => format!("not held: {resource}"),
        }),
    }
}
