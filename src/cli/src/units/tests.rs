use std::time::Duration;

use super::{
    TimeStyle, Times, parse_address, parse_duration, relative, rough, show_duration, show_roughly,
    show_unix_ms,
};

#[test]
fn durations_have_a_number_and_a_unit() {
    for (text, milliseconds) in [
        ("0s", 0),
        ("500ms", 500),
        ("5s", 5_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(milliseconds)),
            "{text}"
        );
    }
    for text in [
        "",
        "5",
        "s",
        "5 s",
        "-5s",
        "+5s",
        "1.5s",
        "5S",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn durations_are_shown_in_the_largest_exact_unit() {
    for text in ["0ms", "500ms", "1500ms", "5s", "90s", "2m", "1h"] {
        assert_eq!(show_duration(parse_duration(text).unwrap()), text);
    }
}

#[test]
fn addresses_have_a_port_and_may_lack_the_scheme() {
    assert_eq!(
        parse_address("127.0.0.1:7650").unwrap(),
        "http://127.0.0.1:7650"
    );
    assert_eq!(
        parse_address("https://a.example").unwrap(),
        "https://a.example"
    );
    for text in [
        "",
        "http://",
        "localhost",
        "ftp://a:1",
        "http://a b:1",
        "127.0.0.1:99999",
    ] {
        assert!(parse_address(text).is_err(), "{text}");
    }
}

#[test]
fn points_of_time_are_shown_in_utc() {
    for (unix_ms, text) in [
        (-1, "1969-12-31T23:59:59Z"),
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59Z"),
        (1_709_251_200_000, "2024-03-01T00:00:00Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        (i64::MAX, "9223372036854775807ms since 1970"),
    ] {
        assert_eq!(Times(TimeStyle::Iso).show_at(unix_ms, 0), text);
    }
}

#[test]
fn points_of_time_are_shown_as_how_long_ago() {
    let now = 1_709_251_200_000;
    for (ago, text) in [
        (0, "now"),
        (999, "now"),
        (-999, "now"),
        (1_000, "1s ago"),
        (59_999, "59s ago"),
        (60_000, "1m ago"),
        (61_000, "1m 1s ago"),
        (3_600_000, "1h ago"),
        (3_660_000, "1h 1m ago"),
        (90_000_000, "1d 1h ago"),
        (86_400_000 + 60_000, "1d ago"),
        (-2_500, "in 2s"),
        (-86_400_000, "in 1d"),
    ] {
        let times = Times(TimeStyle::Relative);
        assert_eq!(times.show_at(now - ago, now), text, "{ago}");
    }
    assert_eq!(
        Times(TimeStyle::Relative).show_at(i64::MIN, i64::MAX),
        format!("{} ago", rough(i64::MAX.unsigned_abs()))
    );
}

#[test]
fn rough_times_have_at_most_two_units() {
    for (milliseconds, text) in [(0, "0ms"), (1, "1ms"), (999, "999ms"), (1_500, "1s")] {
        assert_eq!(rough(milliseconds), text);
    }
}

/// What a person writes is read as it is shown, or refused with how it is written.
fn units(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match parse_duration(text) {
        Ok(time) => {
            assert_eq!(parse_duration(&show_duration(time)), Ok(time));
            assert!(!show_roughly(time).is_empty());
        }
        Err(said) => assert!(said.contains("500ms"), "{said}"),
    }
    match parse_address(text) {
        Ok(address) => assert_eq!(parse_address(&address).as_ref(), Ok(&address)),
        Err(said) => assert!(said.contains("http://HOST:PORT"), "{said}"),
    }
    if let Ok(unix_ms) = text.parse() {
        assert!(!show_unix_ms(unix_ms).is_empty());
        assert!(!relative(unix_ms).is_empty());
    }
}

#[test]
fn every_text_of_a_person_is_read_back_or_refused_with_an_example() {
    palisade_test_support::fuzz("units", units);
}
