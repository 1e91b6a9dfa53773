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
