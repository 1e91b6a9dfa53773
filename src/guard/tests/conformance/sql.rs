//! What the subjects of SQL stores share: a table of one row for each resource.

use palisade_token::ResourceName;

pub(crate) fn table(resource: &ResourceName) -> String {
    resource
        .as_str()
        .replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}

pub(crate) fn create(resource: &ResourceName) -> String {
    let table = table(resource);
    format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY, value BIGINT)")
}

pub(crate) fn drop(resource: &ResourceName) -> String {
    format!("DROP TABLE {}", table(resource))
}

pub(crate) fn set(resource: &ResourceName, value: u64) -> String {
    let table = table(resource);
    format!(
        "INSERT INTO {table} VALUES (1, {value}) ON CONFLICT (id) DO UPDATE SET value = {value}"
    )
}

pub(crate) fn get(resource: &ResourceName) -> String {
    format!("SELECT value FROM {}", table(resource))
}
