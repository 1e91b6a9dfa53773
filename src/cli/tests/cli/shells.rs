//! What shells and `man` make of this program, and readers that go away.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::{Dev, Ended, palisade, run};

/// `tests/run` installs what is missing.
fn tool(name: &str) -> Command {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .output()
        .unwrap();
    assert!(found.status.success(), "{name} is missing: see tests/run");
    Command::new(name)
}

fn script(shell: &str) -> String {
    let printed = run(&["completions", shell]);
    assert_eq!((printed.code, &*printed.stderr), (Some(0), ""), "{shell}");
    assert!(!printed.stdout.contains("demo-worker"), "{shell}: hidden");
    assert!(
        !printed.stdout.contains("end-with-stdin"),
        "{shell}: hidden"
    );
    printed.stdout
}

#[test]
fn bash_completes_commands_and_flags() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("palisade.bash"), script("bash")).unwrap();
    let asked = "\
        set -eu
        source palisade.bash
        complete -p palisade
        ask() {
            COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))
            _palisade palisade \"${!#}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
            echo \"${COMPREPLY[*]}\"
        }
        ask palisade acq
        ask palisade acquire --wa
        ask palisade guard inst
        ask palisade list --output ''";
    let mut bash = tool("bash");
    bash.args(["--norc", "--noprofile", "-c", asked]);
    let said = bash.current_dir(home.path()).output().unwrap();
    let said = Ended::from(said);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().skip(1).collect();
    assert_eq!(
        lines,
        ["acquire", "--wait", "install", "table json jsonl"],
        "{said:?}"
    );
}

/// In a terminal, as it completes only there.
#[test]
fn zsh_completes_commands_and_flags() {
    tool("zsh");
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("_palisade"), script("zsh")).unwrap();
    let mut zsh = tool("script");
    zsh.args(["-qec", "zsh -f -i", "/dev/null"])
        .env("TERM", "dumb");
    zsh.current_dir(home.path());
    zsh.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut zsh = zsh.spawn().unwrap();
    let typed = b"autoload -Uz compinit; compinit -u -D\n\
        palisade() { print -r -- \"SAID:$*:\" }\n\
        source ./_palisade\n\
        palisade acq\t--wa\t\n\
        palisade guard inst\t\n\
        exit\n";
    zsh.stdin.take().unwrap().write_all(typed).unwrap();
    let said = String::from_utf8_lossy(&zsh.wait_with_output().unwrap().stdout).into_owned();
    for line in ["SAID:acquire --wait", "SAID:guard install"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn other_shells_have_scripts_too() {
    for shell in ["fish", "elvish", "powershell"] {
        assert!(script(shell).contains("acquire"), "{shell}");
    }
    let absent = run(&["completions", "tcsh"]);
    assert_eq!(absent.code, Some(2), "{absent:?}");
}

/// Writes all pages into a directory and returns their names.
pub(crate) fn pages(into: &Path) -> Vec<String> {
    let written = run(&["man", "--dir", into.to_str().unwrap()]);
    assert_eq!(
        (written.code, &*written.stdout),
        (Some(0), ""),
        "{written:?}"
    );
    let mut pages = crate::program::entries(into);
    pages.sort();
    pages
}

#[test]
fn every_page_of_the_manual_renders_without_a_warning() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("man1");
    let pages = pages(&directory);
    for page in [
        "palisade.1",
        "palisade-acquire.1",
        "palisade-guard-install.1",
    ] {
        assert!(pages.iter().any(|one| one == page), "{page}: {pages:?}");
    }
    assert!(!pages.iter().any(|one| one.contains("demo-worker")));
    for page in &pages {
        let mut groff = tool("groff");
        groff
            .args(["-man", "-Tascii", "-ww"])
            .arg(directory.join(page));
        let rendered = Ended::from(groff.output().unwrap());
        assert_eq!((rendered.code, &*rendered.stderr), (Some(0), ""), "{page}");
        let source = fs::read_to_string(directory.join(page)).unwrap();
        for heading in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(source.contains(heading), "{page}: {heading}");
        }
        assert!(rendered.stdout.lines().count() > 10, "{rendered:?}");
    }
}

#[test]
fn the_page_of_the_whole_has_exit_codes_environment_and_files() {
    let page = run(&["man"]);
    assert_eq!(page.code, Some(0), "{page:?}");
    for text in [
        ".SH \"EXIT STATUS\"",
        ".SH ENVIRONMENT",
        ".SH FILES",
        "the lease was lost",
        "PALISADE_ADDR",
        "palisade.db",
    ] {
        assert!(page.stdout.contains(text), "{text}: {}", page.stdout);
    }
    let one = run(&["man", "guard", "install"]);
    assert!(
        one.stdout.contains(".TH PALISADE-GUARD-INSTALL 1"),
        "{one:?}"
    );
    assert!(one.stdout.contains(".SH EXAMPLES"), "{one:?}");
    let absent = run(&["man", "guard", "nonsense"]);
    assert_eq!(absent.code, Some(2), "{absent:?}");
    assert!(
        absent.stderr.contains("palisade guard nonsense"),
        "{absent:?}"
    );
}

