use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::{AcquireOutput, Cli, Command};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_holds_together() {
    super::command().debug_assert();
}

#[test]
fn every_command_has_a_summary_and_those_people_run_have_an_example() {
    for command in Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name}");
        let nested = command.has_subcommands();
        assert!(
            nested || command.get_after_help().is_some(),
            "{name} has no example"
        );
    }
}

#[test]
fn the_exit_codes_told_are_those_used() {
    use crate::failure::Kind;
    let help = super::command().render_long_help().to_string();
    for kind in [
        Kind::Other,
        Kind::Usage,
        Kind::Unreachable,
        Kind::Lost,
        Kind::Busy,
        Kind::Config,
    ] {
        let code = kind.code().to_string();
        assert!(
            help.lines()
                .any(|line| line.trim_start().starts_with(&format!("{code}  "))),
            "{code} is not told"
        );
    }
}

#[test]
fn acquire_reads_its_times_and_its_resource() {
    let cli = parse("palisade acquire orders/eu-1 --ttl 5s --wait 1m -o grant").unwrap();
    let Command::Acquire(args) = cli.command else {
        panic!("another command")
    };
    assert_eq!(args.resource.as_str(), "orders/eu-1");
    assert_eq!(
        (args.ttl, args.wait),
        (Duration::from_secs(5), Duration::from_secs(60))
    );
    assert_eq!(args.output, AcquireOutput::Grant);
}

#[test]
fn what_cannot_be_used_is_refused_with_code_2() {
    for line in [
        "palisade",
        "palisade nonsense",
        "palisade acquire",
        "palisade acquire a//b",
        "palisade acquire a --ttl 5",
        "palisade acquire a --addr localhost",
        "palisade acquire a --timeout 0s",
        "palisade serve --etcd http://a:1 --embedded b",
        "palisade serve --listen nowhere",
        "palisade release a --session 0123456789abcdef --secret c",
        "palisade release a --token 0 --session 0123456789abcdef --secret c",
        "palisade release a --token 1 --request r --session 0123456789abcdef --secret c",
        "palisade release a --token 1 --session b --secret c",
        "palisade guard",
        "palisade guard install --postgres a --sqlite b",
        "palisade demo --ttl 1s",
        "palisade bench",
        "palisade bench lease",
        "palisade bench lease --etcd http://a:1 --concurrency 0",
        "palisade bench lease --etcd http://a:1 --concurrency 1001",
        "palisade bench lease --etcd http://a:1 --variants v2lock",
        "palisade bench lease --etcd http://a:1 --rounds 0",
        "palisade bench handoff --etcd http://a:1 --round 1ms",
        "palisade bench sessions --etcd http://a:1 --sessions 0",
        "palisade bench sessions --etcd http://a:1 --ttl 1s",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn etcd_endpoints_are_a_list() {
    let cli = parse("palisade serve --etcd http://a:1,http://b:2").unwrap();
    let Command::Serve(args) = cli.command else {
        panic!("another command")
    };
    assert_eq!(args.settings.words.etcd, ["http://a:1", "http://b:2"]);
}

/// Lines of 80 columns, on a terminal that has no more.
#[test]
fn every_command_is_in_one_group_and_its_summary_fits_a_line() {
    let mut command = super::command();
    let names = |all: &clap::Command| {
        let shown = all.get_subcommands().filter(|one| !one.is_hide_set());
        shown
            .map(|one| one.get_name().to_owned())
            .collect::<Vec<_>>()
    };
    let grouped: Vec<&str> = super::GROUPS
        .iter()
        .flat_map(|group| group.1)
        .copied()
        .collect();
    for name in names(&command) {
        let groups = grouped.iter().filter(|one| **one == name).count();
        assert_eq!(groups, 1, "{name} is in {groups} groups of about.rs");
    }
    let help = command.render_help().to_string();
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// Everything that people run, with the words that lead to it.
fn every_command() -> Vec<(String, clap::Command)> {
    let mut left = vec![("palisade".to_owned(), super::command())];
    let mut found = Vec::new();
    while let Some((path, command)) = left.pop() {
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            left.push((format!("{path} {}", one.get_name()), one.clone()));
        }
        found.push((path, command));
    }
    found
}

#[test]
fn every_argument_says_what_it_is_and_every_last_command_shows_an_example() {
    for (path, command) in every_command() {
        let about = command.get_about().map(ToString::to_string);
        let about = about.unwrap_or_else(|| panic!("{path} has no first sentence"));
        // With its name before it in a line of 80 columns.
        let fits = about.chars().count() <= 65 && !about.ends_with('.');
        assert!(fits, "{path}: {about}");
        for argument in command.get_arguments().filter(|one| !one.is_hide_set()) {
            let told = argument.get_help().is_some() || argument.get_long_help().is_some();
            assert!(told, "{path}: {} is not explained", argument.get_id());
        }
        if command.has_subcommands() {
            continue;
        }
        let after = command
            .get_after_long_help()
            .or_else(|| command.get_after_help());
        let after = after.map(ToString::to_string).unwrap_or_default();
        assert!(after.starts_with("Examples:\n"), "{path} has no example");
        assert!(after.contains(&path), "{path} is not in its own examples");
        for line in after.lines() {
            assert!(
                line.chars().count() <= 98,
                "{path}: too long an example: {line}"
            );
        }
    }
}

#[test]
fn every_variable_that_is_read_is_told() {
    let help = super::command().render_long_help().to_string();
    for (path, command) in every_command() {
        for argument in command.get_arguments() {
            let variable = argument.get_env().map(|name| name.to_string_lossy());
            let is_told = variable.as_ref().is_none_or(|name| help.contains(&**name));
            assert!(is_told, "{path}: {variable:?} is not in about.rs");
        }
    }
}

/// Examples that cannot be run teach what is wrong.
#[test]
fn every_example_can_be_parsed() {
    for (path, command) in every_command() {
        let after = command
            .get_after_long_help()
            .or_else(|| command.get_after_help());
        let after = after.map(ToString::to_string).unwrap_or_default();
        let Some(examples) = after.strip_prefix("Examples:\n") else {
            continue;
        };
        for words in said_to_palisade(examples.split("\n\n").next().unwrap_or_default()) {
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{path}: {words:?}: {error}");
            }
        }
    }
}

/// What stands in scripts for values of a kind.
const VARIABLES: [(&str, &str); 8] = [
    ("$token", "1795220472530687"),
    ("$session", "0123456789abcdef"),
    ("$secret", "000102030405060708090a0b0c0d0e0f"),
    ("$resource", "orders"),
    ("$epoch", "1"),
    ("FILE", "palisade.toml"),
    ("$DATABASE", "postgres://owner@127.0.0.1/orders"),
    (
        "$grant",
        "orders#1795220472530687#000102030405060708090a0b0c0d0e0f",
    ),
];

/// The command lines of this program in a script: words, with quotes taken off.
fn said_to_palisade(script: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut script = script.replace("\\\n", " ") + "\n";
    for (name, value) in VARIABLES {
        script = script.replace(name, value);
    }
    let mut characters = script.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), inside) => word.get_or_insert_default().push(inside),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            // Of a substitution that is a word, what is inside of it counts.
            (None, '(') => word = None,
            (None, ' ') => words.extend(word.take()),
            (None, '\n' | ';' | '&' | '|' | ')' | '<' | '>') => {
                words.extend(word.take());
                lines.push(std::mem::take(&mut words));
            }
            (None, '#') if word.is_none() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    lines.into_iter().filter_map(of_this_program).collect()
}

