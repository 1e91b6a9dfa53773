use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Bounds, Holder, plan};

const FREE: Bounds = Bounds {
    slack: 0,
    cap: usize::MAX,
};

/// The shards, and who is there, as every member sees them at once.
#[derive(Debug, Clone)]
struct World {
    members: Vec<u8>,
    held: Vec<Option<u8>>,
    bounds: Bounds,
}

impl World {
    fn holders(&self) -> Vec<Holder<u8>> {
        let of = |held: &Option<u8>| match held {
            None => Holder::Nobody,
            Some(member) if self.members.contains(member) => Holder::Member(*member),
            Some(_gone) => Holder::Other,
        };
        self.held.iter().map(of).collect()
    }

    fn counts(&self) -> BTreeMap<u8, usize> {
        let mut counts: BTreeMap<u8, usize> = self.members.iter().map(|m| (*m, 0)).collect();
        for member in self.held.iter().flatten() {
            if let Some(count) = counts.get_mut(member) {
                *count += 1;
            }
        }
        counts
    }

    /// Everybody looks, then acts. Says how many shards were given up and taken.
    fn round(&mut self) -> (usize, usize) {
        let holders = self.holders();
        let (mut given_up, mut taken) = (0, 0);
        let members = self.members.clone();
        for me in &members {
            let plan = plan(*me, &members, &holders, self.bounds);
            for shard in plan.give_up {
                assert_eq!(self.held[shard], Some(*me), "gives up what is its own");
                self.held[shard] = None;
                given_up += 1;
            }
            for shard in plan.take {
                assert_eq!(self.held[shard], None, "nobody else takes it");
                self.held[shard] = Some(*me);
                taken += 1;
            }
        }
        (given_up, taken)
    }

    /// One member looks and acts.
    fn step(&mut self, who: usize) {
        let me = self.members[who % self.members.len()];
        let plan = plan(me, &self.members, &self.holders(), self.bounds);
        for shard in plan.give_up {
            self.held[shard] = None;
        }
        for shard in plan.take {
            self.held[shard] = Some(me);
        }
    }

    fn fair(&self) -> (usize, usize) {
        let (shards, members) = (self.held.len(), self.members.len());
        let cap = self.bounds.cap;
        (
            (shards / members).min(cap),
            shards.div_ceil(members).min(cap),
        )
    }

    fn settled(&self) -> bool {
        let (least, most) = self.fair();
        let mut counts = self.counts().into_values();
        let within = counts.all(|count| count >= least && count <= most + self.bounds.slack);
        let served: usize = self.held.iter().flatten().count();
        let can = self.bounds.cap.saturating_mul(self.members.len());
        within && served >= self.held.len().min(can)
    }

    /// How many shards must move at least: those above what fits in the largest quotas, given to whoever has most.
    fn must_move(&self) -> usize {
        let (shards, members) = (self.held.len(), self.members.len());
        let mut counts: Vec<_> = self.counts().into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let quota =
            |place| (shards / members + usize::from(place < shards % members)).min(self.bounds.cap);
        let over = counts.iter().enumerate();
        over.map(|(place, count)| count.saturating_sub(quota(place)))
            .sum()
    }
}

fn world() -> impl Strategy<Value = World> {
    let members = prop::collection::btree_set(0_u8..12, 1..9);
    let held = prop::collection::vec(prop::option::of(0_u8..12), 1..80);
    let cap = prop_oneof![Just(usize::MAX), 1_usize..40];
    (members, held, cap).prop_map(|(members, mut held, cap)| {
        let members: Vec<u8> = members.into_iter().collect();
        // Those who have gone lose what they held: their sessions end.
        for holder in &mut held {
            *holder = holder.filter(|member| members.contains(member));
        }
        let bounds = Bounds { slack: 0, cap };
        World {
            members,
            held,
            bounds,
        }
    })
}

/// How often everybody in turn looks and acts until the shards are spread evenly; five at the most.
fn rounds_until_settled(world: &mut World) -> usize {
    (0..5)
        .take_while(|_| {
            let was_settled = world.settled();
            for who in 0..world.members.len() {
                world.step(who);
            }
            !was_settled
        })
        .count()
}

