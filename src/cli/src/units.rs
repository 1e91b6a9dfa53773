//! Texts on the command line and in tables: durations, addresses, points of time.

use std::time::Duration;

/// Reads a time such as `500ms`, `5s`, `2m` or `1h`: a whole number and its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || "write a whole number and its unit: 500ms, 5s, 2m or 1h".to_owned();
    let unit_at = text
        .find(|digit: char| !digit.is_ascii_digit())
        .ok_or_else(refuse)?;
    let (number, unit) = text.split_at(unit_at);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(refuse)
}

/// A time as [`parse_duration`] reads it, in the largest unit that is exact.
pub(crate) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    units
        .into_iter()
        .find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(name, unit)| format!("{}{name}", milliseconds / unit),
        )
}

/// Reads a coordinator's address; without a scheme it is plain HTTP/2.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| "write http://HOST:PORT or https://HOST:PORT".to_owned())?;
    match (uri.scheme_str(), uri.port_u16()) {
        (Some("http" | "https"), Some(_)) => Ok(url),
        (Some("https"), None) => Ok(url),
        (Some("http"), None) => Err("the port is missing: write http://HOST:PORT".to_owned()),
        _ => Err("write http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

/// A point of time as RFC 3339 has it, in UTC.
pub(crate) fn show_unix_ms(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1_000);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian calendar: Howard Hinnant's
/// `civil_from_days`, whose years begin in March so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_address, parse_duration, show_duration, show_unix_ms};

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
        ] {
            assert_eq!(show_unix_ms(unix_ms), text);
        }
    }
}
