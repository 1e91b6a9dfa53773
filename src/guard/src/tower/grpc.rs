//! The few bytes of `google.rpc.Status` that an error needs, without a protobuf library.

use std::time::Duration;

use http::HeaderValue;

/// `google.rpc.ErrorInfo.domain`, as the coordinator's errors have it.
const DOMAIN: &str = "palisade";

/// A status with one `ErrorInfo`, and a `RetryInfo` where it helps.
pub(super) struct Details<'a> {
    pub(super) code: u8,
    pub(super) message: &'a str,
    pub(super) reason: &'a str,
    pub(super) metadata: &'a [(String, String)],
    pub(super) retry: Option<Duration>,
}

impl Details<'_> {
    /// The value of `grpc-status-details-bin`.
    pub(super) fn header(&self) -> HeaderValue {
        let mut info = Vec::new();
        field(&mut info, 1, self.reason.as_bytes());
        field(&mut info, 2, DOMAIN.as_bytes());
        for (name, value) in self.metadata {
            let mut entry = Vec::new();
            field(&mut entry, 1, name.as_bytes());
            field(&mut entry, 2, value.as_bytes());
            field(&mut info, 3, &entry);
        }
        let mut status = Vec::new();
        number(&mut status, 1, u64::from(self.code));
        field(&mut status, 2, self.message.as_bytes());
        field(&mut status, 3, &any("google.rpc.ErrorInfo", &info));
        if let Some(retry) = self.retry {
            let mut delay = Vec::new();
            number(&mut delay, 1, retry.as_secs());
            number(&mut delay, 2, u64::from(retry.subsec_nanos()));
            let mut info = Vec::new();
            field(&mut info, 1, &delay);
            field(&mut status, 3, &any("google.rpc.RetryInfo", &info));
        }
        HeaderValue::from_str(&base64(&status)).expect("base64 is visible ASCII")
    }
}

fn any(name: &str, value: &[u8]) -> Vec<u8> {
    let mut any = Vec::new();
    field(
        &mut any,
        1,
        format!("type.googleapis.com/{name}").as_bytes(),
    );
    field(&mut any, 2, value);
    any
}

/// A field with a length: wire type 2.
fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push((tag << 3) | 2);
    varint(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

/// A number, left out if it is zero: wire type 0.
fn number(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number > 0 {
        out.push(tag << 3);
        varint(out, number);
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Without padding, as gRPC has it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or_default());
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for place in 0..=group.len() {
            let shift = 18 - 6 * u32::try_from(place).expect("at most 3");
            let letter = usize::try_from((bits >> shift) & 63).expect("six bits");
            text.push(char::from(LETTERS[letter]));
        }
    }
    text
}

/// The value of `grpc-message`: percent-encoded where it is not visible ASCII.
pub(super) fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&encoded).expect("it is visible ASCII and blanks")
}

#[cfg(test)]
mod tests {
    use super::{base64, message, varint};

    #[test]
    fn base64_is_that_of_rfc_4648_without_padding() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_varint_has_seven_bits_a_byte() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (300, &[0xac, 0x02]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut out = Vec::new();
            varint(&mut out, number);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message("100 % ä\n"), "100 %25 %C3%A4%0A");
    }
}
