//! Whatever comes in headers: an error, never a panic, never a grant that nobody has shown.

use http::{HeaderMap, HeaderName, HeaderValue};
use palisade_guard::effects::IdempotencyKey;
use palisade_guard::tower::{Carried, Fault, MAX_GRANTS, Protocol, Reason};
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

const HOLDER: &str = "abababababababababababababababab";

/// A stream of numbers (`SplitMix64`): strategies for ten thousand cases take a minute in a debug build.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len().try_into().unwrap());
        &from[usize::try_from(at).unwrap()]
    }

    fn bytes(&mut self, of: &[u8], most: u64) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| *self.pick(of)).collect()
    }

    /// What is nearly right, and what is nothing.
    fn value(&mut self) -> HeaderValue {
        const NEARLY: [&str; 9] = [
            "orders",
            "orders,bills",
            "42",
            "42,43",
            HOLDER,
            "abababababababababababababababab,abababababababababababababababab",
            "application/grpc",
            r#"{"resource":"orders","presented":41,"fence":42}"#,
            r#"{"field":"x-fence-token","bound":"b","given":"g"}"#,
        ];
        // A header has no control characters; http refuses them before the layer is asked.
        let any: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).collect();
        let bytes = match self.below(7) {
            0 | 1 => self.pick(&NEARLY).as_bytes().to_vec(),
            2 => self.pick(Reason::ALL).as_str().as_bytes().to_vec(),
            3 => self.bytes(b"0123456789,.- ", 20),
            4 => self.bytes(br#""\ab "#, 12),
            5 => self.bytes(br#"{}[]":,\u0resourcekeyfence12"#, 60),
            _ => self.bytes(&any, 300),
        };
        HeaderValue::from_bytes(&bytes).unwrap()
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.below(2) == 0 {
            // Else hardly one in ten thousand were a grant.
            for (name, value) in NAMES.into_iter().zip(["orders", "42", HOLDER]) {
                headers.append(name, HeaderValue::from_static(value));
            }
        }
        for _ in 0..self.below(7) {
            let name = *self.pick(&NAMES);
            let value = self.value();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn ten_thousand_headers_are_read_or_refused(seed in any::<u64>()) {
        let headers = Random(seed).headers();
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
