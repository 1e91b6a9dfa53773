//! All that is known of one resource.

use palisade_client::{LeaseEnd, Occupancy};
use palisade_token::{FencingToken, ResourceName};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::events::end;
use super::rows::{held, ttl};
use super::{Theme, rule};
use crate::top::model::Model;
use crate::top::news::Row;
use crate::top::text::{UNKNOWN, count, cut, shown, span};
use crate::units::{show_duration, show_unix_ms};

pub(super) fn lines(model: &Model, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let wide = usize::from(area.width);
    let Some(resource) = model.selected() else {
        return vec![
            rule("details", wide, theme),
            Line::raw("nothing is selected"),
        ];
    };
    let title = format!("details of {resource}");
    let mut lines = match model.seen().row(resource) {
        Some(row) => standing(row, model, theme),
        None => vec!["vacant".to_owned()],
    };
    lines.extend(told(model, resource, theme));
    let lines = lines.iter().map(|line| Line::raw(cut(line, wide)));
    std::iter::once(rule(&title, wide, theme))
        .chain(lines)
        .collect()
}

/// What the events say of a lease.
fn standing(row: &Row, model: &Model, theme: Theme) -> Vec<String> {
    let held = held(row, model.known_at()).map_or_else(|| UNKNOWN.to_owned(), span);
    let granted = match row.granted_unix_ms {
        known @ 1.. => show_unix_ms(known),
        _ => UNKNOWN.to_owned(),
    };
    let mut lines = vec![
        format!("token {}  holder {}", row.grant.token, row.grant.holder),
        format!("session {}  label {}", row.session, row.label),
        format!(
            "granted {granted} at revision {}, held for {held}, TTL {}{}",
            row.granted_revision,
            ttl(row),
            match row.lock_delay {
                delay if delay.is_zero() => String::new(),
                delay => format!(", lock-delay {}", show_duration(delay)),
            }
        ),
    ];
    lines.push(match &row.before {
        Some(before) => {
            let age = span(model.now().up.saturating_sub(before.seen_at));
            let ended = &before.ended;
            let text = previous(ended.end, ended.token, &ended.label, &ended.reason, theme);
            format!("before: {text}, {age} ago")
        }
        None => "before: its end was not seen from here".to_owned(),
    });
    lines
}

/// What the coordinator says when it is asked.
fn told(model: &Model, resource: &ResourceName, theme: Theme) -> Vec<String> {
    let looked = model
        .looked
        .as_ref()
        .filter(|looked| looked.resource == *resource);
    let Some(looked) = looked else {
        let is_paused = model.missed().is_some();
        let why = if is_paused {
            "not asked for while paused"
        } else {
            "asked for"
        };
        return vec![format!("queue: {why}")];
    };
    let answer = match &looked.answer {
        Ok(found) => found,
        Err(why) => return vec![format!("queue: not known: {}", shown(why))],
    };
    let mut lines = Vec::new();
    if answer.lease.is_none()
        && let Some(before) = &answer.previous
    {
        let text = previous(
            before.end,
            before.token,
            &before.label,
            &before.reason,
            theme,
        );
        lines.push(format!("before: {text}"));
    }
    if !answer.lock_delay_left.is_zero() {
        let left = show_duration(answer.lock_delay_left);
        lines.push(format!("lock-delay: nobody gets it for another {left}"));
    }
    let age = span(model.since(looked.at));
    lines.extend(queue(answer, &age));
    lines
}

fn queue(answer: &Occupancy, age: &str) -> Vec<String> {
    let waiters = usize::try_from(answer.waiters).unwrap_or(usize::MAX);
    let waits = match waiters {
        0 => "nobody waits".to_owned(),
        waiters => count(waiters, "waits", "wait"),
    };
    let mut lines = vec![format!("queue: {waits} (asked {age} ago)")];
    for (index, waiter) in answer.queue.iter().enumerate() {
        lines.push(format!(
            "{:>4}. {}  session {}  since revision {}",
            index + 1,
            shown(&waiter.label),
            shown(&waiter.session_id),
            waiter.enqueued_revision
        ));
    }
    if waiters > answer.queue.len() && !answer.queue.is_empty() {
        lines.push(format!("      and {} more", waiters - answer.queue.len()));
    }
    lines
}

fn previous(
    how: LeaseEnd,
    token: Option<FencingToken>,
    label: &str,
    reason: &str,
    theme: Theme,
) -> String {
    let mut text = match how {
        LeaseEnd::Unknown => "ended, nobody saw how".to_owned(),
        how => end(how, theme).0.to_owned(),
    };
    if let Some(token) = token {
        text.push_str(&format!(", token {token}"));
    }
    for part in [label, reason].into_iter().filter(|part| !part.is_empty()) {
        text.push_str(&format!(", {}", shown(part)));
    }
    text
}
