//! News become a model, and the model a picture.

use std::time::Duration;

use palisade_client::LeaseEnd;
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::keys::Asked;
use super::model::{Link, Model, Now, Sort};
use super::news::{Ended, News, Row, Standing};
use super::text::shown;
use super::view::{self, Theme};
use super::world::{MOST_EVENTS, MOST_LEASES, What};

const START_MS: i64 = 1_763_700_000_000;

fn name(text: &str) -> ResourceName {
    text.parse().unwrap()
}

fn token(number: i64) -> FencingToken {
    FencingToken::try_from(number).unwrap()
}

fn lease(resource: &str, number: i64, label: &str) -> Box<Row> {
    let holder = HolderId::from_bytes([7; 16]);
    Box::new(Row {
        grant: Grant {
            resource: name(resource),
            token: token(number),
            holder,
        },
        label: shown(label),
        session: format!("{number:016x}"),
        request: "r-1".to_owned(),
        ttl: Duration::from_secs(15),
        lock_delay: Duration::ZERO,
        granted_unix_ms: START_MS - 1_000 * number,
        granted_revision: number,
        waiters: None,
        before: None,
        searched: format!("{resource} {label} {number}").to_lowercase(),
    })
}

fn ended(resource: &str, number: i64, end: LeaseEnd) -> News {
    News::Ended(Ended {
        resource: name(resource),
        token: Some(token(number)),
        label: String::new(),
        end,
        reason: String::new(),
    })
}

fn counted(resource: &str, number: i64, waiters: u32) -> News {
    News::Counted {
        counts: vec![(name(resource), token(number), waiters)],
        is_last: true,
    }
}

fn later(model: &mut Model, seconds: u64) {
    model.at(Now {
        unix_ms: START_MS + i64::try_from(seconds).unwrap() * 1_000,
        up: Duration::from_secs(seconds),
    });
}

/// A model that has seen these leases, on a screen of the usual size.
fn model(leases: impl IntoIterator<Item = Box<Row>>) -> Model {
    let mut model = Model::new(&["http://127.0.0.1:7650".to_owned()], String::new());
    later(&mut model, 0);
    model.resize((80, 24));
    for lease in leases {
        model.hear(News::Stands(lease));
    }
    model.hear(News::SnapshotEnd);
    model
}

fn three() -> Model {
    model([
        lease("orders/eu-1", 10, "import"),
        lease("orders/eu-2", 30, "export"),
        lease("bank", 20, "audit"),
    ])
}

fn names(model: &mut Model) -> Vec<String> {
    model.settle();
    let names = model.order().iter().map(|row| row.resource().to_string());
    names.collect()
}

fn press(model: &mut Model, keys: &str) -> Asked {
    let mut asked = Asked::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '\u{4}' => KeyCode::PageDown,
            other => KeyCode::Char(other),
        };
        asked = model.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    asked
}

fn selected(model: &mut Model) -> Option<String> {
    model.settle();
    model.selected().map(ToString::to_string)
}

fn drawn(model: &mut Model, (wide, high): (u16, u16), theme: Theme) -> Terminal<TestBackend> {
    model.resize((wide, high));
    model.settle();
    let mut terminal = Terminal::new(TestBackend::new(wide, high)).unwrap();
    let draw = terminal.draw(|frame| view::draw(frame, model, theme));
    draw.unwrap();
    terminal
}

/// The picture as lines of text, without blanks at their ends.
fn picture(model: &mut Model, size: (u16, u16)) -> Vec<String> {
    let terminal = drawn(model, size, Theme { has_colour: true });
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let mut line = String::new();
        let mut covered = 0;
        for x in 0..size.0 {
            let symbol = buffer.cell((x, y)).unwrap().symbol();
            if covered == 0 {
                line.push_str(symbol);
                covered = super::text::width(symbol).max(1);
            }
            covered -= 1;
        }
        line.trim_end().to_owned()
    };
    (0..size.1).map(line).collect()
}

