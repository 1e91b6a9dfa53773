//! I14, exactly once within the store: looks at effects that the guard let in. One with a key is applied once within the
//! key's lifetime, across retries, takeovers and crashes; and where it is told to have been applied before, it was.

use std::collections::BTreeMap;

use super::{Violation, broken};
use crate::history::{Guarded, History, What};

const I14: &str = "I14 exactly once";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut applied = BTreeMap::new();
    for (index, entry) in history.entries.iter().enumerate() {
        let What::Guarded { grant, what, .. } = &entry.what else {
            continue;
        };
        let name = Some(&grant.resource);
        match what {
            Guarded::Wrote { key: Some(key) } => {
                let before = applied.insert((&grant.resource, *key), entry.at);
                if let Some(before) = before
                    && before.after(history.setting.key_lifetime) > entry.at
                {
                    let what = format!("key {key} is applied by {grant}, and was at {before:?}");
                    return broken(I14, name, index, what);
                }
            }
            Guarded::Replayed { key } if !applied.contains_key(&(&grant.resource, *key)) => {
                let what = format!("key {key} is told to have been applied, and never was");
                return broken(I14, name, index, what);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::by_hand::ByHand;
    use super::check;
    use crate::history::Guarded;

    const WROTE: Guarded = Guarded::Wrote { key: Some(1) };

    #[test]
    fn once_and_then_replayed_fits() {
        let once = ByHand::new().guarded(10, WROTE);
        let other = once.guarded(10, Guarded::Wrote { key: Some(2) });
        let replayed = other.guarded(11, Guarded::Replayed { key: 1 });
        let free = replayed.guarded(11, Guarded::Wrote { key: None });
        free.guarded(11, Guarded::Wrote { key: None }).fits(check);
    }

    #[test]
    fn twice_is_seen_but_for_a_key_that_was_forgotten_in_due_time() {
        let once = ByHand::new().guarded(10, WROTE);
        once.clone().guarded(11, WROTE).breaks(check);
        let short = once.with(|history| history.setting.key_lifetime = Duration::from_secs(1));
        short.at_ms(2000).guarded(11, WROTE).fits(check);
    }

    #[test]
    fn an_answer_that_replays_nothing_is_seen() {
        ByHand::new()
            .guarded(10, Guarded::Replayed { key: 1 })
            .breaks(check);
    }
}
