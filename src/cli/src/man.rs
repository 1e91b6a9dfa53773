//! `palisade man`.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::args::{self, ENVIRONMENT, EXIT_CODES, FILES, GROUPS, ManArgs};
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "Examples:";

pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let mut whole = args::command();
    // Gives every command its name with those before it.
    whole.build();
    if let Some(directory) = &args.dir {
        return write_all(&whole, directory);
    }
    let mut command = &whole;
    for name in &args.of {
        let found = commands(command).find(|one| one.get_name() == name);
        command = found.ok_or_else(|| {
            Failure::usage(format!(
                "there is no command `{} {name}`; see `palisade --help`",
                full_name(command)
            ))
        })?;
    }
    output::bytes(&page(command, &whole).map_err(Failure::io("write the page"))?)
}

fn write_all(whole: &Command, directory: &Path) -> Result<(), Failure> {
    let write = || -> io::Result<usize> {
        fs::create_dir_all(directory)?;
        let mut left = vec![whole];
        let mut written = 0;
        while let Some(command) = left.pop() {
            let file = format!("{}.1", page_name(command));
            fs::write(directory.join(file), page(command, whole)?)?;
            written += 1;
            left.extend(commands(command));
        }
        Ok(written)
    };
    let place = directory.display();
    let written = write().map_err(Failure::io(format_args!("write the manual to {place}")))?;
    output::note(format_args!("palisade: {written} pages are in {place}"));
    Ok(())
}

/// Those that people run.
fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|one| !one.is_hide_set() && one.get_name() != "help")
}

/// `palisade guard install`.
fn full_name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// `palisade-guard-install`.
fn page_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, whole: &Command) -> io::Result<Vec<u8>> {
    let is_whole = command.get_name() == whole.get_name();
    let version = whole.get_version().unwrap_or_default();
    let man = Man::new(command.clone())
        .title(page_name(command).to_uppercase())
        // Without any date the others would take its place; with one no two builds would be the same.
        .date(" ")
        .source(format!("palisade {version}"))
        .manual("Palisade");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let mut rest = Roff::new();
    if is_whole {
        for (group, names) in GROUPS {
            let of_group = |one: &&Command| names.contains(&one.get_name());
            list(&mut rest, group, commands(whole).filter(of_group));
        }
    } else {
        list(&mut rest, "Commands", commands(command));
    }
    rest.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut rest = Roff::new();
    if is_whole {
        // Its first line is the heading.
        let codes: Vec<&str> = EXIT_CODES.lines().skip(1).collect();
        as_it_is(&mut rest, "EXIT STATUS", &codes);
        table(&mut rest, "ENVIRONMENT", &ENVIRONMENT);
        table(&mut rest, "FILES", &FILES);
    } else {
        after(&mut rest, command);
        rest.control("SH", ["SEE ALSO"]);
        let exit = roman(": exit status, environment and files");
        rest.text([bold("palisade"), roman("(1)"), exit]);
    }
    rest.to_writer(&mut text)?;
    Ok(text)
}

fn list<'a>(roff: &mut Roff, heading: &str, commands: impl Iterator<Item = &'a Command>) {
    let mut commands = commands.peekable();
    if commands.peek().is_none() {
        return;
    }
    roff.control("SH", [heading.to_uppercase().as_str()]);
    for command in commands {
        let about = command.get_about().map(ToString::to_string);
        roff.control("TP", []);
        roff.text([bold(page_name(command)), roman("(1)")]);
        roff.text([roman(about.unwrap_or_default())]);
    }
}

/// What follows the flags of a command's help: examples, and text.
fn after(roff: &mut Roff, command: &Command) {
    let text = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut blocks = text.split("\n\n");
    if let Some(examples) = text.strip_prefix(EXAMPLES) {
        blocks.next();
        let block = examples.split("\n\n").next().unwrap_or_default();
        let lines: Vec<&str> = block.lines().filter(|line| !line.is_empty()).collect();
        as_it_is(roff, "EXAMPLES", &lines);
    }
    let mut is_first = true;
    for block in blocks.filter(|block| !block.trim().is_empty()) {
        match std::mem::take(&mut is_first) {
            true => roff.control("SH", ["NOTES"]),
            false => roff.control("PP", []),
        };
        lines(roff, block.lines());
    }
}

fn as_it_is(roff: &mut Roff, heading: &str, text: &[&str]) {
    roff.control("SH", [heading]);
    lines(roff, text.iter().copied());
}

/// Lines that stay lines.
fn lines<'a>(roff: &mut Roff, text: impl Iterator<Item = &'a str>) {
    roff.control("nf", []);
    for line in text {
        roff.text([Inline::from(line)]);
    }
    roff.control("fi", []);
}

fn table(roff: &mut Roff, heading: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}