fn line_with<'a>(picture: &'a [String], text: &str) -> &'a str {
    let mut lines = picture.iter();
    lines
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("{text} is not shown: {picture:#?}"))
}

#[test]
fn a_snapshot_counts_when_it_is_whole() {
    let mut model = Model::new(&["http://a:1".to_owned()], String::new());
    model.hear(News::Stands(lease("a", 1, "")));
    assert_eq!(model.link, Link::Connecting);
    assert!(names(&mut model).is_empty());
    assert!(!model.is_known());
    model.hear(News::SnapshotEnd);
    assert_eq!(
        (model.link.clone(), names(&mut model)),
        (Link::Live, vec!["a".to_owned()])
    );
}

#[test]
fn what_happens_changes_what_stands_and_is_told() {
    let mut model = three();
    later(&mut model, 5);
    model.hear(News::Granted(lease("new", 40, "deploy")));
    model.hear(ended("bank", 20, LeaseEnd::Expired));
    assert_eq!(names(&mut model), ["new", "orders/eu-1", "orders/eu-2"]);
    let events: Vec<_> = model.seen().events().collect();
    assert!(matches!(&events[0].what, What::Ended(ended) if ended.end == LeaseEnd::Expired));
    assert!(matches!(&events[1].what, What::Granted { label, .. } if label == "deploy"));
    assert_eq!(events[0].at, Duration::from_secs(5));
}

#[test]
fn a_hand_over_leaves_the_next_holder_and_how_the_one_before_ended() {
    let mut model = three();
    model.hear(ended("bank", 20, LeaseEnd::Revoked));
    model.hear(News::Granted(lease("bank", 21, "next")));
    // The end of a lease that is not the present one says nothing of that.
    model.hear(ended("bank", 20, LeaseEnd::Revoked));
    let row = model.seen().row(&name("bank")).unwrap();
    assert_eq!(row.grant.token, token(21));
    let before = row.before.as_ref().unwrap();
    assert_eq!(
        (before.ended.end, before.ended.token),
        (LeaseEnd::Revoked, Some(token(20)))
    );
}

#[test]
fn waiters_are_those_of_the_lease_that_was_counted() {
    let mut model = three();
    model.hear(counted("bank", 20, 2));
    model.hear(counted("orders/eu-1", 9, 5));
    assert_eq!(model.seen().waiting(), 2);
    assert_eq!(
        model.seen().row(&name("orders/eu-1")).unwrap().waiters,
        None
    );
    model.hear(News::Granted(lease("bank", 21, "")));
    assert_eq!(
        model.seen().row(&name("bank")).unwrap().waiters,
        None,
        "another queue"
    );
}

#[test]
fn what_nobody_saw_is_told_as_a_number_and_keeps_what_is_still_true() {
    let mut model = three();
    model.hear(counted("bank", 20, 2));
    model.hear(News::Away("no answer".to_owned()));
    let at = Duration::from_secs(0);
    assert_eq!(model.link, Link::Reconnecting(at, "no answer".to_owned()));
    later(&mut model, 9);
    model.hear(News::Away("cannot be reached".to_owned()));
    assert_eq!(
        model.link,
        Link::Reconnecting(at, "cannot be reached".to_owned())
    );
    model.hear(News::Snapshot);
    model.hear(News::Stands(lease("bank", 20, "audit")));
    model.hear(News::Stands(lease("orders/eu-1", 50, "other")));
    assert!(
        matches!(model.link, Link::Reconnecting(..)),
        "not before it is whole"
    );
    assert_eq!(
        names(&mut model).len(),
        3,
        "what was known stays until then"
    );
    model.hear(News::SnapshotEnd);
    assert_eq!(model.link, Link::Live);
    assert_eq!(names(&mut model), ["bank", "orders/eu-1"]);
    assert_eq!(model.seen().row(&name("bank")).unwrap().waiters, Some(2));
    let first = model.seen().events().next().unwrap();
    assert_eq!(first.what, What::CaughtUp { new: 1, gone: 2 });
}

