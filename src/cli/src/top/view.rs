//! How the model looks. A pure function of it: whatever is drawn can be drawn again.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};

use super::keys::HELP;
use super::layout::{Areas, LEAST_SIZE};
use super::model::{Coordinator, Link, Model, Sort};
use super::news::Standing;
use super::text::{count, cut, fit, shown, span, width};

mod details;
mod events;
mod rows;

/// A count of waiters that is older than this is told with its age.
const FRESH: Duration = Duration::from_secs(10);

/// How things are set off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    pub(super) has_colour: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.has_colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn doubtful(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let whole = frame.area();
    let areas = model
        .areas()
        .filter(|areas| areas.footer.bottom() <= whole.bottom());
    let Some(areas) = areas.filter(|areas| areas.footer.right() <= whole.right()) else {
        return too_small(frame, whole);
    };
    put(frame, areas.title, vec![title(model, theme)]);
    put(frame, areas.status, status(model, theme));
    if model.shows_help {
        help(frame, &areas, theme);
    } else {
        let wide = usize::from(whole.width);
        put(frame, areas.summary, vec![summary(model, theme)]);
        put(frame, areas.header, vec![rows::header(wide, theme)]);
        put(frame, areas.rows, rows::rows(model, &areas, theme));
        if let Some(area) = areas.details {
            put(frame, area, details::lines(model, area, theme));
        }
        if let Some(area) = areas.events {
            put(frame, area, events::lines(model, area, theme));
        }
    }
    put(frame, areas.footer, vec![footer(model, theme)]);
}

/// Lines that do not fit are left out, and what is longer than a line is cut.
fn put(frame: &mut Frame<'_>, area: Rect, mut lines: Vec<Line<'_>>) {
    lines.truncate(usize::from(area.height));
    frame.render_widget(Text::from(lines), area);
}

fn too_small(frame: &mut Frame<'_>, whole: Rect) {
    let text = format!(
        "too small: {}x{} needed, q quits",
        LEAST_SIZE.0, LEAST_SIZE.1
    );
    let text = cut(&text, usize::from(whole.width));
    if whole.height > 0 {
        put(frame, whole, vec![Line::raw(text)]);
    }
}

/// A line across the screen, with what stands below it.
fn rule(text: &str, wide: usize, theme: Theme) -> Line<'static> {
    let text = cut(&format!("── {text} "), wide);
    let rest = "─".repeat(wide.saturating_sub(width(&text)));
    Line::styled(format!("{text}{rest}"), theme.faint())
}

fn title(model: &Model, theme: Theme) -> Line<'static> {
    let mut line = vec![Span::styled("palisade top", theme.strong())];
    if !model.prefix.is_empty() {
        line.push(Span::raw(format!(" {}", shown(&model.prefix))));
    }
    line.push(Span::raw("  "));
    line.push(match &model.link {
        Link::Connecting => Span::styled("connecting", theme.doubtful()),
        Link::Live => Span::styled("live", theme.good()),
        Link::Reconnecting(since, why) => {
            let time = span(model.since(*since));
            Span::styled(
                format!("reconnecting for {time}: {}", shown(why)),
                theme.bad(),
            )
        }
    });
    if let Some(missed) = model.missed() {
        let missed = count(
            usize::try_from(missed).unwrap_or(usize::MAX),
            "event",
            "events",
        );
        // Before what may be long.
        line.insert(
            line.len() - 1,
            Span::styled(format!("PAUSED, {missed} since  "), theme.doubtful()),
        );
    }
    Line::from(line)
}

fn status(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let Some(coordinator) = model.coordinator() else {
        return Vec::new();
    };
    let mut first = vec![Span::raw(format!("{} ", coordinator.address))];
    let (mut second, mut third) = (Vec::new(), String::new());
    first.extend(state(model, coordinator, theme));
    if let Some((_, standing)) = &coordinator.last {
        first.push(Span::raw(facts(standing)));
        second.push(Span::raw(usage(standing)));
        third = history(standing);
    }
    let all = model.coordinators.len();
    if all > 1 {
        let is_ready = |one: &&Coordinator| {
            one.fault.is_none() && one.last.as_ref().is_some_and(|(_, last)| last.is_ready)
        };
        let ready = model.coordinators.iter().filter(is_ready).count();
        let style = if ready == all {
            theme.good()
        } else {
            theme.doubtful()
        };
        second.insert(
            0,
            Span::styled(format!("{ready} of {all} coordinators ready  "), style),
        );
    }
    vec![Line::from(first), Line::from(second), Line::raw(third)]
}

