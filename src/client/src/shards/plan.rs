//! Which shards an instance takes and which it gives up: pure.
//!
//! Every member plans for itself, from what it sees: who is a member, and who holds what. All use the same
//! rules, so that members who see the same plan parts of one spreading, and whoever sees something else does no
//! harm: a shard is held by whom its lease says. A quota is `shards / members`, and one more for the remainder;
//! those who hold most have the larger quotas, so that as little moves as can be.

use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Who holds a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder<M> {
    Nobody,
    Member(M),
    /// Whoever plans, who is giving it up.
    Leaving,
    /// Somebody who is no member, or not any more: it will be vacant, or never is.
    Other,
    /// It is out of this spreading here: given up for good, or tried in vain a moment ago.
    Barred,
}

/// What a member plans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// How many shards are its part.
    pub(crate) quota: usize,
    /// To be given up, by number: those above the quota.
    pub(crate) give_up: Vec<usize>,
    /// To be taken, by number: vacant ones that are meant for it.
    pub(crate) take: Vec<usize>,
}

/// What every member may have beside its quota, and at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// So many more than its quota a member keeps; it takes none of them.
    pub(crate) slack: usize,
    /// A member holds no more, whatever its quota.
    pub(crate) cap: usize,
}

/// What `me` is to do. `members` holds `me`; `holders` tells of each shard, by number.
pub(crate) fn plan<M: Copy + Ord>(
    me: M,
    members: &[M],
    holders: &[Holder<M>],
    bounds: Bounds,
) -> Plan {
    let quotas = quotas(me, members, holders, bounds.cap);
    let Some(&(quota, held)) = quotas.get(&me) else {
        return Plan::default();
    };
    let leaving = holders
        .iter()
        .filter(|holder| matches!(holder, Holder::Leaving));
    let keeps = quota.saturating_add(bounds.slack).min(bounds.cap);
    let surplus = held.saturating_sub(keeps).saturating_sub(leaving.count());
    let mine = |shard: &usize| matches!(holders.get(*shard), Some(Holder::Member(m)) if *m == me);
    let give_up = (0..holders.len()).rev().filter(mine).take(surplus);
    Plan {
        quota,
        give_up: give_up.collect(),
        take: meant_for(me, &quotas, holders),
    }
}

/// Each member's quota, and how many it holds: for the others what is being given up is held.
fn quotas<M: Copy + Ord>(
    me: M,
    members: &[M],
    holders: &[Holder<M>],
    cap: usize,
) -> BTreeMap<M, (usize, usize)> {
    let mut held: BTreeMap<M, usize> = members.iter().map(|member| (*member, 0)).collect();
    for holder in holders {
        let member = match holder {
            Holder::Member(member) => *member,
            Holder::Leaving => me,
            Holder::Nobody | Holder::Other | Holder::Barred => continue,
        };
        if let Some(count) = held.get_mut(&member) {
            *count += 1;
        }
    }
    let (fair, remainder) = match held.len() {
        0 => (0, 0),
        count => (holders.len() / count, holders.len() % count),
    };
    let mut by_count: Vec<(M, usize)> = held.into_iter().collect();
    // Stable: among equals the smaller name comes first.
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let with_quota = by_count
        .into_iter()
        .enumerate()
        .map(|(place, (member, count))| {
            let quota = fair + usize::from(place < remainder);
            (member, (quota.min(cap), count))
        });
    with_quota.collect()
}

/// The vacant shards that are meant for `me`: dealt out one by one to those below their quotas, so that members
/// who see the same do not try for the same.
fn meant_for<M: Copy + Ord>(
    me: M,
    quotas: &BTreeMap<M, (usize, usize)>,
    holders: &[Holder<M>],
) -> Vec<usize> {
    let mut wanting: Vec<(M, usize)> = quotas
        .iter()
        .map(|(member, (quota, held))| (*member, quota.saturating_sub(*held)))
        .filter(|(_, wants)| *wants > 0)
        .collect();
    let mut mine = Vec::new();
    let mut next = 0;
    for (shard, holder) in holders.iter().enumerate() {
        if wanting.is_empty() {
            break;
        }
        if !matches!(holder, Holder::Nobody) {
            continue;
        }
        next %= wanting.len();
        let Some((member, wants)) = wanting.get_mut(next) else {
            break;
        };
        if *member == me {
            mine.push(shard);
        }
        *wants -= 1;
        if *wants == 0 {
            wanting.remove(next);
        } else {
            next += 1;
        }
    }
    mine
}
