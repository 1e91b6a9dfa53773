//! Whatever comes in headers: an error, never a panic, never a grant that nobody has shown.

use http::{HeaderMap, HeaderName, HeaderValue};
use palisade_guard::effects::IdempotencyKey;
use palisade_guard::tower::{Carried, Fault, MAX_GRANTS, Protocol, Reason};
use proptest::collection::vec;
use proptest::prelude::*;

const NAMES: [&str; 7] = [
    "x-fence-resource",
    "x-fence-token",
    "x-fence-holder",
    "idempotency-key",
    "content-type",
    "x-palisade-reason",
    "x-palisade-detail",
];

/// What is nearly right, and what is nothing.
fn value() -> impl Strategy<Value = HeaderValue> {
    let nearly = prop_oneof![
        Just("orders".to_owned()),
        Just("orders,bills".to_owned()),
        Just("42".to_owned()),
        Just("42,43".to_owned()),
        Just("ab".repeat(16)),
        Just(format!("{0},{0}", "ab".repeat(16))),
        Just("application/grpc".to_owned()),
        Just("{\"resource\":\"orders\",\"presented\":41,\"fence\":42}".to_owned()),
        proptest::sample::select(Reason::ALL).prop_map(|reason| reason.as_str().to_owned()),
        "[0-9,. -]{0,20}",
        "\"[ -~]{0,12}\"?",
        "\\{\"[a-z]{1,9}\":[\"0-9a-z-]{0,20}\\}",
    ];
    let nearly = nearly.prop_map(|text| HeaderValue::from_str(&text).unwrap());
    let nothing = vec(any::<u8>(), 0..40).prop_map(|mut bytes| {
        // A header has no control characters; http refuses them before the layer is asked.
        for byte in bytes.iter_mut().filter(|byte| byte.is_ascii_control()) {
            *byte |= 0x80;
        }
        HeaderValue::from_bytes(&bytes).unwrap()
    });
    prop_oneof![3 => nearly, 1 => nothing]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    vec((proptest::sample::select(&NAMES[..]), value()), 0..9).prop_map(|pairs| {
        let pairs = pairs.into_iter();
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn ten_thousand_headers_are_read_or_refused(headers in headers()) {
        match Carried::read(&headers) {
            Ok(carried) => {
                prop_assert!(carried.grants().len() <= MAX_GRANTS);
                let sent = |name: &str, text: &str| {
                    let values = headers.get_all(name);
                    let mut parts = values.iter().flat_map(|value| value.to_str().unwrap().split(','));
                    parts.any(|part| part.trim() == text)
                };
                for grant in carried.grants() {
                    prop_assert!(sent("x-fence-resource", grant.resource.as_str()));
                    prop_assert!(sent("x-fence-token", &grant.token.to_string()));
                    prop_assert!(sent("x-fence-holder", &grant.holder.to_string()));
                }
                if let Some(key) = carried.idempotency_key() {
                    prop_assert!(IdempotencyKey::new("t", "o", key).is_ok());
                }
            }
            Err(error) => {
                // What was told of it makes an answer, and is read again.
                let fault = Fault::from(error.clone());
                let back = Fault::of_headers(&fault.headers(Protocol::Grpc));
                prop_assert!(matches!(back, Some(Fault::Header(back)) if back == error));
            }
        }
        if let Some(fault) = Fault::of_headers(&headers) {
            let back = Fault::of_headers(&fault.headers(Protocol::Http)).unwrap();
            prop_assert_eq!(back.reason(), fault.reason());
        }
    }
}
