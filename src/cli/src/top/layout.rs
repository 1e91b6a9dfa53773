//! Where things stand on a screen of some size.

use ratatui::layout::Rect;

/// Below this nothing can be read: a token and some of a name, and a few rows.
pub(super) const LEAST_SIZE: (u16, u16) = (40, 8);

/// With less they would tell nothing, and hide leases.
const ROOM_FOR_DETAILS: u16 = 6;

/// The parts of the screen, from the top to the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Areas {
    pub(super) title: Rect,
    /// How the coordinator stands: one line, two or three.
    pub(super) status: Rect,
    /// How many leases there are, and how they are shown.
    pub(super) summary: Rect,
    pub(super) header: Rect,
    pub(super) rows: Rect,
    pub(super) details: Option<Rect>,
    pub(super) events: Option<Rect>,
    pub(super) footer: Rect,
}

/// The parts of a screen of this many columns and rows; none where it is too small.
pub(super) fn areas((width, height): (u16, u16), shows_details: bool) -> Option<Areas> {
    if width < LEAST_SIZE.0 || height < LEAST_SIZE.1 {
        return None;
    }
    let status = match height {
        0..16 => 1,
        16..20 => 2,
        _ => 3,
    };
    // Title, status, summary, header and footer stand in any case.
    let body = height - status - 4;
    let events = match (body, shows_details) {
        (20.., true) | (14.., false) => (body / 4).clamp(4, 10),
        (8.., false) => 3,
        _ => 0,
    };
    let details = if shows_details && body >= ROOM_FOR_DETAILS {
        ((body - events) / 2).min(14)
    } else {
        0
    };
    let mut from = 0;
    let mut next = |height: u16| {
        let area = Rect::new(0, from, width, height);
        from += height;
        area
    };
    let some = |area: Rect| (area.height > 0).then_some(area);
    Some(Areas {
        title: next(1),
        status: next(status),
        summary: next(1),
        header: next(1),
        rows: next(body - events - details),
        details: some(next(details)),
        events: some(next(events)),
        footer: next(1),
    })
}

#[cfg(test)]
mod tests {
    use super::{LEAST_SIZE, areas};

    #[test]
    fn the_parts_fill_the_screen_and_leave_room_for_leases() {
        for height in LEAST_SIZE.1..80 {
            for shows_details in [false, true] {
                let areas = areas((LEAST_SIZE.0, height), shows_details).unwrap();
                assert_eq!(areas.footer.bottom(), height);
                assert!(areas.rows.height >= 1, "{areas:?}");
                let has_room = height >= 11;
                assert_eq!(
                    areas.details.is_some(),
                    shows_details && has_room,
                    "{areas:?}"
                );
                let parts = [Some(areas.rows), areas.details, areas.events];
                let end = parts
                    .into_iter()
                    .flatten()
                    .fold(areas.header.bottom(), |from, area| {
                        assert_eq!(area.top(), from, "{areas:?}");
                        area.bottom()
                    });
                assert_eq!(end, areas.footer.top());
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_drawn() {
        for size in [(0, 0), (39, 50), (200, 7), (u16::MAX, 0)] {
            assert_eq!(areas(size, true), None);
        }
        assert!(areas((u16::MAX, u16::MAX), true).is_some());
    }
}