#[test]
fn a_snapshot_that_tells_nothing_new_is_no_event() {
    let mut model = model([lease("a", 1, "")]);
    model.hear(News::Snapshot);
    model.hear(News::Stands(lease("a", 1, "")));
    model.hear(News::SnapshotEnd);
    assert_eq!(model.seen().changes(), 0);
    model.hear(News::Quiet);
    assert_eq!(model.link, Link::Live);
}

#[test]
fn what_is_kept_has_bounds_and_the_rest_is_counted() {
    let many = (1..=MOST_LEASES + 10).map(|number| {
        lease(
            &format!("r-{number:06}"),
            i64::try_from(number).unwrap(),
            "",
        )
    });
    let mut model = model(many);
    assert_eq!(model.seen().standing(), (MOST_LEASES + 10, 10));
    model.hear(ended("r-050003", 50_003, LeaseEnd::Released));
    model.hear(ended("r-000001", 1, LeaseEnd::Released));
    assert_eq!(model.seen().standing(), (MOST_LEASES + 8, 9));
    for number in 0..2 * MOST_EVENTS {
        model.hear(News::Granted(lease(
            "r-000002",
            i64::try_from(number).unwrap() + 60_000,
            "",
        )));
    }
    assert_eq!(model.seen().events().count(), MOST_EVENTS);
    let picture = picture(&mut model, (80, 24));
    line_with(&picture, "50008 leases");
    line_with(&picture, "9 of them not kept");
}

#[test]
fn leases_are_sorted_in_each_way_and_turned_around() {
    let mut model = three();
    model.hear(counted("orders/eu-1", 10, 3));
    let sorted = |model: &mut Model, sort| {
        model.sort_by(sort, false);
        names(model)
    };
    let by = |name: Sort, model: &mut Model| sorted(model, name);
    assert_eq!(
        by(Sort::Resource, &mut model),
        ["bank", "orders/eu-1", "orders/eu-2"]
    );
    assert_eq!(
        by(Sort::Held, &mut model),
        ["orders/eu-2", "bank", "orders/eu-1"]
    );
    assert_eq!(
        by(Sort::Waiters, &mut model),
        ["orders/eu-1", "bank", "orders/eu-2"]
    );
    assert_eq!(
        by(Sort::Label, &mut model),
        ["bank", "orders/eu-2", "orders/eu-1"]
    );
    press(&mut model, "S");
    assert_eq!(names(&mut model), ["orders/eu-1", "orders/eu-2", "bank"]);
    press(&mut model, "s");
    assert_eq!((model.sort, model.is_reversed), (Sort::Resource, true));
}

#[test]
fn a_filter_looks_into_all_that_is_shown_and_can_be_dropped() {
    let mut model = three();
    press(&mut model, "/EU");
    assert_eq!(names(&mut model), ["orders/eu-1", "orders/eu-2"]);
    press(&mut model, "-2\n");
    assert_eq!(
        (names(&mut model), model.filter.as_str()),
        (vec!["orders/eu-2".to_owned()], "EU-2")
    );
    press(&mut model, "/\u{8}\u{8}x\u{1b}");
    assert_eq!(model.filter, "EU-2", "as it was before");
    assert_eq!(press(&mut model, "\u{1b}"), Asked::Nothing);
    assert_eq!(names(&mut model).len(), 3);
    press(&mut model, "/audit");
    assert_eq!(names(&mut model), ["bank"], "labels, too");
    press(&mut model, &"q".repeat(1_000));
    assert!(model.filter.len() <= 256);
}