proptest! {
    #[test]
    fn who_see_the_same_are_even_after_two_rounds_and_move_no_more_than_needed(mut world in world()) {
        let must_move = world.must_move();
        let (given_up, _taken) = world.round();
        prop_assert_eq!(given_up, must_move, "as little as can be");
        let (again, _taken) = world.round();
        prop_assert_eq!(again, 0, "what was given up is not followed by more");
        prop_assert!(world.settled(), "{:?}", world);
        prop_assert_eq!(world.round(), (0, 0), "nothing flaps");
    }

    #[test]
    fn nobody_takes_above_its_quota_or_the_cap(world in world()) {
        let holders = world.holders();
        for (me, count) in world.counts() {
            let plan = plan(me, &world.members, &holders, world.bounds);
            prop_assert!(plan.quota <= world.bounds.cap);
            prop_assert!(plan.take.is_empty() || count + plan.take.len() <= plan.quota);
            prop_assert!(plan.give_up.is_empty() || plan.take.is_empty());
            prop_assert!(count - plan.give_up.len() >= plan.quota.min(count));
        }
    }

    /// Whoever acts in between sees larger quotas elsewhere than there are in the end, so that a third round
    /// may be needed; never more.
    #[test]
    fn one_after_another_in_any_order_they_are_even_after_three_rounds(
        mut world in world(),
        order in prop::collection::vec(0_usize..8, 0..40),
    ) {
        for who in order {
            world.step(who);
        }
        let rounds = rounds_until_settled(&mut world);
        prop_assert!(rounds <= 3, "{rounds} rounds: {world:?}");
    }

    #[test]
    fn with_slack_as_much_is_kept_and_no_more(mut world in world(), slack in 0_usize..4) {
        world.bounds.slack = slack;
        for _round in 0..3 {
            world.round();
        }
        let (_least, most) = world.fair();
        prop_assert!(world.counts().into_values().all(|count| count <= most + slack));
        prop_assert_eq!(world.round(), (0, 0));
    }

    #[test]
    fn what_is_being_given_up_counts_but_once(world in world(), leaving in prop::collection::vec(any::<bool>(), 80)) {
        let me = world.members[0];
        let mut holders = world.holders();
        let full = plan(me, &world.members, &holders, world.bounds);
        let mut gone = 0;
        for (holder, leaves) in holders.iter_mut().zip(leaving) {
            if *holder == Holder::Member(me) && leaves {
                *holder = Holder::Leaving;
                gone += 1;
            }
        }
        let rest = plan(me, &world.members, &holders, world.bounds);
        prop_assert_eq!(rest.quota, full.quota);
        prop_assert_eq!(rest.give_up.len(), full.give_up.len().saturating_sub(gone));
    }
}

#[test]
fn whoever_comes_gets_its_part_from_those_who_have_most() {
    let mut world = World {
        members: vec![1, 2, 3],
        held: [vec![Some(1); 5], vec![Some(2); 3]].concat(),
        bounds: FREE,
    };
    assert_eq!(world.round().0, 2);
    assert_eq!(world.round(), (0, 2));
    let counts: Vec<_> = world.counts().into_values().collect();
    assert_eq!(counts, [3, 3, 2]);
}

#[test]
fn what_is_barred_is_not_taken_and_whoever_is_no_member_plans_nothing() {
    let holders = [Holder::Nobody, Holder::Barred, Holder::Other];
    assert_eq!(plan(1, &[1], &holders, FREE).take, [0]);
    assert_eq!(plan(2, &[1], &holders, FREE), super::Plan::default());
    assert_eq!(plan(1, &[], &holders, FREE), super::Plan::default());
}

#[test]
fn what_was_kept_under_a_quota_that_moved_on_is_given_up_in_the_third_round() {
    let mut held = vec![None; 24];
    for shard in [7, 9, 12, 13, 21, 22] {
        held[shard] = Some(8);
    }
    (held[4], held[20]) = (Some(2), Some(7));
    let mut world = World {
        members: vec![0, 1, 2, 7, 8, 9, 10],
        held,
        bounds: FREE,
    };
    world.step(5);
    assert_eq!(rounds_until_settled(&mut world), 3);
}
