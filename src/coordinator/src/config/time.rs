use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time as people write it: a whole number and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Time(pub(super) Duration);

/// In milliseconds, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REFUSAL: &str =
            "a time is a whole number and its unit: \"500ms\", \"5s\", \"2m\" or \"1h\"";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, milliseconds) = UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or(REFUSAL)?;
        let number: u64 = number.parse().map_err(|_| REFUSAL)?;
        let whole = number.checked_mul(milliseconds).ok_or(REFUSAL)?;
        Ok(Self(Duration::from_millis(whole)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let exact = |(_, unit): &(&str, u64)| milliseconds.is_multiple_of(u128::from(*unit));
        let largest = UNITS.into_iter().find(exact).filter(|_| milliseconds > 0);
        let (name, unit) = largest.unwrap_or(("s", 1_000));
        write!(formatter, "{}{name}", milliseconds / u128::from(unit))
    }
}

impl TryFrom<String> for Time {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}