#[test]
fn the_selection_stays_with_its_lease() {
    let mut model = three();
    assert_eq!(selected(&mut model).as_deref(), Some("bank"));
    press(&mut model, "j");
    assert_eq!(selected(&mut model).as_deref(), Some("orders/eu-1"));
    model.hear(News::Granted(lease("aaa", 50, "")));
    assert_eq!(selected(&mut model).as_deref(), Some("orders/eu-1"));
    model.hear(ended("orders/eu-1", 10, LeaseEnd::Released));
    assert_eq!(
        selected(&mut model).as_deref(),
        Some("orders/eu-2"),
        "the next one"
    );
    press(&mut model, "jjjjj");
    assert_eq!(
        selected(&mut model).as_deref(),
        Some("orders/eu-2"),
        "no further"
    );
    press(&mut model, "g");
    assert_eq!(selected(&mut model).as_deref(), Some("aaa"));
    press(&mut model, "kG");
    assert_eq!(selected(&mut model).as_deref(), Some("orders/eu-2"));
}

#[test]
fn details_stay_with_a_lease_that_ends() {
    let mut model = three();
    press(&mut model, "j\n");
    assert_eq!(model.wanted(), Some(&name("orders/eu-1")));
    model.hear(ended("orders/eu-1", 10, LeaseEnd::Expired));
    assert_eq!(selected(&mut model).as_deref(), Some("orders/eu-1"));
    let shown = picture(&mut model, (80, 24));
    line_with(&shown, "details of orders/eu-1");
    line_with(&shown, "vacant");
    press(&mut model, "j");
    assert_ne!(selected(&mut model).as_deref(), Some("orders/eu-1"));
    press(&mut model, "\u{1b}");
    assert_eq!(model.wanted(), None);
}

#[test]
fn what_is_selected_is_in_sight() {
    let many = (0..500).map(|number| lease(&format!("r-{number:03}"), number + 1, ""));
    let mut model = model(many);
    for keys in [
        "j",
        "jjjjjjjjjjjjjjjjjjjjjjjj",
        "\u{4}",
        "\u{4}\u{4}",
        "G",
        "k",
        "g",
        "\n",
        "G",
    ] {
        press(&mut model, keys);
        for size in [(80, 24), (40, 8), (120, 60)] {
            let selected = selected(&mut model).unwrap();
            let shown = picture(&mut model, size);
            let rows = model.areas().unwrap().rows;
            let rows = &shown[usize::from(rows.top())..usize::from(rows.bottom())];
            assert!(
                rows.iter().any(|row| row.starts_with(&selected)),
                "{selected}: {rows:?}"
            );
        }
    }
}

#[test]
fn a_pause_holds_the_picture_while_the_world_goes_on() {
    let mut model = three();
    press(&mut model, "p");
    let before = picture(&mut model, (100, 24));
    later(&mut model, 60);
    model.hear(ended("bank", 20, LeaseEnd::Expired));
    model.hear(News::Granted(lease("new", 50, "")));
    let after = picture(&mut model, (100, 24));
    assert_eq!(before[2..], after[2..]);
    assert!(after[0].contains("PAUSED, 2 events since"), "{}", after[0]);
    press(&mut model, "jj");
    assert_eq!(
        selected(&mut model).as_deref(),
        Some("orders/eu-2"),
        "looking around goes on"
    );
    press(&mut model, "p");
    assert_eq!(names(&mut model), ["new", "orders/eu-1", "orders/eu-2"]);
    assert!(!picture(&mut model, (100, 24))[0].contains("PAUSED"));
}

#[test]
fn keys_end_it_and_escape_closes_first_what_is_open() {
    for keys in ["q", "\u{1b}", "?q", "\nq"] {
        assert_eq!(press(&mut three(), keys), Asked::Quit, "{keys:?}");
    }
    for keys in ["?\u{1b}", "\n\u{1b}", "/q", "/\u{1b}", "?\n"] {
        assert_eq!(press(&mut three(), keys), Asked::Nothing, "{keys:?}");
    }
    for (key, asked) in [
        ('c', Asked::Quit),
        ('z', Asked::Suspend),
        ('l', Asked::Redraw),
    ] {
        // Wherever one is.
        for keys in ["", "?", "/ab", "\n"] {
            let mut model = three();
            press(&mut model, keys);
            let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
            assert_eq!(model.key(key), asked);
        }
    }
}

