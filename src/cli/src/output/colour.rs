//! Colours, as no-color.org and bixense.com/clicolors have it.

use std::env;
use std::ffi::OsString;
use std::io::IsTerminal;

/// Whether to show colours there: on a terminal that can, unless somebody asked for none or for them anywhere.
pub(crate) fn has_colour(stream: &impl IsTerminal) -> bool {
    is_coloured(|name| env::var_os(name), stream.is_terminal())
}

/// Whether the terminal cannot move its cursor.
pub(crate) fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Text with an ANSI colour, or as it is.
pub(crate) fn painted(text: &str, colour: Option<u8>) -> String {
    colour.map_or_else(
        || text.to_owned(),
        |code| format!("\u{1b}[{code}m{text}\u{1b}[0m"),
    )
}

/// The same order as clap keeps for its helps.
fn is_coloured(variable: impl Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
    let is_set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if is_set("NO_COLOR").is_some() {
        return false;
    }
    if is_set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    let refused = is_set("CLICOLOR").is_some_and(|value| value == "0");
    let dumb = is_set("TERM").is_some_and(|term| term == "dumb");
    is_terminal && !refused && !dumb
}

#[cfg(test)]
mod tests {
    use super::is_coloured;

    #[test]
    fn colours_are_shown_where_they_can_be_and_are_not_refused() {
        for (variables, on_terminal, elsewhere) in [
            (&[][..], true, false),
            (&[("NO_COLOR", "1")], false, false),
            (&[("NO_COLOR", "0")], false, false),
            (&[("NO_COLOR", "")], true, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "xterm-256color")], true, false),
            (&[("CLICOLOR", "0")], false, false),
            (&[("CLICOLOR", "1")], true, false),
            (&[("CLICOLOR_FORCE", "1")], true, true),
            (&[("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR_FORCE", "")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], true, true),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
        ] {
            let read = |name: &str| {
                let mut all = variables.iter();
                all.find_map(|(of, value)| (*of == name).then(|| (*value).into()))
            };
            let seen = (is_coloured(read, true), is_coloured(read, false));
            assert_eq!(seen, (on_terminal, elsewhere), "{variables:?}");
        }
    }
}
