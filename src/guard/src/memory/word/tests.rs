//! Every order of the word's steps, by loom: also those that weak memory adds.

use std::panic::catch_unwind;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use super::{Atomic, COUNT, COUNT_BITS, MAX_PERMITS, NotEntered, Word};

impl Atomic for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load_acquire(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn store_release(&self, value: u64) {
        self.store(value, Ordering::Release);
    }

    fn exchange_acquire(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange(current, new, Ordering::Acquire, Ordering::Acquire)
    }

    fn decrement_release(&self) -> u64 {
        self.fetch_sub(1, Ordering::Release)
    }

    fn and(&self, mask: u64) -> u64 {
        self.fetch_and(mask, Ordering::AcqRel)
    }
}

type Enter = fn(&Word<AtomicU64>, u64) -> bool;
type Leave = fn(&Word<AtomicU64>);

/// As it would be without one word for both: a look at the epoch, and then the count.
fn look_then_count(word: &Word<AtomicU64>, epoch: u64) -> bool {
    let is_open = word.0.load(Ordering::SeqCst) >> COUNT_BITS == epoch;
    if is_open {
        word.0.fetch_add(1, Ordering::SeqCst);
    }
    is_open
}

/// Writers of epoch 1 and a seal to epoch 2. Nobody is inside once the seal has returned, and what was
/// done inside is seen.
fn takeover(writers: usize, enter: Enter, leave: Leave) {
    let mut orders = loom::model::Builder::new();
    // Of two threads all orders; of three those in which one is put aside at most so often at a bad moment.
    orders.preemption_bound = (writers > 1).then_some(2);
    orders.check(move || {
        let word: Arc<Word<AtomicU64>> = Arc::new(Word::new(1));
        let is_sealed = Arc::new(AtomicBool::new(false));
        let data: Arc<Vec<AtomicU64>> = Arc::new((0..writers).map(|_| AtomicU64::new(0)).collect());
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (word, is_sealed, data) =
                    (Arc::clone(&word), Arc::clone(&is_sealed), Arc::clone(&data));
                thread::spawn(move || {
                    let is_inside = enter(&word, 1);
                    if is_inside {
                        data[writer].store(1, Ordering::Relaxed);
                        assert!(!is_sealed.load(Ordering::SeqCst), "inside after the seal");
                        leave(&word);
                    }
                    is_inside
                })
            })
            .collect();
        word.close();
        while !word.is_empty() {
            thread::yield_now();
        }
        let seen: Vec<u64> = data
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .collect();
        word.0.store(2 << COUNT_BITS, Ordering::Release);
        is_sealed.store(true, Ordering::SeqCst);
        for (writer, thread) in threads.into_iter().enumerate() {
            let was_inside = thread.join().unwrap();
            assert_eq!(seen[writer], u64::from(was_inside), "seen after the seal");
        }
    });
}

fn enter(word: &Word<AtomicU64>, epoch: u64) -> bool {
    word.enter(epoch).is_ok()
}

fn leave(word: &Word<AtomicU64>) {
    word.leave();
}

#[test]
fn nobody_is_inside_once_a_seal_has_returned() {
    takeover(1, enter, leave);
    takeover(2, enter, leave);
}

/// The race that the word is for: enter looks, the seal closes and sees nobody, enter counts itself.
#[test]
fn a_look_before_the_count_lets_one_slip_in() {
    assert!(catch_unwind(|| takeover(1, look_then_count, leave)).is_err());
}

/// Without release on leaving, the new holder may read what was there before the last write.
#[test]
fn a_relaxed_leave_hides_the_last_write() {
    let relaxed: Leave = |word| {
        word.0.fetch_sub(1, Ordering::Relaxed);
    };
    assert!(catch_unwind(|| takeover(1, enter, relaxed)).is_err());
}

/// Exactly one of those who leave a closed word wakes the seal.
#[test]
fn one_of_those_who_leave_is_the_last() {
    loom::model(|| {
        let word: Arc<Word<AtomicU64>> = Arc::new(Word::new(1));
        word.enter(1).unwrap();
        word.enter(1).unwrap();
        word.close();
        let other = Arc::clone(&word);
        let thread = thread::spawn(move || other.leave());
        let here = word.leave();
        assert_ne!(thread.join().unwrap(), here);
        assert!(word.is_empty());
    });
}

#[test]
fn a_full_word_lets_nobody_in_and_keeps_its_epoch() {
    let word: Word = Word::new(7);
    word.0
        .store((7 << COUNT_BITS) | (COUNT - 1), Ordering::Relaxed);
    assert_eq!(word.enter(7), Ok(()));
    assert_eq!(word.enter(7), Err(NotEntered::Full));
    assert_eq!(word.enter(8), Err(NotEntered::Elsewhere));
    assert!(!word.leave());
    assert_eq!(word.enter(7), Ok(()));
    assert_eq!(MAX_PERMITS, 16_777_215);
}

#[test]
fn a_closed_word_lets_nobody_in() {
    let word: Word = Word::new(0);
    assert_eq!(word.enter(0), Err(NotEntered::Elsewhere));
    assert_eq!(word.enter(1), Err(NotEntered::Elsewhere));
}
