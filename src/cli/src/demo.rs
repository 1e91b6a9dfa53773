//! `palisade demo`: real processes, a real freeze, and a database that refuses, or does not.

mod actor;
mod bank;
mod scratch;
mod script;
mod stage;
mod story;
mod timeline;
mod worker;

use crate::args::DemoArgs;
use crate::failure::{Failure, Kind};
use crate::signals::Stop;

pub(crate) use scratch::{create_database, delete_prefix, drop_database};
pub(crate) use worker::run as worker;

use stage::Stage;
use timeline::Timeline;

/// `palisade demo`. Whatever happens, it leaves neither processes nor data behind.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut timeline = Timeline::start();
    let mut stage = Stage::build(&args)?;
    let told = tokio::select! {
        told = Box::pin(story::tell(&mut stage, &mut timeline)) => told,
        signal = stop.asked() => Err(signal.failure("the demo was stopped")),
    };
    // Where the kind says what is wrong, the logs say nothing better.
    if told
        .as_ref()
        .is_err_and(|failure| failure.kind == Kind::Other)
    {
        timeline.broken(stage.log_lines());
    }
    // Those who are impatient by now leave what remains.
    let struck = tokio::select! {
        struck = stage.strike() => struck,
        signal = stop.asked() => Err(signal.failure("the demo was stopped; scratch data may remain")),
    };
    told.and(struck)?;
    timeline.end()
}