#[test]
fn the_picture_says_how_things_stand() {
    let mut model = three();
    model.hear(counted("bank", 20, 2));
    model.hear(News::Status(vec![Ok(Box::new(Standing {
        version: "0.1.0".to_owned(),
        is_ready: true,
        store: "embedded store".to_owned(),
        generation: Some((1_763_700_000_000_000, 7)),
        revision: 33,
        uptime: Duration::from_secs(192),
        usage: vec![("streams", 3, Some(1_000)), ("transactions", 1, None)],
        ..Standing::default()
    }))]));
    later(&mut model, 2);
    model.hear(ended("orders/eu-2", 30, LeaseEnd::Expired));
    let picture = picture(&mut model, (110, 24));
    let row = |cells: [&str; 7]| {
        let [resource, label, token, held, ttl, waiters, session] = cells;
        format!(
            "{resource:28}  {label:18}  {token:>16}  {held:>7}  {ttl:>6}  {waiters:>7}  {session}"
        )
    };
    let expected = [
        "palisade top  live".to_owned(),
        "http://127.0.0.1:7650 ready  0.1.0, embedded store, up 3m12s".to_owned(),
        "streams 3/1000  transactions 1".to_owned(),
        "revision 33, generation 1763700000000000 counted from revision 7".to_owned(),
        "2 leases, 2 waiting, by resource".to_owned(),
        row([
            "RESOURCE", "LABEL", "TOKEN", "HELD", "TTL", "WAITERS", "SESSION",
        ]),
        row(["bank", "audit", "20", "22s", "15s", "2", "0000000000000014"]),
        row([
            "orders/eu-1",
            "import",
            "10",
            "12s",
            "15s",
            "-",
            "000000000000000a",
        ]),
    ];
    assert_eq!(picture[..expected.len()], expected);
    assert_eq!(
        line_with(&picture, "expired"),
        "     0s ago  expired  orders/eu-2  30"
    );
    assert!(
        picture[23].starts_with("q quit  ? help  p pause"),
        "{}",
        picture[23]
    );
}

#[test]
fn a_coordinator_that_is_away_or_not_ready_is_told() {
    let mut model = three();
    model.hear(News::Status(vec![Err("no answer".to_owned())]));
    line_with(&picture(&mut model, (80, 24)), "not known: no answer");
    let not_ready = Standing {
        reasons: vec!["STORE_UNAVAILABLE".to_owned()],
        ..Standing::default()
    };
    model.hear(News::Status(vec![Ok(Box::new(not_ready))]));
    line_with(
        &picture(&mut model, (80, 24)),
        "not ready (STORE_UNAVAILABLE)",
    );
    later(&mut model, 7);
    model.hear(News::Status(vec![Err("cannot be reached".to_owned())]));
    line_with(
        &picture(&mut model, (120, 24)),
        "cannot be reached (was not ready (STORE_UNAVAILABLE) 7s ago)",
    );
    model.hear(News::Away("cannot be reached".to_owned()));
    later(&mut model, 19);
    line_with(
        &picture(&mut model, (80, 24)),
        "reconnecting for 12s: cannot be reached",
    );
    // Granted ten seconds before the start: nobody knows whether it is still held.
    let shown = picture(&mut model, (80, 24));
    line_with(&shown, "3 leases, by resource, as of 12s ago");
    assert!(
        line_with(&shown, "orders/eu-1").contains(" 17s "),
        "{shown:#?}"
    );
}

#[test]
fn of_several_coordinators_one_that_is_ready_is_shown() {
    let addresses = ["http://a:1", "http://b:1"].map(str::to_owned);
    let mut model = Model::new(&addresses, "orders/".to_owned());
    let ready = Standing {
        is_ready: true,
        ..Standing::default()
    };
    model.hear(News::Status(vec![
        Err("no answer".to_owned()),
        Ok(Box::new(ready)),
    ]));
    let picture = picture(&mut model, (100, 24));
    assert!(
        picture[0].starts_with("palisade top orders/  connecting"),
        "{}",
        picture[0]
    );
    line_with(&picture, "http://b:1 ready");
    line_with(&picture, "1 of 2 coordinators ready");
    line_with(&picture, "not known yet");
}

