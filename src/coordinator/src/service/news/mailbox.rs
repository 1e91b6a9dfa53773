//! What somebody has still to be told: bounded, so that who does not listen costs nobody else anything (I12).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// News for one listener.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<(T, usize)>,
    load: usize,
    bound: usize,
    is_closed: bool,
}

/// Nothing more goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl<T> Mailbox<T> {
    /// A mailbox for so much, besides what it begins with.
    pub(super) fn new(bound: usize, first: Vec<(T, usize)>) -> Self {
        let load = first.iter().map(|(_, load)| load).sum();
        Self {
            inner: Mutex::new(Inner {
                items: first.into(),
                load,
                bound: bound.saturating_add(load),
                is_closed: false,
            }),
            arrived: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: T, load: usize) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.is_closed || inner.load.saturating_add(load) > inner.bound {
            return Err(Full);
        }
        inner.load += load;
        inner.items.push_back((item, load));
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// Puts one thing in place of all that was there.
    pub(super) fn replace(&self, item: T) {
        let mut inner = self.lock();
        inner.items.clear();
        inner.items.push_back((item, 0));
        inner.load = 0;
        drop(inner);
        self.arrived.notify_one();
    }

    /// Throws away what is there, for good.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.items = VecDeque::new();
        inner.is_closed = true;
        drop(inner);
        self.arrived.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// The next thing; `None` once it is closed. Nothing is lost if the future is dropped.
    pub(super) async fn next(&self) -> Option<T> {
        loop {
            {
                let mut inner = self.lock();
                if let Some((item, load)) = inner.items.pop_front() {
                    inner.load -= load;
                    return Some(item);
                }
                if inner.is_closed {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::{Full, Mailbox};

    #[test]
    fn more_than_the_bound_does_not_go_in() {
        let mailbox = Mailbox::new(2, vec![("first", 5)]);
        assert_eq!(mailbox.push("second", 2), Ok(()));
        assert_eq!(mailbox.push("third", 1), Err(Full));
        assert_eq!(mailbox.next().now_or_never(), Some(Some("first")));
        assert_eq!(mailbox.push("fourth", 5), Ok(()));
        mailbox.replace("instead");
        assert_eq!(mailbox.next().now_or_never(), Some(Some("instead")));
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.next().now_or_never(), None);
        mailbox.close();
        assert_eq!(mailbox.push("late", 0), Err(Full));
        assert_eq!(mailbox.next().now_or_never(), Some(None));
    }
}
