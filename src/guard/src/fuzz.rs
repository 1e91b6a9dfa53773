//! What must hold for everything that is read here from others: requests, services, stores. Run by tests on edited corpora, and
//! by `tests/chaos/fuzz`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::GuardError;
use crate::effects::{IdempotencyKey, Name};
use crate::tower::{
    Carried, CarryLayer, DETAIL, Fault, HOLDER, HeaderError, IDEMPOTENCY_KEY, MAX_GRANTS, Protocol,
    REASON, RESOURCE, TOKEN,
};

/// A target for fuzzing: panics where a property does not hold.
pub type Target = fn(&[u8]);

/// All targets of this crate, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("carried", carried),
    ("fault", fault),
    ("key", key),
    ("manifest", crate::object_store::fuzz_manifest),
    ("refusal_mysql", crate::mysql::fuzz_refusal),
    ("refusal_postgres", crate::postgres::fuzz_refusal),
];

/// Longer than any message of ours: it names at most two names of 256 bytes, escaped.
const MOST_SAID: usize = 8 * 1024;

/// An error is told to people and sent over the wire: in both ways whole and short.
pub(crate) fn can_be_told(error: GuardError) {
    let said = error.to_string();
    assert!(
        (1..=MOST_SAID).contains(&said.len()),
        "{} bytes: {said:.200}",
        said.len()
    );
    goes_round(&Fault::from(error));
}

/// What a client reads from the headers of an answer is what the service has meant.
fn goes_round(fault: &Fault) {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let headers = fault.headers(protocol);
        let again = Fault::of_headers(&headers).expect("what is written is read");
        assert_eq!(again.reason(), fault.reason());
        let twice = Fault::of_headers(&again.headers(protocol)).expect("what is written is read");
        assert_eq!(twice.to_string(), again.to_string());
        let _response = fault.response(protocol);
    }
}

/// Lines of `name: value`; those that cannot be headers are left out.
fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(4 * MAX_GRANTS) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// Grants in the headers of a request are whole, few, and each resource's own; a refusal names header and bound.
fn carried(input: &[u8]) {
    let headers = headers(input);
    match Carried::read(&headers) {
        Ok(carried) => {
            let grants = carried.grants();
            assert!(grants.len() <= MAX_GRANTS);
            if !grants.is_empty() {
                let mut written = HeaderMap::new();
                CarryLayer::new(grants)
                    .expect("what is read can be written")
                    .write(&mut written);
                let again = Carried::read(&written).expect("what is written is read");
                assert_eq!(again.grants(), grants);
            }
            if let Some(text) = carried.idempotency_key() {
                let key = carried
                    .key("tenant", "operation")
                    .expect("a key that is accepted is one");
                let mut written = HeaderMap::new();
                key.expect("there is one").write(&mut written);
                let again = Carried::read(&written).expect("what is written is read");
                assert_eq!(again.idempotency_key(), Some(text));
            }
        }
        Err(error) => {
            assert!(
                [RESOURCE, TOKEN, HOLDER, IDEMPOTENCY_KEY].contains(&error.field),
                "{error}"
            );
            assert!(!error.bound.is_empty());
            let given = error.given.as_deref().unwrap_or_default();
            assert!(
                given.len() <= HeaderError::MAX_GIVEN && given.is_ascii(),
                "{given:?}"
            );
            goes_round(&Fault::from(error));
        }
    }
}

/// Whatever a service answers is understood or not, and what is understood can be said again.
fn fault(input: &[u8]) {
    let mut split = input.splitn(2, |byte| *byte == b'\n');
    let (reason, detail) = (
        split.next().unwrap_or_default(),
        split.next().unwrap_or_default(),
    );
    let mut headers = HeaderMap::new();
    for (name, value) in [(REASON, reason), (DETAIL, detail)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    if let Some(fault) = Fault::of_headers(&headers) {
        let told = fault.reason().as_str().as_bytes();
        // Without facts that can be read it is no more than a failure.
        let is_failure = matches!(
            fault,
            Fault::Guard(GuardError::Backend(_) | GuardError::CommitUnknown { .. })
        );
        assert!(told == reason || is_failure, "{fault:?}");
        goes_round(&fault);
    }
}

/// Keys and names of effects are within their bounds, or refused with the bound.
fn key(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (tenant, operation, name) = (part(), part(), part());
    match IdempotencyKey::new(tenant, operation, name) {
        Ok(key) => {
            assert_eq!(
                (key.tenant(), key.operation(), key.key()),
                (tenant, operation, name)
            );
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!((1..=IdempotencyKey::MAX_KEY_BYTES).contains(&name.len()));
            assert_eq!(key.external().len(), 64);
            // A time that it claims to be made at is nobody's promise; it must only not break anything.
            let _made = key.made_at();
        }
        Err(error) => assert!(error.to_string().len() < 256, "{error}"),
    }
    match Name::new(text) {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            assert!((1..=Name::MAX_BYTES).contains(&text.len()));
        }
        Err(error) => assert!(error.to_string().len() < 256, "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use palisade_test_support::fuzz;

    fn run(name: &str) {
        let target = super::TARGETS.iter().find(|(known, _)| *known == name);
        fuzz(name, target.expect("a target").1);
    }

    #[test]
    fn grants_in_headers_are_read_back_or_refused() {
        run("carried");
    }

    #[test]
    fn every_answer_of_a_service_is_understood_or_not() {
        run("fault");
    }

    #[test]
    fn keys_and_names_of_effects_keep_their_bounds() {
        run("key");
    }

    #[test]
    fn every_manifest_is_read_back_or_refused() {
        run("manifest");
    }

    #[test]
    fn every_detail_of_postgresql_is_understood_or_not() {
        run("refusal_postgres");
    }

    #[test]
    fn every_message_of_mysql_is_understood_or_not() {
        run("refusal_mysql");
    }
}
