//! `palisade list --watch` on a terminal: one screen that is always as it is now.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use palisade_client::{Client, LeaseInfo, Unavailable, WatchEvent, WatchOptions, WatchScope};
use palisade_token::ResourceName;
use tokio::signal::unix::{SignalKind, signal};

use super::{News, interrupted};
use crate::args::ListArgs;
use crate::clock;
use crate::failure::Failure;
use crate::leases::{COLUMNS, columns};
use crate::output;
use crate::signals::Stop;
use crate::table::Table;
use crate::units::{Times, show_unix_ms};
use screen::Screen;

mod screen;

/// How long ago something was changes by seconds.
const REFRESH: Duration = Duration::from_secs(1);
/// More than ten frames a second nobody reads, and a terminal far away pays for each.
const LEAST: Duration = Duration::from_millis(100);

/// What is known of a prefix.
#[derive(Debug, Default)]
struct Known {
    leases: BTreeMap<ResourceName, LeaseInfo>,
    revision: i64,
    /// A snapshot is complete.
    is_whole: bool,
    interrupted: Option<Unavailable>,
}

/// Shows what is held until it is told to end.
pub(crate) async fn show(client: &Client, args: &ListArgs) -> Result<(), Failure> {
    let scope = WatchScope::Prefix(args.prefix.clone());
    let watch = client.watch_leases(scope, WatchOptions::default())?;
    let mut news = News::of(watch, args.client.timeout);
    let mut stop = Stop::listen()?;
    let mut known = Known::default();
    // What cannot be shown at all is told below the command, not on a screen that goes.
    let first = tokio::select! {
        _ = stop.asked() => return Ok(()),
        first = news.heard() => first?,
    };
    known.learn(first);
    let mut resized = signal(SignalKind::window_change()).map_err(super::no_terminal)?;
    let mut screen = Screen::open().map_err(super::no_terminal)?;
    let times = args.time.times();
    loop {
        screen.draw(|size| known.lines(&args.prefix, times, size))?;
        let drawn = clock::Stopwatch::start();
        let mut is_news = false;
        // Until the next frame is due everything that happens is taken in.
        loop {
            let wait = if is_news { LEAST } else { REFRESH };
            let left = wait.saturating_sub(drawn.elapsed());
            tokio::select! {
                biased;
                _ = stop.asked() => return Ok(()),
                _ = resized.recv() => break,
                () = clock::pause(left) => break,
                event = news.heard() => {
                    known.learn(event?);
                    is_news = true;
                }
            }
        }
    }
}

impl Known {
    fn learn(&mut self, event: WatchEvent) {
        self.interrupted = None;
        match event {
            WatchEvent::Interrupted { cause, .. } => self.interrupted = Some(cause),
            WatchEvent::Resync { .. } => *self = Self::default(),
            WatchEvent::Stands {
                lease, revision, ..
            } => {
                self.revision = revision;
                self.leases.insert(lease.grant.resource.clone(), *lease);
            }
            WatchEvent::Granted {
                resource,
                lease,
                revision,
                ..
            } => {
                self.revision = revision;
                match lease {
                    Some(lease) => self.leases.insert(resource, *lease),
                    None => self.leases.remove(&resource),
                };
            }
            WatchEvent::Ended {
                resource, revision, ..
            }
            | WatchEvent::Vacant {
                resource, revision, ..
            } => {
                self.revision = revision;
                self.leases.remove(&resource);
            }
            WatchEvent::SnapshotEnd { revision, .. } => {
                self.revision = revision;
                self.is_whole = true;
            }
            WatchEvent::Bookmark { revision, .. } => self.revision = revision,
            _ => {}
        }
    }

    /// As many lines as there is room for.
    fn lines(&self, prefix: &str, times: Times, height: usize) -> Vec<String> {
        let now = show_unix_ms(clock::unix_ms());
        let held = self.leases.len();
        let about = if prefix.is_empty() { "all" } else { prefix };
        let state = match (self.interrupted, self.is_whole) {
            (Some(cause), _) => {
                let colour = output::has_colour(&io::stdout()).then_some(33);
                output::painted(&format!("GROWS OLD: {}", interrupted(cause)), colour)
            }
            (None, false) => "reading".to_owned(),
            (None, true) => format!("revision {}", self.revision),
        };
        let mut lines = vec![
            format!("{about}: {held} held  {now}  {state}"),
            String::new(),
        ];
        // Below the two are the names of the columns, and maybe how many more there are.
        let room = height.saturating_sub(3);
        let shown = if held > room {
            room.saturating_sub(1)
        } else {
            held
        };
        let mut table = Table::with_header(COLUMNS);
        for lease in self.leases.values().take(shown) {
            table.row(columns(lease, times));
        }
        lines.extend(table.to_string().lines().map(str::to_owned));
        if held > shown {
            lines.push(format!("and {} more", held - shown));
        }
        lines
    }
}
