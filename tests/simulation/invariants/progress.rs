//! Progress (of I6 and I13): looks at calls, from the end of the faults on. Whoever asks is answered within the time
//! that the run states, unless its process is gone.

use std::collections::BTreeMap;

use super::{Violation, broken};
use crate::history::{Asked, At, CallId, Fault, History, Phase, What};

const PROGRESS: &str = "progress";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut open: BTreeMap<CallId, (&Asked, At)> = BTreeMap::new();
    let mut healthy = None;
    for (index, entry) in history.entries.iter().enumerate() {
        if let Some(healthy) = healthy {
            let late = open.values().find(|(_, since)| {
                let since: At = *since;
                since.max(healthy).after(history.setting.answer) < entry.at
            });
            if let Some((asked, since)) = late {
                let what = format!("{asked:?} has no answer since {since:?}");
                return broken(PROGRESS, Some(&asked.resource), index, what);
            }
        }
        match &entry.what {
            What::Asked(asked) => {
                open.insert(asked.call, (asked, entry.at));
            }
            What::Told { call, .. } => {
                open.remove(call);
            }
            What::Fault(Fault::Crash(host)) => open.retain(|_, (asked, _)| asked.host != *host),
            What::Phase(Phase::FaultsEnd) => healthy = Some(entry.at),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::{ByHand, CLIENT, acquire};
    use super::check;
    use crate::history::{Fault, Outcome, Phase, What};

    #[test]
    fn an_answer_in_time_fits() {
        let asked = ByHand::new().ask(1, 1, acquire(10));
        let healed = asked.at_ms(100_000).phase(Phase::FaultsEnd);
        let told = healed.at_ms(150_000).tell(1, Outcome::Unknown);
        told.at_ms(900_000).phase(Phase::Quiet).fits(check);
    }

    #[test]
    fn no_answer_is_seen() {
        let asked = ByHand::new().phase(Phase::FaultsEnd).ask(1, 1, acquire(10));
        asked.at_ms(61_000).phase(Phase::Quiet).breaks(check);
    }

    #[test]
    fn nobody_answers_a_process_that_is_gone() {
        let asked = ByHand::new().phase(Phase::FaultsEnd).ask(1, 1, acquire(10));
        let gone = asked.note(What::Fault(Fault::Crash(CLIENT)));
        gone.at_ms(61_000).phase(Phase::Quiet).fits(check);
    }
}
