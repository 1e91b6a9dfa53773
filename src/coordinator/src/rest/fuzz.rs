//! Bodies and queries, whoever made them: what is accepted keeps its bounds, and secrets are never told.

use http::{HeaderMap, HeaderValue};

use super::fields::Fields;
use super::request;
use crate::config::Limits;
use crate::service::BadField;
use crate::service::fuzz::{acquire, is_told};

fn told<T>(result: Result<T, BadField>, secrets: &[&[u8]]) -> Option<T> {
    result.map_err(|bad| is_told(bad, secrets)).ok()
}

/// All strings below names that begin like secrets.
fn secrets(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if name == "secret" => found.push(text.clone()),
                    other => secrets(other, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| secrets(value, found)),
        _ => {}
    }
}

/// A body of JSON, as each of the calls reads it.
pub(crate) fn body(input: &[u8]) {
    let mut secret = Vec::new();
    if let Ok(value) = serde_json::from_slice(input) {
        secrets(&value, &mut secret);
    }
    let secret: Vec<_> = secret.iter().map(String::as_bytes).collect();
    let fields = || told(Fields::of_body(input), &secret);
    let (Some(mut one), Some(mut two), Some(mut three), Some(mut four)) =
        (fields(), fields(), fields(), fields())
    else {
        return;
    };
    if let Some(request) = told(request::acquire(&mut one), &secret) {
        acquire(request, &Limits::default());
    }
    told(one.finish(), &secret);
    told(request::release(&mut two), &secret);
    told(request::open(&mut three), &secret);
    let mut query = Fields::default();
    let headers = HeaderMap::new();
    told(
        request::of_path("0123456789abcdef", &headers, &mut query, &mut four),
        &secret,
    );
    told(four.finish(), &secret);
}

/// A query, and the two headers that a call may have, each a line.
pub(crate) fn query(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let Ok(text) = std::str::from_utf8(lines.next().unwrap_or_default()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for name in [request::SECRET_HEADER, "last-event-id"] {
        if let Ok(value) = HeaderValue::from_bytes(lines.next().unwrap_or_default()) {
            headers.insert(name, value);
        }
    }
    let secret = headers
        .get(request::SECRET_HEADER)
        .map(|value| value.as_bytes().to_vec());
    let secret: Vec<_> = secret.iter().map(Vec::as_slice).collect();
    let fields = || told(Fields::of_query(Some(text)), &[]);
    if let Some(mut query) = fields() {
        told(request::get("orders".to_owned(), &mut query), &[]);
        told(query.finish(), &[]);
    }
    if let Some(mut query) = fields() {
        told(request::list(&mut query), &[]);
    }
    if let Some(mut query) = fields() {
        told(request::watch(&headers, &mut query), &[]);
    }
    if let Some(mut query) = fields() {
        told(request::check(&mut query), &[]);
    }
    if let Some(mut query) = fields() {
        let mut body = Fields::default();
        told(
            request::of_path("0123456789abcdef", &headers, &mut query, &mut body),
            &secret,
        );
    }
}
