//! What happened lately, the newest first.

use palisade_client::LeaseEnd;
use palisade_token::FencingToken;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Theme, rule};
use crate::top::model::Model;
use crate::top::news::Ended;
use crate::top::text::{UNKNOWN, count, fit, fit_right, shown, span};
use crate::top::world::What;

pub(super) fn lines(model: &Model, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let wide = usize::from(area.width);
    let now = model.now();
    let mut lines = vec![rule("events", wide, theme)];
    let room = usize::from(area.height).saturating_sub(1);
    for event in model.seen().events().take(room) {
        let age = span(now.up.saturating_sub(event.at));
        let (name, style, text) = told(&event.what, theme);
        lines.push(Line::from(vec![
            Span::styled(format!("{} ago  ", fit_right(&age, 7)), theme.faint()),
            Span::styled(fit(name, 9), style),
            Span::raw(text),
        ]));
    }
    if lines.len() == 1 && room > 0 {
        lines.push(Line::styled("none yet", theme.faint()));
    }
    lines
}

fn told(what: &What, theme: Theme) -> (&'static str, Style, String) {
    match what {
        What::Granted {
            resource,
            token,
            label,
        } => (
            "granted",
            theme.good(),
            format!("{resource}  {}  {label}", number(*token)),
        ),
        What::Ended(ended) => {
            let token = number(ended.token);
            let Ended {
                resource, label, ..
            } = ended;
            let reason = match ended.reason.as_str() {
                "" => String::new(),
                reason => format!("  ({})", shown(reason)),
            };
            let (name, style) = end(ended.end, theme);
            (name, style, format!("{resource}  {token}  {label}{reason}"))
        }
        What::CaughtUp { new, gone } => {
            let leases = |number: usize| count(number, "lease", "leases");
            let text = format!(
                "{} new, {} gone; nobody saw how",
                leases(*new),
                leases(*gone)
            );
            ("caught up", theme.doubtful(), format!("  {text}"))
        }
    }
}

fn number(token: Option<FencingToken>) -> String {
    token.map_or_else(|| UNKNOWN.to_owned(), |token| token.to_string())
}

/// The name of an end, and how it looks.
pub(super) fn end(end: LeaseEnd, theme: Theme) -> (&'static str, Style) {
    match end {
        LeaseEnd::Released => ("released", Style::new()),
        LeaseEnd::Expired => ("expired", theme.doubtful()),
        LeaseEnd::Revoked => ("revoked", theme.bad()),
        _ => ("ended", theme.doubtful()),
    }
}
