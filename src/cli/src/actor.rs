//! Who asks, where nobody says so: for people who read the log. Credentials are logged beside it.

use std::{env, fs};

/// As much as a coordinator takes, in bytes.
const MOST_BYTES: usize = 128;

/// The name given, else that of this user and machine as far as they are known.
pub(crate) fn name(given: Option<&str>) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let variable = |name| env::var(name).ok().filter(|text| !text.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME"));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| variable("HOSTNAME"));
    made(user.as_deref(), host.as_deref().map(str::trim))
}

fn made(user: Option<&str>, host: Option<&str>) -> String {
    let user = user.unwrap_or("somebody");
    let name = match host.filter(|host| !host.is_empty()) {
        Some(host) => format!("{user}@{host}"),
        None => user.to_owned(),
    };
    let mut bytes = 0;
    let fits = |character: &char| {
        bytes += character.len_utf8();
        bytes <= MOST_BYTES
    };
    name.chars()
        .filter(|character| !character.is_control())
        .take_while(fits)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{made, name};

    #[test]
    fn a_name_is_always_one_that_is_taken() {
        assert_eq!(made(Some("alice"), Some("host-7")), "alice@host-7");
        assert_eq!(made(Some("alice"), None), "alice");
        assert_eq!(made(None, Some("")), "somebody");
        assert_eq!(made(Some("a\nb"), None), "ab");
        assert_eq!(made(Some(&"ö".repeat(100)), None).len(), 128);
        assert_eq!(name(Some("bob")), "bob");
        assert!(!name(None).is_empty());
    }
}
