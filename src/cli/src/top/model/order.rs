//! Which leases are shown, in which order, which of them is selected, and which are in sight.

use std::cmp::Reverse;
use std::sync::Arc;

use palisade_token::ResourceName;

use super::Model;
use crate::top::news::Row;

/// By what the leases are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::top) enum Sort {
    #[default]
    Resource,
    /// Held the longest first.
    Held,
    /// The longest queue first.
    Waiters,
    Label,
}

impl Model {
    pub(in crate::top) fn order(&self) -> &[Arc<Row>] {
        &self.order
    }

    /// The rows on the screen, and which of them is selected.
    pub(in crate::top) fn page(&self, height: usize) -> (&[Arc<Row>], Option<usize>) {
        let end = self.order.len().min(self.offset + height);
        let page = self.order.get(self.offset..end).unwrap_or_default();
        let selected = self.selected();
        (
            page,
            page.iter().position(|row| Some(row.resource()) == selected),
        )
    }

    /// What is selected; it may have ended.
    pub(in crate::top) fn selected(&self) -> Option<&ResourceName> {
        let first = || self.order.first().map(|row| row.resource());
        self.selected.as_ref().or_else(first)
    }

    /// Selects the row this far down (or up).
    pub(in crate::top) fn go(&mut self, by: isize) {
        self.settle();
        self.cursor = self.cursor.saturating_add_signed(by);
        self.select_at_cursor();
    }

    /// How many rows a screen has.
    pub(in crate::top) fn page_height(&self) -> usize {
        self.areas()
            .map_or(1, |areas| usize::from(areas.rows.height))
    }

    fn select_at_cursor(&mut self) {
        self.cursor = self.cursor.min(self.order.len().saturating_sub(1));
        let row = self.order.get(self.cursor);
        self.selected = row.map(|row| row.resource().clone());
        self.keep_in_sight();
    }

    /// Brings order and selection up to date with what is known. To be called before it is looked at.
    pub(in crate::top) fn settle(&mut self) {
        if !self.is_settled {
            self.order = self.sorted();
            self.is_settled = true;
            self.find_selected();
        }
        self.keep_in_sight();
    }

    fn find_selected(&mut self) {
        let Some(selected) = &self.selected else {
            self.cursor = 0;
            return;
        };
        match self.order.iter().position(|row| row.resource() == selected) {
            Some(found) => self.cursor = found,
            // Whoever looks at its details wants to see what becomes of it.
            None if self.shows_details => {
                self.cursor = self.cursor.min(self.order.len().saturating_sub(1));
            }
            None => self.select_at_cursor(),
        }
    }

    fn keep_in_sight(&mut self) {
        let height = self.page_height().max(1);
        let last_start = self.order.len().saturating_sub(height);
        let least = (self.cursor + 1).saturating_sub(height);
        self.offset = self.offset.min(last_start).clamp(least, self.cursor);
    }

    fn sorted(&self) -> Vec<Arc<Row>> {
        let filter = self.filter.to_lowercase();
        let matching = |row: &&Arc<Row>| row.searched.contains(&filter);
        let mut rows: Vec<_> = self
            .seen()
            .rows()
            .filter(matching)
            .map(Arc::clone)
            .collect();
        // They come by name, and these sorts keep that among equals.
        match self.sort {
            Sort::Resource => {}
            Sort::Held => rows.sort_by_key(|row| match row.granted_unix_ms {
                known @ 1.. => known,
                _ => i64::MAX,
            }),
            Sort::Waiters => rows.sort_by_key(|row| Reverse(row.waiters)),
            Sort::Label => rows.sort_by(|one, other| one.label.cmp(&other.label)),
        }
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }
}

impl Sort {
    pub(in crate::top) fn next(self) -> Self {
        match self {
            Self::Resource => Self::Held,
            Self::Held => Self::Waiters,
            Self::Waiters => Self::Label,
            Self::Label => Self::Resource,
        }
    }
}
