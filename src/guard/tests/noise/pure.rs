use std::str::FromStr as _;

use palisade_guard::effects::{Fingerprint, IdempotencyKey, Name};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use crate::random::Noise;
use crate::sealed;

/// Each text goes through every parser. What one accepts it writes again as it was, and is within its bounds.
#[test]
fn names_tokens_holders_grants_and_keys() {
    let mut noise = Noise::new("pure");
    let good = sealed();
    let mut refused = 0_u32;
    for round in 0..10_000 {
        let near = match round % 4 {
            0 => good.resource.to_string(),
            1 => good.token.to_string(),
            2 => good.holder.to_string(),
            _ => good.to_string(),
        };
        let text = noise.text(&near);
        match ResourceName::new(&text) {
            Ok(name) => {
                assert_eq!(name.as_str(), text);
                assert!(
                    !text.is_empty() && text.len() <= ResourceName::MAX_BYTES && text.is_ascii()
                );
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
        if let Ok(holder) = HolderId::from_str(&text) {
            assert_eq!(holder.to_string(), text);
        }
        if let Ok(token) = FencingToken::from_str(&text) {
            assert_eq!(token.to_string(), text);
            assert!(token.get() > 0 && token.get() < 1 << 53);
        }
        if let Ok(grant) = Grant::from_str(&text) {
            assert_eq!(grant.to_string(), text);
        }
        let number = noise.next();
        assert_eq!(
            FencingToken::new(number).is_ok(),
            (1..1 << 53).contains(&number)
        );
        let other = noise.text("payments");
        if let Ok(key) = IdempotencyKey::new(&other, &text, &near) {
            assert_eq!(
                (key.tenant(), key.operation(), key.key()),
                (other.as_str(), text.as_str(), near.as_str())
            );
            let again = IdempotencyKey::new(key.tenant(), key.operation(), key.key());
            assert_eq!(again.unwrap().external(), key.external());
        }
        if let Ok(name) = Name::new(&text) {
            assert_eq!(name.as_str(), text);
        }
        let bytes = noise.bytes();
        let one = Fingerprint::of(&[(text.as_str(), bytes.as_slice())]);
        assert_eq!(one, Fingerprint::of(&[(text.as_str(), bytes.as_slice())]));
    }
    assert!(refused > 5_000, "the noise has become names: {refused}");
}
