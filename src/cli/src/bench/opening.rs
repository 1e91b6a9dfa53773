use std::time::Duration;

use palisade_api::v1::SessionOpening;

use crate::failure::Failure;

/// What opens a session of the bench's own.
pub(crate) fn opening(ttl: Duration) -> Result<SessionOpening, Failure> {
    let (mut id, mut secret) = ([0; 16], [0; 32]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut secret))
        .map_err(|error| Failure::other(format!("no random numbers: {error}")))?;
    Ok(SessionOpening {
        open_id: hex::encode(id),
        secret: secret.to_vec(),
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        label: "palisade bench".to_owned(),
        epoch: 1,
    })
}

/// How often a session is renewed.
pub(crate) fn renewal_interval(ttl: Duration) -> Duration {
    ttl / 3
}
