//! Clocks that run wrong.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use palisade_coordinator::domain::WallClock;

/// A clock that runs slower than it says: it shows so many thousandths of what goes by.
#[derive(Debug)]
pub(super) struct Slow<C: ?Sized> {
    pub permille: u32,
    pub inner: Arc<C>,
}

impl<C: ?Sized> Slow<C> {
    fn shown(&self, truth: Duration) -> Duration {
        truth * self.permille / 1000
    }

    fn waits(&self, shown: Duration) -> Duration {
        shown * 1000 / self.permille
    }
}

impl palisade_client::Clock for Slow<dyn palisade_client::Clock> {
    fn now(&self) -> palisade_client::Moment {
        palisade_client::Moment(self.shown(self.inner.now().0))
    }

    fn sleep(&self, while_: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(self.waits(while_))
    }
}

#[async_trait]
impl palisade_coordinator::clock::Clock for Slow<dyn palisade_coordinator::clock::Clock> {
    fn now(&self) -> palisade_coordinator::clock::Moment {
        palisade_coordinator::clock::Moment(self.shown(self.inner.now().0))
    }

    fn wall(&self) -> WallClock {
        self.inner.wall()
    }

    async fn sleep(&self, while_: Duration) {
        self.inner.sleep(self.waits(while_)).await;
    }
}

/// A wall clock that stands still.
#[derive(Debug)]
pub(super) struct Stopped {
    pub wall: WallClock,
    pub inner: Arc<dyn palisade_coordinator::clock::Clock>,
}

#[async_trait]
impl palisade_coordinator::clock::Clock for Stopped {
    fn now(&self) -> palisade_coordinator::clock::Moment {
        self.inner.now()
    }

    fn wall(&self) -> WallClock {
        self.wall
    }

    async fn sleep(&self, while_: Duration) {
        self.inner.sleep(while_).await;
    }
}
