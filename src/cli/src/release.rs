use palisade_client::{ClientError, Credentials, Hold, LeaseEnd, Secret};

use crate::args::ReleaseArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress;

/// `palisade release`.
pub(crate) async fn run(args: ReleaseArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let secret = Secret::from_hex(&args.secret).map_err(|error| match error {
        // How much there is of it helps, and gives nothing away.
        ClientError::Invalid { bound, .. } => Failure::usage(format!(
            "--secret has {} characters; it must be {bound}",
            args.secret.chars().count()
        )),
        other => other.into(),
    })?;
    let hold = match (args.token, args.request) {
        (Some(token), _) => Hold::Token(token),
        (None, Some(request)) => Hold::Request(request),
        (None, None) => return Err(Failure::usage("name the lease by --token or --request")),
    };
    let session = client.detached(Credentials::new(args.session, secret, args.epoch));
    let released = session.release(&args.resource, hold, None);
    let released = progress::during("releasing", released).await?;
    let resource = &args.resource;
    match released.ended_before {
        None => output::data(format_args!("released {resource}")),
        Some(_) if released.queue_place_given_back => output::data(format_args!(
            "gave back the place in the queue of {resource}"
        )),
        Some(end) => output::data(format_args!("not held: {resource} {}", how(end))),
    }
}

fn how(end: LeaseEnd) -> &'static str {
    match end {
        LeaseEnd::Released => "was released before",
        LeaseEnd::Expired => "has expired before",
        LeaseEnd::Revoked => "was revoked before",
        _ => "has ended before, or was never held by it",
    }
}
