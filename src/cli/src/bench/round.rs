//! One round: holders at work for a while, after a short while to warm up.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::party::{Holder, Party, Setting};
use super::processes::Cpu;
use super::rig::Rig;
use crate::args::Variant;
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;

/// Connections and caches are warm by then, and all queues as long as they get.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);
/// Everybody has had a turn by then, on whatever etcd; else something hangs.
pub(super) const END_LIMIT: Duration = Duration::from_secs(60);

/// What was measured in one round.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Cycles or hand-overs.
    pub(crate) operations: usize,
    pub(crate) time: Duration,
    /// How long each took, in ascending order.
    pub(crate) latencies: Vec<Duration>,
    /// CPU seconds used meanwhile.
    pub(crate) cpu: Cpu,
}

/// When a round is measured, by a clock that all its tasks share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) clock: Stopwatch,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Window {
    pub(super) fn is_over(&self) -> bool {
        self.clock.elapsed() >= self.to
    }

    /// Whether what ends now counts.
    pub(super) fn counts(&self, now: Duration) -> bool {
        (self.from..self.to).contains(&now)
    }

    pub(super) async fn until(&self, point: Duration) {
        clock::pause(point.saturating_sub(self.clock.elapsed())).await;
    }
}

/// Opens what a round needs, runs it, and closes it again.
pub(crate) async fn run(
    rig: &Rig,
    variant: Variant,
    setting: Setting,
    size: usize,
    length: Duration,
) -> Result<Sample, Failure> {
    let (party, holders) = Party::gather(rig, variant, setting, size).await?;
    let window = Window {
        clock: Stopwatch::start(),
        from: WARM_UP,
        to: WARM_UP + length,
    };
    let baton = Baton::default();
    let sample = measure(rig, window, holders, |holder| {
        let baton = baton.clone();
        async move {
            match setting {
                Setting::Apart => cycle(holder, window).await,
                Setting::Together => pass_on(holder, window, &baton).await,
            }
        }
    });
    let sample = sample.await?;
    party.close().await?;
    Ok(sample)
}

/// The time of each cycle.
async fn cycle(mut holder: Holder, window: Window) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while !window.is_over() {
        let began = window.clock.elapsed();
        holder.acquire().await?;
        holder.release().await?;
        let ended = window.clock.elapsed();
        if window.counts(ended) {
            times.push(ended.saturating_sub(began));
        }
    }
    Ok(times)
}

/// When the holder before sent its release, in nanoseconds of the window's clock; 0 before the first.
/// The next grant comes after it, so one number is enough.
#[derive(Debug, Clone, Default)]
struct Baton(Arc<AtomicU64>);

impl Baton {
    fn lay_down(&self, now: Duration) {
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanoseconds, Ordering::Release);
    }

    fn take_up(&self) -> Option<Duration> {
        match self.0.swap(0, Ordering::AcqRel) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }
}

/// The time of each hand-over to this holder: from when the one before sends its release until this one has
/// its grant.
async fn pass_on(
    mut holder: Holder,
    window: Window,
    baton: &Baton,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while !window.is_over() {
        holder.acquire().await?;
        let granted = window.clock.elapsed();
        if let Some(released) = baton.take_up()
            && window.counts(granted)
        {
            times.push(granted.saturating_sub(released));
        }
        baton.lay_down(window.clock.elapsed());
        holder.release().await?;
    }
    Ok(times)
}

async fn measure<W>(
    rig: &Rig,
    window: Window,
    holders: Vec<Holder>,
    work: impl Fn(Holder) -> W,
) -> Result<Sample, Failure>
where
    W: Future<Output = Result<Vec<Duration>, Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for holder in holders {
        tasks.spawn(work(holder));
    }
    let mut latencies = Vec::new();
    gather(&mut tasks, &mut latencies, window.until(window.from)).await?;
    let (began, before) = (window.clock.elapsed(), rig.watched().cpu());
    gather(&mut tasks, &mut latencies, window.until(window.to)).await?;
    let (ended, after) = (window.clock.elapsed(), rig.watched().cpu());
    let rest = clock::within(END_LIMIT, all(&mut tasks, &mut latencies)).await;
    rest.ok_or_else(|| Failure::other("a round did not end; something hangs"))??;
    latencies.sort_unstable();
    let time = window.to.saturating_sub(window.from);
    // The clock is read a little late where the machine is busy: by as much more was used.
    let stretch = time.as_secs_f64() / ended.saturating_sub(began).max(time).as_secs_f64();
    Ok(Sample {
        operations: latencies.len(),
        time,
        latencies,
        cpu: after.zip(before, |after, before| (after - before) * stretch),
    })
}

/// Takes what tasks have measured that end until then; fails as soon as one of them does.
pub(super) async fn gather(
    tasks: &mut JoinSet<Result<Vec<Duration>, Failure>>,
    into: &mut Vec<Duration>,
    until: impl Future<Output = ()>,
) -> Result<(), Failure> {
    tokio::pin!(until);
    tokio::select! {
        ended = all(tasks, into) => ended?,
        () = &mut until => return Ok(()),
    }
    until.await;
    Ok(())
}

pub(super) async fn all(
    tasks: &mut JoinSet<Result<Vec<Duration>, Failure>>,
    into: &mut Vec<Duration>,
) -> Result<(), Failure> {
    while let Some(ended) = tasks.join_next().await {
        let times = ended.map_err(|error| Failure::other(format!("a task failed: {error}")))?;
        into.extend(times?);
    }
    Ok(())
}
