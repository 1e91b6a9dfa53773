//! `palisade drain`.

use palisade_client::DrainOptions;
use serde::Serialize;

use crate::actor;
use crate::args::{DrainArgs, Format};
use crate::failure::Failure;
use crate::output;
use crate::progress;

#[derive(Debug, Serialize)]
struct DrainedJson<'a> {
    coordinator: &'a str,
    streams_ended: u32,
}

/// `palisade drain`.
pub(crate) async fn run(mut args: DrainArgs) -> Result<(), Failure> {
    args.client.addr = vec![args.coordinator.clone()];
    let client = crate::connect(&args.client)?;
    let addr = &args.coordinator;
    let options = DrainOptions::because(&args.why.reason, actor::name(args.why.actor.as_deref()))
        .within(args.within);
    let doing = format!("waiting for the streams of {addr} to go");
    let drained = progress::during(&doing, client.drain(addr, options)).await;
    let streams_ended = drained.map_err(|error| {
        let may_have_happened = error.may_have_happened();
        let failure = Failure::from(error);
        if may_have_happened {
            let message = format!(
                "{failure}: it may be draining; its /readyz tells, and to drain it again is safe"
            );
            return Failure::new(failure.kind, message);
        }
        failure
    })?;
    let json = DrainedJson {
        coordinator: addr,
        streams_ended,
    };
    output::note("palisade: it takes nothing new any more; stop the process when you like");
    match args.output {
        Format::Json => output::pretty_json(&json),
        Format::Jsonl => output::json(&json),
        Format::Table => output::data(format_args!(
            "drained: {addr}; {streams_ended} streams had not gone by themselves and were ended"
        )),
    }
}
