//! What a request carries.

use http::Request;
use palisade_guard::effects::IdempotencyKey;
use palisade_guard::tower::{Carried, CarryLayer, Fault, MAX_GRANTS, Protocol, Reason};
use proptest::prelude::*;
use tower_layer::Layer as _;

use crate::service::{Echo, ask, call, grant, layer};

const HOLDER: &str = "abababababababababababababababab";
const OTHER: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

fn carried(headers: &[(&'static str, &str)]) -> Carried {
    let response = ask(layer().without_grant(), headers);
    assert_eq!(response.status(), 200, "{response:?}");
    response.extensions().get::<Carried>().unwrap().clone()
}

#[test]
fn several_grants_are_repeated_headers_or_lists() {
    let repeated = carried(&[
        ("x-fence-resource", "orders"),
        ("x-fence-token", "41"),
        ("x-fence-holder", HOLDER),
        ("x-fence-resource", "bills/eu"),
        ("x-fence-token", "42"),
        ("x-fence-holder", OTHER),
    ]);
    let listed = carried(&[
        ("x-fence-resource", "orders, bills/eu"),
        ("x-fence-token", "41 ,42"),
        ("x-fence-holder", &format!("{HOLDER},\t{OTHER}")),
    ]);
    assert_eq!(repeated, listed);
    let texts: Vec<String> = listed.grants().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            format!("orders#41#{HOLDER}"),
            format!("bills/eu#42#{OTHER}")
        ]
    );
}

