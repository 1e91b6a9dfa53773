//! Writers at work for a while, and what they and the server have used meanwhile.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::bench::processes::{cpu_time, exact_cpu_time};
use crate::bench::round::{END_LIMIT, WARM_UP, Window, all, gather};
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;

/// Writes again and again.
pub(super) trait Writer: Send + 'static {
    /// One transaction; `turn` counts them.
    fn write(&mut self, turn: u64) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// One round of one variant.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) operations: usize,
    pub(super) time: Duration,
    /// How long each took, in ascending order.
    pub(super) latencies: Vec<Duration>,
    /// CPU seconds of this process.
    pub(super) load: Option<f64>,
    /// CPU seconds of the server's processes that serve it; `None` where they are not to be seen.
    pub(super) server: Option<f64>,
    /// One operation on average, where single ones are too short to be measured.
    pub(super) nanoseconds: Option<f64>,
}

pub(super) fn window(length: Duration) -> Window {
    Window {
        clock: Stopwatch::start(),
        from: WARM_UP,
        to: WARM_UP + length,
    }
}

pub(super) async fn run<W: Writer>(
    window: Window,
    writers: Vec<W>,
    server: &[u32],
) -> Result<Sample, Failure> {
    let mut tasks = JoinSet::new();
    for writer in writers {
        tasks.spawn(work(writer, window));
    }
    let mut latencies = Vec::new();
    gather(&mut tasks, &mut latencies, window.until(window.from)).await?;
    let (began, before) = (window.clock.elapsed(), Used::by(server));
    gather(&mut tasks, &mut latencies, window.until(window.to)).await?;
    let (ended, after) = (window.clock.elapsed(), Used::by(server));
    let rest = clock::within(END_LIMIT, all(&mut tasks, &mut latencies)).await;
    rest.ok_or_else(|| Failure::other("a round did not end; something hangs"))??;
    latencies.sort_unstable();
    let time = window.to.saturating_sub(window.from);
    // The clock is read a little late where the machine is busy: by as much more was used.
    let stretch = time.as_secs_f64() / ended.saturating_sub(began).max(time).as_secs_f64();
    let used = |after: Option<Duration>, before: Option<Duration>| {
        Some(after?.saturating_sub(before?).as_secs_f64() * stretch)
    };
    Ok(Sample {
        operations: latencies.len(),
        time,
        latencies,
        load: used(after.load, before.load),
        server: used(after.server, before.server),
        nanoseconds: None,
    })
}

async fn work<W: Writer>(mut writer: W, window: Window) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let mut turn = 0;
    while !window.is_over() {
        let began = window.clock.elapsed();
        writer.write(turn).await?;
        let ended = window.clock.elapsed();
        if window.counts(ended) {
            times.push(ended.saturating_sub(began));
        }
        turn += 1;
    }
    Ok(times)
}

struct Used {
    load: Option<Duration>,
    server: Option<Duration>,
}

impl Used {
    fn by(server: &[u32]) -> Self {
        let together: Option<Duration> = server.iter().map(|pid| exact_cpu_time(*pid)).sum();
        Self {
            load: cpu_time(std::process::id()),
            server: together.filter(|_| !server.is_empty()),
        }
    }
}
