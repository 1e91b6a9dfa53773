//! `palisade check`: how a token stands.

use palisade_client::TokenState;
use palisade_token::{FencingToken, ResourceName};
use serde::Serialize;

use crate::args::{CheckTokenArgs, Format};
use crate::failure::{Failure, Kind};
use crate::output;
use crate::progress::{self, ASKING};

#[derive(Debug, Serialize)]
struct CheckedJson<'a> {
    resource: &'a ResourceName,
    token: FencingToken,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<FencingToken>,
    revision: i64,
}

/// `palisade check`.
pub(crate) async fn run(args: CheckTokenArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let (resource, token) = (&args.resource, args.token);
    let checked = progress::during(ASKING, client.check_token(resource, token)).await?;
    let (state, failure) = match checked.state {
        TokenState::Current => ("current", None),
        TokenState::Stale => ("stale", Some((Kind::Lost, "it is not the present lease's"))),
        TokenState::Vacant => ("vacant", Some((Kind::Lost, "nobody holds the resource"))),
        TokenState::Ahead => (
            "ahead",
            Some((
                Kind::Other,
                "it is above any token that can have been issued: it is of another store, or this store's history \
                 went backwards; see `palisade doctor`",
            )),
        ),
        _ => (
            "unknown",
            Some((
                Kind::Other,
                "the answer is not understood; use a newer palisade",
            )),
        ),
    };
    let json = CheckedJson {
        resource,
        token,
        state,
        current: checked.current,
        revision: checked.revision,
    };
    match args.output {
        Format::Json => output::pretty_json(&json)?,
        Format::Jsonl => output::json(&json)?,
        Format::Table => output::data(state)?,
    }
    match failure {
        None => Ok(()),
        Some((kind, why)) => Err(Failure::new(
            kind,
            format!("token {token} of {resource}: {why}"),
        )),
    }
}
