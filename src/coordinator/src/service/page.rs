//! Pages of lists: how large, and where the next one begins.

use palisade_token::ResourceName;
use sha2::{Digest, Sha256};

use super::error::BadField;
use super::parse::bad;

/// The size of a page where none is asked for.
const DEFAULT_PAGE_SIZE: usize = 100;
/// The largest page: with the largest metadata it stays below the 4 MiB that many clients read at most
/// only if few leases carry that much, so [`MAX_PAGE_BYTES`] bounds it, too.
const MAX_PAGE_SIZE: usize = 1000;
/// How much a page carries, in bytes: clients read at most 4 MiB by default.
pub(super) const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How much of a hash ties a page token to its list: it catches slips, it keeps no secret.
const TIE_BYTES: usize = 8;

/// The number of leases on a page: more than allowed is less than asked for, as AIP-158 has it.
pub(super) fn size(field: &'static str, given: i32) -> Result<usize, BadField> {
    match usize::try_from(given) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(given) => Ok(given.min(MAX_PAGE_SIZE)),
        Err(_) => Err(bad(field, "0 or above", given)),
    }
}

/// Checks a prefix: the beginning of some resource name, or nothing.
pub(super) fn prefix<'a>(field: &'static str, text: &'a str) -> Result<&'a str, BadField> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-/".contains(&byte);
    if text.len() > ResourceName::MAX_BYTES || !text.bytes().all(allowed) {
        let bound = "at most 256 bytes of [A-Za-z0-9._:-/], the beginning of a resource name";
        let given = text.chars().take(64).collect::<String>();
        return Err(bad(field, bound, format!("{given:?}")));
    }
    Ok(text)
}

fn tie(prefix: &str, name: &str) -> [u8; TIE_BYTES] {
    let digest = Sha256::new()
        .chain_update(b"palisade page\0")
        .chain_update(prefix.as_bytes())
        .chain_update(b"\0")
        .chain_update(name.as_bytes())
        .finalize();
    let mut tie = [0; TIE_BYTES];
    tie.copy_from_slice(&digest[..TIE_BYTES]);
    tie
}

/// The token of the page after a name.
pub(super) fn token(prefix: &str, after: &ResourceName) -> String {
    let mut bytes = tie(prefix, after.as_str()).to_vec();
    bytes.extend_from_slice(after.as_str().as_bytes());
    hex::encode(bytes)
}

/// The name that a page token goes on after; empty begins at the first.
pub(super) fn after(
    field: &'static str,
    prefix: &str,
    token: &str,
) -> Result<Option<ResourceName>, BadField> {
    if token.is_empty() {
        return Ok(None);
    }
    let name = hex::decode(token).ok().and_then(|bytes| {
        let (given, name) = bytes.split_at_checked(TIE_BYTES)?;
        let name = ResourceName::new(std::str::from_utf8(name).ok()?).ok()?;
        (given == tie(prefix, name.as_str())).then_some(name)
    });
    match name {
        Some(name) => Ok(Some(name)),
        None => Err(bad(
            field,
            "empty, or the next_page_token of a page of the same prefix",
            format!("{} bytes", token.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use palisade_token::ResourceName;

    use super::{after, prefix, size, token};

    #[test]
    fn a_page_token_goes_on_with_its_own_list_only() {
        let name = ResourceName::new("orders/eu").unwrap();
        let given = token("orders/", &name);
        assert_eq!(after("page_token", "orders/", &given), Ok(Some(name)));
        assert_eq!(after("page_token", "orders/", ""), Ok(None));
        let mut cut = given.clone();
        cut.truncate(given.len() - 2);
        for (prefix, token) in [
            ("", given.as_str()),
            ("orders/", &cut),
            ("orders/", "zz"),
            ("orders/", "00"),
        ] {
            assert!(after("page_token", prefix, token).is_err(), "{token}");
        }
    }

    #[test]
    fn sizes_and_prefixes_are_bounded() {
        assert_eq!(size("page_size", 0), Ok(100));
        assert_eq!(size("page_size", 7), Ok(7));
        assert_eq!(size("page_size", i32::MAX), Ok(1000));
        assert!(size("page_size", -1).is_err());
        assert_eq!(prefix("prefix", "a/b/"), Ok("a/b/"));
        assert!(prefix("prefix", "a b").is_err());
        assert!(prefix("prefix", &"a".repeat(257)).is_err());
    }
}