#[test]
fn labels_of_all_kinds_stay_in_their_cells() {
    for label in [
        "世界世界世界世界世界世界世界世界世界",
        "e\u{301}\u{301}\u{301}x",
        "\u{1b}[2J\r\n\u{7}",
        "👩‍💻👩‍💻",
        "a\u{202e}b",
    ] {
        let mut model = model([lease("a", 1, label)]);
        for wide in (40..140).step_by(7) {
            let shown = picture(&mut model, (wide, 24));
            let row = line_with(&shown, "a   ");
            assert!(
                !shown.iter().any(|line| line.contains(char::is_control)),
                "{shown:?}"
            );
            // The token ends where its column ends, whatever is before it.
            let header = line_with(&shown, "RESOURCE");
            let end = |line: &str, text: &str| {
                super::text::width(&line[..line.find(text).unwrap() + text.len()])
            };
            assert_eq!(end(row, "   1"), end(header, "TOKEN"), "{wide}: {shown:#?}");
        }
    }
}

#[test]
fn no_size_is_too_small_to_be_survived() {
    let mut model = three();
    for keys in ["", "\n", "?", "\u{1b}/eu"] {
        press(&mut model, keys);
        for wide in [0, 1, 2, 31, 39, 40, 41, 55, 200] {
            for high in [0, 1, 2, 7, 8, 9, 12, 16, 20, 40] {
                let shown = picture(&mut model, (wide, high));
                if (wide < 40 || high < 8) && wide >= 31 && high > 0 {
                    assert_eq!(shown[0], "too small: 40x8 needed, q quits");
                }
            }
        }
    }
}

#[test]
fn a_screen_that_shrinks_between_two_looks_at_it_is_survived() {
    let mut model = three();
    model.resize((200, 60));
    model.settle();
    let mut terminal = Terminal::new(TestBackend::new(50, 10)).unwrap();
    let theme = Theme { has_colour: true };
    terminal
        .draw(|frame| view::draw(frame, &model, theme))
        .unwrap();
}

#[test]
fn without_colours_there_are_none() {
    let mut model = three();
    model.hear(ended("bank", 20, LeaseEnd::Revoked));
    model.hear(News::Away("no answer".to_owned()));
    for has_colour in [true, false] {
        let terminal = drawn(&mut model, (80, 24), Theme { has_colour });
        let cells = terminal.backend().buffer().content().iter();
        let coloured = cells.filter(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset));
        assert_eq!(coloured.count() > 0, has_colour);
        let cells = terminal.backend().buffer().content().iter();
        let is_selected =
            |cell: &&ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
        assert_eq!(
            cells.filter(is_selected).count(),
            80,
            "the selection can be seen all the same"
        );
    }
}

#[test]
fn the_help_names_each_key_that_does_something() {
    let mut model = three();
    press(&mut model, "?");
    let shown = picture(&mut model, (100, 30));
    for text in [
        "PgUp", "Enter", "sort by", "pause", "Ctrl-Z", "quit", "HELD", "TTL",
    ] {
        line_with(&shown, text);
    }
}

/// What the view takes for ten thousand leases does not grow with what is not shown.
#[test]
fn ten_thousand_leases_are_one_page() {
    let many = (0..10_000).map(|number| lease(&format!("r-{number:05}"), number + 1, "x"));
    let mut model = model(many);
    press(&mut model, "G");
    let shown = picture(&mut model, (80, 24));
    line_with(&shown, "10000 leases");
    line_with(&shown, "r-09999");
    press(&mut model, "/r-00042\n");
    let shown = picture(&mut model, (80, 24));
    line_with(&shown, "10000 leases, 1 shown");
    line_with(&shown, "r-00042");
}
