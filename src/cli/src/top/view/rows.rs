//! The leases, one in a row.

use std::time::Duration;

use ratatui::text::Line;

use super::Theme;
use crate::top::layout::Areas;
use crate::top::model::{Model, Now};
use crate::top::news::Row;
use crate::top::text::{UNKNOWN, fit, fit_right, span};
use crate::units::show_duration;

/// What the columns say.
pub(super) const HELP: [(&str, &str); 4] = [
    (
        "HELD",
        "since the grant, by this machine's clock and the coordinator's",
    ),
    (
        "TTL",
        "how long the lease stands after a renewal; when that was only its holder knows",
    ),
    (
        "WAITERS",
        "how many wait behind it, counted every few seconds",
    ),
    ("-", "not known"),
];

const GAP: &str = "  ";
/// Tokens below 2^53 have at most sixteen digits.
const TOKEN: usize = 16;
const HELD: usize = 7;
const WAITERS: usize = 7;
const TTL: usize = 6;
const SESSION: usize = 16;

/// How wide the columns are; 0 is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Columns {
    resource: usize,
    token: usize,
    held: usize,
    waiters: usize,
    label: usize,
    ttl: usize,
    session: usize,
}

impl Columns {
    /// What matters most stays where there is little room.
    fn of(wide: usize) -> Self {
        let mut columns = Self {
            token: TOKEN,
            held: HELD,
            ..Self::default()
        };
        if wide >= 50 {
            columns.waiters = WAITERS;
        }
        if wide >= 78 {
            columns.ttl = TTL;
        }
        if wide >= 100 {
            columns.session = SESSION;
        }
        let fixed = [
            columns.token,
            columns.held,
            columns.waiters,
            columns.ttl,
            columns.session,
        ];
        let fixed = fixed.into_iter().filter(|width| *width > 0);
        let taken: usize = fixed.map(|width| width + GAP.len()).sum();
        let rest = wide.saturating_sub(taken);
        if wide >= 66 {
            columns.label = (rest - GAP.len()) * 2 / 5;
            columns.resource = rest - GAP.len() - columns.label;
        } else {
            columns.resource = rest;
        }
        columns
    }

    fn line(&self, cells: [&str; 7]) -> String {
        let [resource, token, held, waiters, label, ttl, session] = cells;
        let parts = [
            (resource, self.resource, false),
            (label, self.label, false),
            (token, self.token, true),
            (held, self.held, true),
            (ttl, self.ttl, true),
            (waiters, self.waiters, true),
            (session, self.session, false),
        ];
        let shown = parts.into_iter().filter(|(_, width, _)| *width > 0);
        let cells = shown.map(|(text, width, is_number)| {
            if is_number {
                fit_right(text, width)
            } else {
                fit(text, width)
            }
        });
        cells.collect::<Vec<_>>().join(GAP)
    }
}

pub(super) fn header(wide: usize, theme: Theme) -> Line<'static> {
    let names = [
        "RESOURCE", "TOKEN", "HELD", "WAITERS", "LABEL", "TTL", "SESSION",
    ];
    Line::styled(Columns::of(wide).line(names), theme.strong())
}

pub(super) fn rows(model: &Model, areas: &Areas, theme: Theme) -> Vec<Line<'static>> {
    let wide = usize::from(areas.rows.width);
    let columns = Columns::of(wide);
    let (page, selected) = model.page(usize::from(areas.rows.height));
    if page.is_empty() {
        return vec![Line::styled(nothing(model), theme.faint())];
    }
    let line = |(index, row): (usize, &std::sync::Arc<Row>)| {
        let line = columns.line(cells(row, model.known_at()).each_ref().map(String::as_str));
        if Some(index) == selected {
            return Line::styled(line, theme.selected());
        }
        if model.known_at() != model.now() {
            return Line::styled(line, theme.faint());
        }
        Line::raw(line)
    };
    page.iter().enumerate().map(line).collect()
}

/// Why there are none.
fn nothing(model: &Model) -> &'static str {
    match (model.is_known(), model.filter.is_empty()) {
        (false, _) => "not known yet",
        (true, true) => "nothing is held",
        (true, false) => "nothing that is held matches the filter",
    }
}

fn cells(row: &Row, now: Now) -> [String; 7] {
    [
        row.resource().to_string(),
        row.grant.token.to_string(),
        held(row, now).map_or_else(|| UNKNOWN.to_owned(), span),
        row.waiters
            .map_or_else(|| UNKNOWN.to_owned(), |waiters| waiters.to_string()),
        row.label.clone(),
        ttl(row),
        row.session.clone(),
    ]
}

/// For how long a lease has been held. The clocks may differ by more than that.
pub(super) fn held(row: &Row, now: Now) -> Option<Duration> {
    let granted = Some(row.granted_unix_ms).filter(|known| *known > 0)?;
    let held = u64::try_from(now.unix_ms.saturating_sub(granted)).unwrap_or_default();
    Some(Duration::from_millis(held))
}

pub(super) fn ttl(row: &Row) -> String {
    match row.ttl {
        Duration::ZERO => UNKNOWN.to_owned(),
        ttl => show_duration(ttl),
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, GAP};
    use crate::top::layout::LEAST_SIZE;
    use crate::top::text::width;

    #[test]
    fn columns_fill_the_line_and_names_have_room() {
        for wide in usize::from(LEAST_SIZE.0)..300 {
            let columns = Columns::of(wide);
            assert_eq!(width(&columns.line(["x"; 7])), wide, "{columns:?}");
            assert!(columns.resource >= 11 + GAP.len(), "{wide}: {columns:?}");
        }
    }
}
