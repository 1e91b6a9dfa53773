//! `palisade doctor`: looks at everything a deployment rests on, and says what to do about what is wrong.

use crate::args::DoctorArgs;
use crate::failure::Failure;

use report::Report;

mod clock;
mod coordinators;
mod etcd;
mod guard;
mod report;

/// `palisade doctor`.
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let mut report = Report::new(args.output);
    let coordinators = coordinators::look(&args, &mut report).await?;
    let etcd = if args.etcd.is_empty() {
        etcd::Seen::default()
    } else {
        let seen = etcd::look(&args, &mut report).await?;
        report.add_all(coordinators::against_etcd(&coordinators, &seen))?;
        seen
    };
    let highest = coordinators.highest_token().max(etcd.highest_token());
    report.add_all(clock::checks(highest))?;
    if let Some(url) = &args.postgres {
        guard::postgres(url, highest, &mut report).await?;
    }
    if let Some(file) = &args.sqlite {
        guard::sqlite(file, highest, &mut report).await?;
    }
    report.end()
}
