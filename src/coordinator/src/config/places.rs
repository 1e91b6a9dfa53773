//! Where settings are said, for people who look for it.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::position;
use super::{Document, DocumentError};

impl Document {
    /// The line, counted from 1, of each setting in the text of a file, by its key, such as `limits.max_ttl`.
    /// A list of tables counts as one setting, at its first.
    ///
    /// # Errors
    /// [`DocumentError::Text`] where it is no TOML.
    ///
    /// ```
    /// use palisade_coordinator::config::Document;
    ///
    /// let lines = Document::lines("listen = \"[::1]:7650\"\n[limits]\n\nmax_ttl = \"2m\"\n")?;
    /// assert_eq!(lines.get("listen"), Some(&1));
    /// assert_eq!(lines.get("limits.max_ttl"), Some(&4));
    /// # Ok::<(), palisade_coordinator::config::DocumentError>(())
    /// ```
    pub fn lines(text: &str) -> Result<BTreeMap<String, usize>, DocumentError> {
        let table = DeTable::parse(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            DocumentError::Text {
                line,
                column,
                message: error.message().trim().to_owned(),
            }
        })?;
        let mut lines = BTreeMap::new();
        collect(text, "", table.get_ref(), &mut lines);
        Ok(lines)
    }
}

/// As deep as sections are: a file cannot make it deeper than its own nesting.
fn collect(text: &str, above: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = match above {
            "" => name.get_ref().to_string(),
            above => format!("{above}.{}", name.get_ref()),
        };
        match Spanned::get_ref(value) {
            DeValue::Table(table) => collect(text, &key, table, lines),
            _ => {
                let (line, _) = position(text, name.span().start);
                lines.insert(key, line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Document;

    #[test]
    fn every_setting_has_its_line_however_it_is_written() {
        let text = "\
# a comment
http = \"127.0.0.1:1\"
limits.max_calls = 3
[store]
etcd = [
  \"http://a:1\",
]
etcd_prefix = \"/p\"

[[rules]]
principal = \"*\"
[[rules]]
principal = \"a\"
";
        let lines = Document::lines(text).unwrap();
        let expected = [
            ("http", 2),
            ("limits.max_calls", 3),
            ("rules", 10),
            ("store.etcd", 5),
            ("store.etcd_prefix", 8),
        ];
        let expected = expected.map(|(key, line)| (key.to_owned(), line));
        assert_eq!(lines.into_iter().collect::<Vec<_>>(), expected);
        assert!(Document::lines("no toml").is_err());
    }

    #[test]
    fn variables_are_settings_or_belong_to_others() {
        for (name, key) in [
            ("PALISADE_LISTEN", Some("listen")),
            ("PALISADE_LIMITS__MAX_TTL", Some("limits.max_ttl")),
            ("PALISADE_ADDR", None),
            ("LISTEN", None),
        ] {
            assert_eq!(Document::key_of_variable(name).as_deref(), key, "{name}");
        }
    }
}
