use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::{AcquireOutput, Cli, Command};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
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
    let help = Cli::command().render_long_help().to_string();
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
