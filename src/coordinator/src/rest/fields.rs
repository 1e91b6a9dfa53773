//! What was sent, field by field: each is taken once, and what nobody takes is refused by its name.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::service::{BadField, bad, shown};

/// How much of a name nobody knows is told back.
const SHOWN_CHARACTERS: usize = 64;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The fields of a JSON object, or of a URL's query.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// What the names stand below.
    path: &'static str,
    fields: Map<String, Value>,
    /// Numbers are text in a query.
    is_query: bool,
    /// What was asked for: that is what there can be.
    known: Vec<&'static str>,
}

impl Fields {
    /// Reads a body. One without bytes is one without fields.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, BadField> {
        const BOUND: &str = "one JSON object";
        if body.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self {
                fields,
                ..Self::default()
            }),
            Ok(other) => Err(bad("body", BOUND, kind(&other))),
            Err(error) => {
                let given = format!(
                    "not JSON at line {} column {}",
                    error.line(),
                    error.column()
                );
                Err(bad("body", BOUND, given))
            }
        }
    }

    /// Reads what follows the `?`.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self, BadField> {
        let mut fields = Map::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let before = fields.insert(name.clone().into_owned(), value.into_owned().into());
            if before.is_some() {
                return Err(bad(short(&name), "given once", "there twice"));
            }
        }
        Ok(Self {
            fields,
            is_query: true,
            ..Self::default()
        })
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn bad<T>(&self, name: &str, bound: &str, given: &Value) -> Result<T, BadField> {
        Err(bad(self.name(name), bound, kind(given)))
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// A text; empty where it is not there.
    pub(super) fn text(&mut self, name: &'static str) -> Result<String, BadField> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => self.bad(name, "a string", &other),
        }
    }

    /// A number; 0 where it is not there.
    pub(super) fn number<T: TryFrom<i128> + Default + Bounded>(
        &mut self,
        name: &'static str,
    ) -> Result<T, BadField> {
        let number = match self.take(name) {
            None => return Ok(T::default()),
            Some(Value::String(text)) if self.is_query => {
                let number = text.parse::<i128>().ok();
                return number
                    .and_then(|number| T::try_from(number).ok())
                    .ok_or_else(|| bad(self.name(name), T::BOUND, shown(&text)));
            }
            Some(Value::Number(number)) => number,
            Some(other) => return self.bad(name, T::BOUND, &other),
        };
        let whole = number
            .as_u64()
            .map(i128::from)
            .or_else(|| number.as_i64().map(i128::from));
        whole
            .and_then(|whole| T::try_from(whole).ok())
            .ok_or_else(|| bad(self.name(name), T::BOUND, number))
    }

    /// Bytes that come as base64; none where the field is not there.
    pub(super) fn bytes(&mut self, name: &'static str) -> Result<Vec<u8>, BadField> {
        let text = self.text(name)?;
        base64(self.name(name), text.as_bytes())
    }

    /// An object within this one.
    pub(super) fn object(
        &mut self,
        name: &'static str,
        path: &'static str,
    ) -> Result<Option<Self>, BadField> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self {
                path,
                fields,
                ..Self::default()
            })),
            Some(other) => self.bad(name, "an object", &other),
        }
    }

    /// Refuses what was not asked for.
    pub(super) fn finish(self) -> Result<(), BadField> {
        let Some(unknown) = self.fields.keys().next() else {
            return Ok(());
        };
        let bound = match self.known.as_slice() {
            [] => "left out: there are no fields here".to_owned(),
            known => format!("left out, or one of {}", known.join(", ")),
        };
        let given = if self.is_query {
            "a query parameter that is not known here"
        } else {
            "a field that is not known here"
        };
        Err(bad(self.name(&short(unknown)), bound, given))
    }
}

/// Numbers as the interface has them.
pub(super) trait Bounded {
    /// What is allowed, in words.
    const BOUND: &'static str;
}

impl Bounded for u64 {
    const BOUND: &'static str = "a whole number from 0 to 2^64 - 1";
}

impl Bounded for i64 {
    const BOUND: &'static str = "a whole number from -2^63 to 2^63 - 1";
}

impl Bounded for u32 {
    const BOUND: &'static str = "a whole number from 0 to 4294967295";
}

impl Bounded for i32 {
    const BOUND: &'static str = "a whole number from -2147483648 to 2147483647";
}

/// Reads base64, with either alphabet, padded or not. Nothing of it is told back: secrets come so.
pub(super) fn base64(name: String, text: &[u8]) -> Result<Vec<u8>, BadField> {
    let read = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
    read.map_err(|_| bad(name, "base64", "something else"))
}

/// A name that nobody knows, as it is told: there may be none at all, and yet a field.
fn short(name: &str) -> String {
    match name {
        "" => "\"\"".to_owned(),
        name => name.chars().take(SHOWN_CHARACTERS).collect(),
    }
}

/// What a value is: never the value, which may be a secret in the wrong place.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