fn state(model: &Model, coordinator: &Coordinator, theme: Theme) -> Vec<Span<'static>> {
    match (&coordinator.last, &coordinator.fault) {
        (None, None) => vec![Span::styled("asked", theme.faint())],
        (None, Some(why)) => vec![Span::styled(format!("not known: {why}"), theme.bad())],
        (Some((at, last)), Some(why)) => {
            let age = span(model.since(*at));
            let last = format!(" (was {} {age} ago)", last.state());
            vec![
                Span::styled(shown(why), theme.bad()),
                Span::styled(last, theme.faint()),
            ]
        }
        (Some((_, last)), None) if last.is_ready => vec![Span::styled(last.state(), theme.good())],
        (Some((_, last)), None) => vec![Span::styled(last.state(), theme.bad())],
    }
}

fn facts(standing: &Standing) -> String {
    let uptime = span(standing.uptime);
    format!("  {}, {}, up {uptime}", standing.version, standing.store)
}

fn history(standing: &Standing) -> String {
    let revision = standing.revision;
    match standing.generation {
        Some((base, since)) => {
            format!("revision {revision}, generation {base} counted from revision {since}")
        }
        None => format!("revision {revision}, no generation"),
    }
}

fn usage(standing: &Standing) -> String {
    let each = standing
        .usage
        .iter()
        .map(|(name, used, limit)| match limit {
            Some(limit) => format!("{name} {used}/{limit}"),
            None => format!("{name} {used}"),
        });
    each.collect::<Vec<_>>().join("  ")
}

fn summary(model: &Model, theme: Theme) -> Line<'static> {
    let world = model.seen();
    let (standing, unkept) = world.standing();
    let mut parts = vec![count(standing, "lease", "leases")];
    if model.counted_at.is_some() {
        parts.push(format!("{} waiting", world.waiting()));
    }
    if !model.filter.is_empty() {
        parts.push(format!("{} shown", model.order().len()));
    }
    if unkept > 0 {
        parts.push(format!("{unkept} of them not kept (give a PREFIX)"));
    }
    let sort = match model.sort {
        Sort::Resource => "resource",
        Sort::Held => "time held",
        Sort::Waiters => "waiters",
        Sort::Label => "label",
    };
    let turned = if model.is_reversed {
        ", turned around"
    } else {
        ""
    };
    parts.push(format!("by {sort}{turned}"));
    let gap = model.now().up.saturating_sub(model.known_at().up);
    if !gap.is_zero() {
        parts.push(format!("as of {} ago", span(gap)));
    } else if let Some(at) = model.counted_at.map(|at| model.since(at))
        && at > FRESH
    {
        parts.push(format!("waiters counted {} ago", span(at)));
    }
    Line::styled(parts.join(", "), theme.strong())
}

fn help(frame: &mut Frame<'_>, areas: &Areas, theme: Theme) {
    let top = areas.summary.top();
    let area = Rect::new(0, top, areas.footer.width, areas.footer.top() - top);
    let wide = usize::from(area.width);
    let mut lines = vec![rule("keys", wide, theme)];
    for (keys, what) in HELP {
        lines.push(Line::raw(cut(&format!("{}  {what}", fit(keys, 15)), wide)));
    }
    lines.push(rule("columns", wide, theme));
    for (column, what) in rows::HELP {
        lines.push(Line::raw(cut(
            &format!("{}  {what}", fit(column, 15)),
            wide,
        )));
    }
    put(frame, area, lines);
}

fn footer(model: &Model, theme: Theme) -> Line<'static> {
    let wide = usize::from(model.width());
    if model.filter_before.is_some() {
        let hint = "  Enter keeps it, Esc drops it";
        // The end is where it is written.
        let written = shown(&model.filter);
        let room = wide.saturating_sub(2);
        let start = written
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| width(&written[*at..]) <= room)
            .unwrap_or(written.len());
        return Line::from(vec![
            Span::styled(format!("/{}", &written[start..]), theme.strong()),
            Span::styled(" ", theme.selected()),
            Span::styled(hint, theme.faint()),
        ]);
    }
    if model.shows_help {
        return Line::styled("? closes this, q quits", theme.faint());
    }
    let pause = if model.missed().is_some() {
        "p go on"
    } else {
        "p pause"
    };
    let filter = match model.filter.as_str() {
        "" => "/ filter".to_owned(),
        filter => format!("/{} (Esc drops it)", shown(filter)),
    };
    let keys = format!("q quit  ? help  {pause}  s sort  Enter details  {filter}");
    Line::styled(cut(&keys, wide), theme.faint())
}