fn of_this_program(mut line: Vec<String>) -> Option<Vec<String>> {
    if line.starts_with(&["cargo".to_owned(), "run".to_owned()]) {
        let at = line.iter().position(|word| word == "--")?;
        line[at] = "palisade".to_owned();
        return Some(line.split_off(at));
    }
    let at = line.iter().position(|word| word == "palisade")?;
    let mut words = line.split_off(at);
    for variable in line {
        let (name, value) = variable.split_once('=')?;
        if name == "PALISADE_SECRET" {
            words.push(format!("--secret={value}"));
        }
    }
    Some(words)
}

/// Also those that are too long to be run by a test: a bench, a demo, a service on other machines.
#[test]
fn every_command_of_the_documents_can_be_parsed() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for file in ["README.md", "CONTRIBUTING.md", "deploy/README.md"] {
        let text = std::fs::read_to_string(format!("{root}/{file}")).unwrap();
        let mut found = 0;
        for block in text.split("```sh\n").skip(1) {
            let script = block.split("\n```").next().unwrap();
            for words in said_to_palisade(script) {
                found += 1;
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{file}: {words:?}: {error}");
                }
            }
        }
        assert_ne!(found, 0, "{file} has no command any more");
    }
}

#[test]
fn what_a_script_says_to_this_program_is_found() {
    let script = "a=$(palisade get 'b c' -o json) && eval \"$a\" # palisade x\nX=1 palisade list | palisade top & not palisade";
    let found = said_to_palisade(script);
    let words: Vec<String> = found.iter().map(|line| line.join("_")).collect();
    assert_eq!(
        words,
        ["palisade_get_b c_-o_json", "palisade_list", "palisade_top"]
    );
}
