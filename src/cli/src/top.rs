//! `palisade top`: leases, live in the terminal. It only looks.

use std::time::Duration;

use palisade_token::ResourceName;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use tokio::sync::{mpsc, watch};

use self::feed::Feed;
use self::keys::Asked;
use self::model::{Model, Now};
use self::news::News;
use self::screen::{Happened, Screen};
use self::view::Theme;
use crate::args::TopArgs;
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;
use crate::output;
use crate::signals::Stop;

mod feed;
mod keys;
mod layout;
mod model;
mod news;
mod screen;
#[cfg(test)]
mod tests;
mod text;
mod view;
mod world;

/// The most news that wait to be shown. Then those who tell wait, and in the end the coordinator says that
/// some were missed.
const MOST_NEWS: usize = 1_024;
/// The most keys that wait: a paste, or a finger left on one.
const MOST_KEYS: usize = 64;
/// At most so often news are drawn: faster nobody reads.
const FRAME: Duration = Duration::from_millis(50);
/// At least so often: times grow by seconds.
const TICK: Duration = Duration::from_secs(1);

/// `palisade top`.
pub(crate) async fn run(args: TopArgs) -> Result<(), Failure> {
    screen::check()?;
    let client = crate::connect(&args.client)?;
    let mut stop = Stop::listen()?;
    // What cannot work is told as other commands tell it, before the screen is taken.
    tokio::select! {
        found = client.list_leases(&args.prefix, 1, None) => drop(found?),
        _ = stop.asked() => return Ok(()),
    }
    let (wants, wanted) = watch::channel(None);
    let (news, told) = mpsc::channel(MOST_NEWS);
    let model = Model::new(&args.client.addr, args.prefix.clone());
    let feed = Feed {
        client,
        prefix: args.prefix,
        news,
        wanted,
    };
    let theme = Theme {
        has_colour: output::has_colour(&std::io::stdout()),
    };
    let top = Top {
        screen: Screen::take()?,
        model,
        theme,
        since: Stopwatch::start(),
        wants,
    };
    // The screen is given back here, before anything is told.
    tokio::select! {
        shown = top.show(told, keys()?, &mut stop) => shown,
        failure = feed.run() => Err(failure),
    }
}

/// What is shown, and on what.
#[derive(Debug)]
struct Top {
    screen: Screen,
    model: Model,
    theme: Theme,
    since: Stopwatch,
    /// Tells which resource more is to be known of.
    wants: watch::Sender<Option<ResourceName>>,
}

impl Top {
    async fn show(
        mut self,
        mut news: mpsc::Receiver<News>,
        mut keys: mpsc::Receiver<KeyEvent>,
        stop: &mut Stop,
    ) -> Result<(), Failure> {
        let mut drawn = self.draw()?;
        let mut is_old = false;
        loop {
            let wait = if is_old { FRAME } else { TICK };
            tokio::select! {
                biased;
                // To be told to end is how it ends.
                _ = stop.asked() => return Ok(()),
                key = keys.recv() => {
                    // Without keys there is no terminal any more.
                    let Some(key) = key else { return Ok(()) };
                    if self.press(key).await? {
                        return Ok(());
                    }
                }
                happened = self.screen.happens() => {
                    if happened == Happened::Resumed {
                        self.screen.take_again()?;
                    }
                }
                () = clock::pause(wait.saturating_sub(drawn.elapsed())) => {}
                Some(told) = news.recv() => {
                    self.hear(told, &mut news);
                    is_old = true;
                    continue;
                }
            }
            drawn = self.draw()?;
            is_old = false;
        }
    }

    /// Hears what has come, but not more than what may wait: keys come before news.
    fn hear(&mut self, first: News, news: &mut mpsc::Receiver<News>) {
        self.model.at(self.now());
        self.model.hear(first);
        for _ in 1..MOST_NEWS {
            match news.try_recv() {
                Ok(told) => self.model.hear(told),
                Err(_) => return,
            }
        }
    }

    /// Says whether that was the end.
    async fn press(&mut self, key: KeyEvent) -> Result<bool, Failure> {
        match self.model.key(key) {
            Asked::Nothing => {}
            Asked::Quit => return Ok(true),
            Asked::Suspend => self.screen.suspend().await?,
            Asked::Redraw => self.screen.forget()?,
        }
        Ok(false)
    }

    fn draw(&mut self) -> Result<Stopwatch, Failure> {
        self.model.at(self.now());
        self.model.resize(self.screen.size());
        self.model.settle();
        let (model, theme) = (&self.model, self.theme);
        self.screen.draw(|frame| view::draw(frame, model, theme))?;
        self.wants.send_if_modified(|wanted| {
            let is_new = wanted.as_ref() != model.wanted();
            if is_new {
                *wanted = model.wanted().cloned();
            }
            is_new
        });
        Ok(Stopwatch::start())
    }

    fn now(&self) -> Now {
        Now {
            unix_ms: clock::unix_ms(),
            up: self.since.elapsed(),
        }
    }
}

/// Reads keys, in a thread of its own: reads of a terminal block. It ends with the program.
fn keys() -> Result<mpsc::Receiver<KeyEvent>, Failure> {
    let (sender, receiver) = mpsc::channel(MOST_KEYS);
    let read = move || {
        while let Ok(event) = event::read() {
            // The terminal's size is asked for with each picture.
            if let Event::Key(key) = event
                && sender.blocking_send(key).is_err()
            {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("keys".to_owned());
    thread.spawn(read).map_err(Failure::io("start a thread"))?;
    Ok(receiver)
}
