//! I2, guarded effects: looks at what the guard let in, in the order in which it took effect. Tokens of writes never
//! decrease, equal ones are of one holder, nothing is written under a token that is not sealed, and after a seal
//! nothing below it.

use std::collections::BTreeMap;

use super::{Violation, broken};
use crate::history::{Guarded, History, What};

const I2: &str = "I2 guarded effects";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut fences = BTreeMap::new();
    let mut written = BTreeMap::new();
    for (index, entry) in history.entries.iter().enumerate() {
        let What::Guarded { grant, what, .. } = &entry.what else {
            continue;
        };
        let (name, shown) = (&grant.resource, (grant.token, grant.holder));
        match what {
            Guarded::Sealed => {
                let fence = fences.entry(name).or_insert(shown);
                if shown.0 < fence.0 || (shown.0 == fence.0 && shown.1 != fence.1) {
                    let what = format!("{grant} is sealed, and the fence was at {fence:?}");
                    return broken(I2, Some(name), index, what);
                }
                *fence = shown;
            }
            Guarded::Wrote { .. } => {
                if fences.get(name) != Some(&shown) {
                    let fence = fences.get(name);
                    let what = format!("{grant} writes, and the fence is at {fence:?}");
                    return broken(I2, Some(name), index, what);
                }
                let last = written.entry(name).or_insert(shown);
                if shown.0 < last.0 || (shown.0 == last.0 && shown.1 != last.1) {
                    let what = format!("{grant} writes after {last:?}");
                    return broken(I2, Some(name), index, what);
                }
                *last = shown;
            }
            Guarded::Read | Guarded::Replayed { .. } | Guarded::Refused(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::{ByHand, CLIENT, grant, holder};
    use super::check;
    use crate::history::{Barred, Guarded, What};

    const WROTE: Guarded = Guarded::Wrote { key: None };

    #[test]
    fn writes_of_one_holder_after_the_other_fit() {
        let first = ByHand::new().guarded(10, Guarded::Sealed);
        let second = first.guarded(10, WROTE).guarded(11, Guarded::Sealed);
        let late = second.guarded(10, Guarded::Refused(Barred::Stale));
        late.guarded(11, WROTE).guarded(11, WROTE).fits(check);
    }

    #[test]
    fn a_write_below_the_fence_is_seen() {
        let first = ByHand::new().guarded(10, Guarded::Sealed);
        let second = first.guarded(11, Guarded::Sealed);
        second.guarded(10, WROTE).breaks(check);
    }

    #[test]
    fn a_write_above_the_fence_is_seen() {
        let first = ByHand::new().guarded(10, Guarded::Sealed);
        first.guarded(11, WROTE).breaks(check);
    }

    #[test]
    fn a_fence_that_is_lowered_is_seen() {
        let first = ByHand::new().guarded(11, Guarded::Sealed);
        first.guarded(10, Guarded::Sealed).breaks(check);
    }

    #[test]
    fn another_holder_with_the_same_token_is_seen() {
        let first = ByHand::new().guarded(10, Guarded::Sealed);
        let mut other = grant(10);
        other.holder = holder(99);
        let wrote = What::Guarded {
            host: CLIENT,
            grant: other,
            what: WROTE,
        };
        first.note(wrote).breaks(check);
    }
}
