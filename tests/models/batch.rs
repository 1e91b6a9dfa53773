//! Steps of several callers as nested transactions of one (I12): what `queue.rs` models, with any two that may travel
//! together doing so. All their compares see the state before; no key is written twice; where etcd refuses all, each
//! goes on alone.

use crate::check::{depth, holds, refuted};
use crate::queue::{DISJOINT, NOT_INFECTED, NOT_STRANDED, Queue, Without};

fn batch(without: Option<Without>) -> Queue {
    Queue {
        faults: depth(),
        together: true,
        has_poison: false,
        without,
    }
}

#[test]
fn steps_that_travel_together_hold() {
    holds("batch", batch(None));
}

#[test]
fn a_resource_twice_in_a_transaction_is_refuted() {
    let twice = batch(Some(Without::OneWriteEach));
    refuted("batch: written twice", twice, DISJOINT);
}

#[test]
fn a_refused_step_is_found_out_and_changes_nobody_elses_outcome() {
    let has_poison = true;
    let faults = depth() - 1;
    let poisoned = Queue {
        has_poison,
        faults,
        ..batch(None)
    };
    holds("batch: poison", poisoned);
}

#[test]
fn an_enqueue_with_the_release_that_it_would_wait_for_is_refuted() {
    let together = batch(Some(Without::EnqueueApart));
    refuted("batch: enqueue with release", together, NOT_STRANDED);
}

#[test]
fn a_poisoned_transaction_that_is_not_split_is_refuted() {
    let has_poison = true;
    let poisoned = Queue {
        has_poison,
        ..batch(Some(Without::EachAlone))
    };
    refuted("batch: not split", poisoned, NOT_INFECTED);
}
