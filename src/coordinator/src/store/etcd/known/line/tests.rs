use proptest::prelude::*;

use super::{Line, Listed};
use crate::domain::{Claim, Place, RequestId, Revision};
use crate::store::conformance::Client;
use crate::store::etcd::view::Spot;

fn spot(name: &str, since: u64) -> Spot {
    let session = Client::session(name, std::time::Duration::from_secs(9));
    let resource = palisade_token::ResourceName::new("r").unwrap();
    let request = RequestId::new("1").unwrap();
    Spot {
        place: Place {
            claim: Claim::new(&session, resource, request, Vec::new()),
            since: Revision(since),
        },
        key: name.as_bytes().to_vec(),
    }
}

fn listed(spots: &[&Spot], are_more: bool) -> Listed {
    let name = |spot: &&Spot| (spot.place.since, spot.key.clone());
    Listed {
        places: spots.iter().map(name).collect(),
        are_more,
    }
}

fn first(line: &Line) -> Option<Vec<u8>> {
    line.first().map(|(key, _)| key.to_vec())
}

#[test]
fn what_was_only_queued_here_proves_nothing() {
    let mut line = Line::default();
    let one = spot("one", 5);
    line.queued(&one);
    assert_eq!(first(&line), Some(one.key.clone()));
    assert!(
        !line.is_first(&one),
        "another coordinator's may wait longer"
    );
    line.begins_with(Some(&one), Revision(6));
    assert!(!line.is_first(&one), "a read is not the log");
    line.proved(Some(&one), Revision(6));
    assert!(line.is_first(&one));
}

#[test]
fn who_was_listed_is_first_in_turn_and_who_came_later_is_not() {
    let mut line = Line::default();
    let (one, two, late) = (spot("one", 5), spot("two", 7), spot("late", 11));
    line.listed(&listed(&[&one, &two], false), Revision(10));
    line.queued(&late);
    assert!(line.is_first(&one) && !line.is_first(&two));
    assert_eq!(line.first().unwrap().1, None, "whose it is was not told");
    line.left(&one);
    assert!(line.is_first(&two) && !line.is_first(&late));
    line.queued(&two);
    assert_eq!(line.first().unwrap().1, Some(two.place.clone()));
    line.left(&two);
    assert!(!line.is_first(&late), "others may have come between");
    assert_eq!(line.under(&late.key), Some(late.place.clone()));
}

/// Those who are behind the end of a list may be before somebody who was queued here.
#[test]
fn a_list_that_goes_on_proves_no_more_than_it_shows() {
    let mut line = Line::default();
    let (one, two, far) = (spot("one", 5), spot("two", 7), spot("far", 9));
    line.queued(&far);
    line.listed(&listed(&[&one, &two], true), Revision(10));
    line.left(&one);
    assert!(line.is_first(&two));
    line.left(&two);
    assert_eq!(first(&line), Some(far.key.clone()));
    assert!(!line.is_first(&far));
}

#[test]
fn a_list_shows_who_has_gone_but_not_who_came_since() {
    let mut line = Line::default();
    let (gone, stays, later) = (spot("gone", 4), spot("stays", 5), spot("later", 12));
    for spot in [&gone, &stays, &later] {
        line.queued(spot);
    }
    line.listed(&listed(&[&stays], false), Revision(10));
    assert!(line.is_first(&stays));
    assert_eq!(line.len(), 2);
    line.begins_with(None, Revision(12));
    assert_eq!(
        first(&line),
        Some(later.key.clone()),
        "put in that very transaction"
    );
    line.begins_with(None, Revision(13));
    assert!(line.is_empty());
}

#[test]
fn a_key_names_one_place_at_a_time() {
    let mut line = Line::default();
    let (before, again) = (spot("one", 5), spot("one", 9));
    line.queued(&before);
    line.queued(&again);
    line.queued(&before);
    assert_eq!(line.len(), 1);
    assert_eq!(line.under(b"one"), Some(again.place.clone()));
    line.left(&before);
    assert_eq!(line.len(), 1, "another place has left");
    line.left(&again);
    assert!(line.is_empty() && line.under(b"one").is_none());
}

/// What happens to a queue, and what this coordinator gets to see of it, later and in any order.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Comes { who: u8, is_ours: bool },
    Leaves { at: usize, is_ours: bool },
    IsLookedAt { in_log: bool },
    IsListed { most: usize },
    IsHeardOf { at: usize },
}

#[derive(Debug)]
enum Heard {
    Queued(Spot),
    Left(Spot),
    Begins(Option<Spot>, Revision, bool),
    Listed(Listed, Revision),
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        (0..6_u8, any::<bool>()).prop_map(|(who, is_ours)| Happens::Comes { who, is_ours }),
        (0..4_usize, any::<bool>()).prop_map(|(at, is_ours)| Happens::Leaves { at, is_ours }),
        any::<bool>().prop_map(|in_log| Happens::IsLookedAt { in_log }),
        (1..4_usize).prop_map(|most| Happens::IsListed { most }),
        (0..4_usize).prop_map(|at| Happens::IsHeardOf { at }),
        (0..4_usize).prop_map(|at| Happens::IsHeardOf { at }),
    ];
    prop::collection::vec(one, 0..60)
}

fn hear(line: &mut Line, heard: Heard) {
    match heard {
        Heard::Queued(spot) => line.queued(&spot),
        Heard::Left(spot) => line.left(&spot),
        Heard::Listed(listed, at) => line.listed(&listed, at),
        Heard::Begins(first, at, in_log) => {
            line.begins_with(first.as_ref(), at);
            if in_log {
                line.proved(first.as_ref(), at);
            }
        }
    }
}

proptest! {
    /// However late and in whatever order it is heard of: who is taken for the first waits longest (I11).
    #[test]
    fn whoever_is_first_is_first_in_etcd(happens in happens()) {
        let (mut line, mut queue, mut unheard) = (Line::default(), Vec::<Spot>::new(), Vec::new());
        let mut revision = 1;
        for one in happens {
            match one {
                Happens::Comes { who, is_ours } => {
                    let name = who.to_string();
                    if queue.iter().all(|spot| spot.key != name.as_bytes()) {
                        revision += 1;
                        let spot = spot(&name, revision);
                        unheard.extend(is_ours.then(|| Heard::Queued(spot.clone())));
                        queue.push(spot);
                    }
                }
                Happens::Leaves { at, is_ours } if at < queue.len() => {
                    revision += 1;
                    let spot = queue.remove(at);
                    unheard.extend(is_ours.then_some(Heard::Left(spot)));
                }
                Happens::IsLookedAt { in_log } => {
                    let first = queue.first().cloned();
                    unheard.push(Heard::Begins(first, Revision(revision), in_log));
                }
                Happens::IsListed { most } => {
                    // A list comes with a hand-over, which is a write.
                    revision += 1;
                    let spots: Vec<_> = queue.iter().take(most).collect();
                    let listed = listed(&spots, queue.len() > most);
                    unheard.push(Heard::Listed(listed, Revision(revision)));
                }
                Happens::IsHeardOf { at } if at < unheard.len() => {
                    hear(&mut line, unheard.swap_remove(at));
                }
                Happens::Leaves { .. } | Happens::IsHeardOf { .. } => {}
            }
            for behind in queue.iter().skip(1) {
                prop_assert!(!line.is_first(behind), "{behind:?} of {queue:?} in {line:?}");
            }
        }
    }
}
