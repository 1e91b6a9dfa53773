use palisade_api::v1::{LeaseEvent, LeaseEventType as Type};

use super::{Place, WatchPosition};

fn event(kind: Type, revision: i64) -> LeaseEvent {
    LeaseEvent {
        r#type: kind.into(),
        revision,
        ..LeaseEvent::default()
    }
}

fn at(revision: i64) -> Option<WatchPosition> {
    Some(WatchPosition { revision })
}

/// Hears and hands on; the revisions of what was fresh.
fn takes(place: &mut Place, events: &[(Type, i64)]) -> Vec<i64> {
    let events = events.iter().map(|(kind, at)| event(*kind, *at)).collect();
    let fresh = place.hears(events);
    for (index, event) in fresh.iter().enumerate() {
        place.hands_on(event, index + 1 == fresh.len());
    }
    fresh.iter().map(|event| event.revision).collect()
}

#[test]
fn a_snapshot_is_resumed_only_once_it_is_complete() {
    let mut place = Place::begin(None);
    assert_eq!(place.resume_revision(), 0);
    takes(&mut place, &[(Type::Snapshot, 7)]);
    assert_eq!((place.resume_revision(), place.position()), (0, None));
    place.breaks_off();
    // Nothing came of the next stream.
    place.breaks_off();
    assert_eq!(takes(&mut place, &[]), [0; 0]);
    let told = takes(&mut place, &[(Type::Snapshot, 9)]);
    assert_eq!(told, [0, 9], "forget what was told");
    assert_eq!(takes(&mut place, &[(Type::SnapshotEnd, 9)]), [9], "once");
    assert_eq!((place.resume_revision(), place.position()), (9, at(9)));
    place.breaks_off();
    assert_eq!(place.resume_revision(), 9);
    assert_eq!(takes(&mut place, &[(Type::Granted, 10)]), [10]);
}

#[test]
fn what_was_heard_is_not_told_again_and_a_revision_is_told_whole() {
    let mut place = Place::begin(at(10));
    assert_eq!(place.position(), at(10));
    let whole = [(Type::Released, 12), (Type::Granted, 12)];
    assert_eq!(takes(&mut place, &whole), [12, 12]);
    assert_eq!(
        takes(&mut place, &whole),
        [0; 0],
        "from another coordinator"
    );
    assert_eq!(takes(&mut place, &[(Type::Bookmark, 12)]), [12]);
    assert_eq!(takes(&mut place, &[(Type::Bookmark, 15)]), [15]);
    assert_eq!(place.resume_revision(), 15);
    assert_eq!(
        takes(&mut place, &[(Type::Expired, 14), (Type::Granted, 16)]),
        [16]
    );
}

#[test]
fn nothing_counts_as_handed_on_before_the_last_event_of_a_message() {
    let mut place = Place::begin(at(10));
    let fresh = place.hears(vec![event(Type::Released, 12), event(Type::Granted, 12)]);
    place.hands_on(&fresh[0], false);
    assert_eq!(place.position(), at(10));
    assert_eq!(place.resume_revision(), 12, "this process has the rest");
    place.hands_on(&fresh[1], true);
    assert_eq!(place.position(), at(12));
}

#[test]
fn after_a_resync_revisions_may_be_smaller() {
    let mut place = Place::begin(at(100));
    takes(&mut place, &[(Type::Resync, 0)]);
    assert_eq!((place.resume_revision(), place.position()), (0, None));
    takes(&mut place, &[(Type::Snapshot, 40), (Type::SnapshotEnd, 40)]);
    assert_eq!(takes(&mut place, &[(Type::Granted, 41)]), [41]);
    let all = [
        (Type::Resync, 0),
        (Type::SnapshotEnd, 20),
        (Type::Granted, 21),
    ];
    assert_eq!(takes(&mut place, &all), [0, 20, 21], "all in one");
    assert_eq!(place.position(), at(21));
}

#[test]
fn a_position_is_a_revision_above_zero() {
    for text in ["", "0", "-1", "x", "9223372036854775808"] {
        assert!(text.parse::<WatchPosition>().is_err(), "{text:?}");
    }
}