/// As before `| head`, but without a race: nobody ever reads.
#[test]
fn nobody_minds_a_reader_that_went_away() {
    let dev = Dev::start();
    let acquired = dev.run(&["acquire", "a", "--detach", "--ttl", "60s"]);
    assert_eq!(acquired.code, Some(0), "{acquired:?}");
    for line in [
        "--help",
        "-h",
        "--version",
        "acquire --help",
        "completions bash",
        "completions zsh",
        "man",
        "man acquire",
        "config dump",
        "guard sql --dialect postgres",
        "guard sql --dialect sqlite",
        "bench guard --only memory --rounds 1 --round 100ms -o jsonl",
        "get a",
        "get a -o json",
        "list",
        "list -o json",
        "list -o jsonl",
        "watch a --until granted",
        "watch a --until granted -o jsonl",
        "generation show",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = palisade(&words);
        command.env("PALISADE_ADDR", &dev.addr).stdout(writer);
        let ended = Ended::from(command.stderr(Stdio::piped()).output().unwrap());
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        if !line.starts_with("bench") {
            assert_eq!(ended.stderr, "", "{line}");
        }
    }
}

/// Runs a command line of sh at a terminal, with this typed there.
fn at_a_terminal(dev: &Dev, line: &str, typed: &str) -> Command {
    let mut script = tool("script");
    script
        .args(["-qec", line, "/dev/null"])
        .env("TERM", "xterm");
    script.env("PALISADE", env!("CARGO_BIN_EXE_palisade"));
    script.env("PALISADE_ADDR", &dev.addr);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(typed.as_bytes()).unwrap();
    script.stdin(reader).stdout(Stdio::piped());
    script
}

#[test]
fn whoever_waits_at_a_terminal_sees_the_place_in_the_queue() {
    let dev = Dev::start();
    let held = dev.run(&[
        "acquire", "a", "--detach", "--ttl", "5m", "--label", "nightly",
    ]);
    assert_eq!(held.code, Some(0), "{held:?}");
    let line = "exec \"$PALISADE\" acquire a --wait 60s";
    let mut waiting = at_a_terminal(&dev, line, "").spawn().unwrap();
    let mut shown = Vec::new();
    let mut stdout = waiting.stdout.take().unwrap();
    let place = "waiting for a: next in the queue, held by nightly";
    while !String::from_utf8_lossy(&shown).contains(place) {
        let mut some = [0; 256];
        let read = stdout.read(&mut some).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&some[..read]);
    }
    // Its terminal goes away with it.
    waiting.kill().unwrap();
    waiting.wait().unwrap();

    let elsewhere = dev.run(&["acquire", "a", "--wait", "1500ms"]);
    assert_eq!(elsewhere.code, Some(75), "{elsewhere:?}");
    assert_eq!(elsewhere.stderr.lines().count(), 1, "{elsewhere:?}");
}

#[test]
fn a_question_is_asked_at_a_terminal_and_only_a_yes_is_one() {
    let dev = Dev::start();
    let is_held = || {
        let seen = dev.run(&["get", "a", "-o", "jsonl"]);
        seen.stdout.contains("\"held\":true")
    };
    let held = dev.run(&["acquire", "a", "--detach", "--ttl", "5m"]);
    assert_eq!(held.code, Some(0), "{held:?}");
    let revoke = "\"$PALISADE\" revoke a --current --reason test";
    for (typed, code) in [("\n", 1), ("n\n", 1), ("maybe\n", 1), ("y\n", 0)] {
        assert!(is_held(), "before {typed:?}");
        let ended = at_a_terminal(&dev, revoke, typed).output().unwrap();
        let ended = Ended::from(ended);
        assert_eq!(ended.code, Some(code), "{typed:?}: {ended:?}");
        assert!(ended.stdout.contains("[y/N]"), "{ended:?}");
    }
    assert!(!is_held());
}

/// A terminal has colours and progress; what is read by a program has neither.
#[test]
fn helps_have_colours_where_they_are_wanted_and_nowhere_else() {
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = palisade(&["--help"]);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "CI"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        let ended = Ended::from(command.output().unwrap());
        ended.stdout.contains('\u{1b}')
    };
    assert!(!coloured(&[]));
    assert!(!coloured(&[("TERM", "xterm")]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}