#[test]
fn what_cannot_be_a_grant_is_refused_with_field_bound_and_given() {
    let resource = ("x-fence-resource", "orders");
    let token = ("x-fence-token", "41");
    let holder = ("x-fence-holder", HOLDER);
    let long = "r".repeat(257);
    let many = vec!["r"; MAX_GRANTS + 1].join(",");
    let each = "each of 1 grants has a resource, a token and a holder";
    let number = "a token is a decimal number from 1 to 9007199254740991";
    let hex = "holder has 32 bytes or other characters; it is 32 of [0-9a-f]";
    let upper = "AB".repeat(16);
    let cases: &[(&[(&'static str, &str)], String)] = &[
        (
            &[resource, token],
            format!("x-fence-holder is missing; {each}"),
        ),
        (&[holder], format!("x-fence-resource is missing; {each}")),
        (
            &[resource, token, token, holder],
            "x-fence-resource is \"orders\"; each of 2 grants has a resource, a token and a holder"
                .to_owned(),
        ),
        (
            &[resource, holder, ("x-fence-token", "0")],
            format!("x-fence-token is \"0\"; {number}"),
        ),
        (
            &[resource, holder, ("x-fence-token", "9007199254740992")],
            format!("x-fence-token is \"9007199254740992\"; {number}"),
        ),
        (
            &[resource, holder, ("x-fence-token", "-1")],
            format!("x-fence-token is \"-1\"; {number}"),
        ),
        (
            &[resource, token, ("x-fence-holder", &upper)],
            format!("x-fence-holder is {upper:?}; {hex}"),
        ),
        (
            &[("x-fence-resource", "a//b"), token, holder],
            "x-fence-resource is \"a//b\"; resource name has the segment \"\" at byte 2; \
             no segment is empty, \".\" or \"..\""
                .to_owned(),
        ),
        (
            &[("x-fence-resource", &long), token, holder],
            format!(
                "x-fence-resource is {:?}; resource name has 257 bytes; it has 1 to 256 bytes",
                &long[..64]
            ),
        ),
        (
            &[resource, token, holder, resource, token, holder],
            "x-fence-resource is \"orders\"; a request carries one grant for a resource".to_owned(),
        ),
        (
            &[("x-fence-resource", &many), token, holder],
            "x-fence-resource is \"r\"; a request carries at most 32 grants".to_owned(),
        ),
        (
            &[("idempotency-key", "a"), ("idempotency-key", "a")],
            "idempotency-key is \"a\"; a request carries one idempotency key".to_owned(),
        ),
        (
            &[("idempotency-key", "\"a")],
            "idempotency-key is \"\\\\\\\"a\"; a key has 1 to 255 visible ASCII characters"
                .to_owned(),
        ),
    ];
    for (headers, message) in cases {
        // Also where grants may lack: half a grant is no read.
        let response = ask(layer().without_grant(), headers);
        let fault = Fault::of_headers(response.headers()).unwrap();
        assert_eq!(fault.to_string(), *message);
        let missing = message.contains("is missing");
        let (status, reason) = match missing {
            true => (428, Reason::Missing),
            false => (400, Reason::HeaderInvalid),
        };
        assert_eq!(
            (response.status().as_u16(), fault.reason()),
            (status, reason)
        );
    }
}

#[test]
fn a_request_without_a_grant_is_refused_unless_it_may_be_a_read() {
    let response = ask(layer(), &[]);
    assert_eq!(response.status(), 428);
    assert_eq!(response.headers()["x-palisade-reason"], "FENCE_MISSING");
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem["status"], 428);
    assert_eq!(problem["facts"]["field"], "x-fence-resource");
    assert!(carried(&[]).grants().is_empty());

    let grpc = ask(layer(), &[("content-type", "application/grpc+proto")]);
    assert_eq!(grpc.status(), 200);
    assert_eq!(grpc.headers()["grpc-status"], "9");
    assert!(grpc.body().is_empty());
}

#[test]
fn a_request_without_a_key_is_refused_where_one_must_be() {
    let layer = layer().without_grant().with_key();
    let response = ask(layer, &[]);
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["x-palisade-reason"], "KEY_MISSING");
    let response = ask(layer, &[("idempotency-key", "k")]);
    assert_eq!(response.status(), 200);
}

#[test]
fn a_key_is_bare_or_quoted() {
    for (given, key) in [
        ("8e03978e-40d5", "8e03978e-40d5"),
        ("\"8e03978e-40d5\"", "8e03978e-40d5"),
        (r#""a\"b\\c""#, r#"a"b\c"#),
        ("a\"b", "a\"b"),
    ] {
        let carried = carried(&[("idempotency-key", given)]);
        assert_eq!(carried.idempotency_key(), Some(key));
        let scoped = carried.key("tenant", "charge").unwrap().unwrap();
        assert_eq!(scoped.key(), key);
    }
    for given in ["", "\"\"", "\"a\"b", "a b", r#""a\b""#] {
        let response = ask(layer().without_grant(), &[("idempotency-key", given)]);
        assert_eq!(response.status(), 400, "{given:?}");
    }
}

#[test]
fn a_client_layer_replaces_what_was_there() {
    let grants = [grant("orders", 41), grant("bills", 42)];
    let client = CarryLayer::new(&grants).unwrap();
    let mut request = Request::new(());
    for name in ["x-fence-resource", "x-fence-token", "x-fence-holder"] {
        request
            .headers_mut()
            .append(name, "forged".parse().unwrap());
    }
    let response = call(client.layer(layer().layer(Echo)), request);
    let carried = response.extensions().get::<Carried>().unwrap();
    assert_eq!(carried.grants(), grants);

    assert!(CarryLayer::new(&[]).is_err());
    assert!(CarryLayer::new(&[grant("a", 1), grant("a", 2)]).is_err());
    let many: Vec<_> = (0..=MAX_GRANTS)
        .map(|number| grant(&format!("r{number}"), 1))
        .collect();
    assert!(CarryLayer::new(&many).is_err());
    assert!(CarryLayer::new(&many[..MAX_GRANTS]).is_ok());
}

#[test]
fn only_grpc_is_taken_for_grpc() {
    for (content_type, protocol) in [
        ("application/grpc", Protocol::Grpc),
        ("application/grpc+proto", Protocol::Grpc),
        ("Application/GRPC; charset=x", Protocol::Grpc),
        ("application/grpc-web", Protocol::Http),
        ("application/json", Protocol::Http),
        ("application/gr", Protocol::Http),
    ] {
        let carried = carried(&[("content-type", content_type)]);
        assert_eq!(carried.protocol(), protocol, "{content_type}");
    }
    assert_eq!(carried(&[]).protocol(), Protocol::Http);
}

proptest! {
    #[test]
    fn any_key_arrives_as_it_was_sent(key in "[!-~]{1,255}") {
        let key = IdempotencyKey::new("tenant", "charge", &key).unwrap();
        let mut request = Request::new(());
        key.write(request.headers_mut());
        let carried = Carried::read(request.headers()).unwrap();
        prop_assert_eq!(carried.key("tenant", "charge").unwrap(), Some(key));
    }
}
