//! README.md as somebody reads it who copies its commands into a shell, one block after the other.
//!
//! The servers that it takes for granted are there under other ports, by the variables and files that its tools read
//! by themselves: `PALISADE_*`, `PG*` and `.curlrc`.

mod blocks;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use palisade_test_support::{Port, Postgres};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What is not run as it stands: what its line begins with, what is run in its place, and why.
///
/// That the flags of all of them can be parsed, a test of `args` checks.
const OTHERWISE: [(&str, &str, &str); 8] = [
    (
        "cargo install --locked --path src/cli",
        "[ -f \"$ROOT/src/cli/Cargo.toml\" ] && palisade --version",
        "what it would build is under test",
    ),
    (
        "cargo run --release -- demo",
        "[ -f \"$ROOT/Cargo.toml\" ]",
        "builds for minutes; the demo has a test of its own",
    ),
    (
        "tests/chaos/lock-set",
        "\"$ROOT/tests/chaos/lock-set\" --help",
        "a test of its own runs it",
    ),
    ("tests/run", "[ -x \"$ROOT/tests/run\" ]", "runs this test"),
    (
        "palisade serve ",
        "palisade config dump ",
        "etcd is on other machines; what it would run with can be shown",
    ),
    (
        "cargo run --profile dist -- bench ",
        "[ -f \"$ROOT/Cargo.toml\" ]",
        "measures for minutes; the bench has tests of its own",
    ),
    (
        "curl -N 'http://127.0.0.1:7651/v1/leases:watch?prefix=jobs/'",
        "head -n 1 < <(curl -sN 'http://127.0.0.1:7651/v1/leases:watch?prefix=jobs/')",
        "goes on for ever",
    ),
    // Not in the background of this shell: it is ended by its process id.
    (
        "palisade dev &",
        "palisade dev & DEV=$!",
        "somebody has to end it",
    ),
];

/// A block between fences.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
}

fn blocks(file: &str) -> Vec<Block> {
    let text = fs::read_to_string(format!("{ROOT}/{file}")).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// The lines that are run for a block.
fn runnable(block: &str) -> String {
    let mut script = String::new();
    for line in block.lines() {
        let otherwise = OTHERWISE.iter().find(|(start, ..)| line.starts_with(start));
        match otherwise {
            // All that follows is an argument as before.
            Some((start, instead, _)) if start.ends_with(' ') && instead.ends_with(' ') => {
                script += &format!("{instead}{}\n", &line[start.len()..]);
            }
            Some((_, instead, _)) => script += &format!("{instead}\n"),
            None => script += &format!("{line}\n"),
        }
    }
    script
}

/// A shell in an empty directory, with servers where README.md has them.
struct Reader {
    home: TempDir,
    shell: Child,
    into: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    blocks: u32,
    _ports: [Port; 2],
}

impl Reader {
    fn sit_down(postgres: Option<&Postgres>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let ports = [Port::reserve().unwrap(), Port::reserve().unwrap()];
        let [grpc, http] = [0, 1].map(|one: usize| ports[one].number());
        let program = Path::new(env!("CARGO_BIN_EXE_palisade")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let work = home.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::write(
            home.path().join(".curlrc"),
            format!("connect-to = \"127.0.0.1:7651:127.0.0.1:{http}\"\n"),
        )
        .unwrap();
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile"])
            .current_dir(&work)
            .env_clear()
            .env("PATH", format!("{}:{path}", program.display()))
            .env("HOME", home.path())
            .env("CURL_HOME", home.path())
            .env("TMPDIR", home.path())
            .env("ROOT", ROOT)
            .env("PALISADE_LISTEN", format!("127.0.0.1:{grpc}"))
            .env("PALISADE_HTTP", format!("127.0.0.1:{http}"))
            .env("PALISADE_ADDR", format!("http://127.0.0.1:{grpc}"));
        if let Some(postgres) = postgres {
            let address = postgres.host_port();
            let (host, port) = address.rsplit_once(':').unwrap();
            bash.envs([("PGHOST", host), ("PGPORT", port), ("PGUSER", "postgres")]);
        }
        bash.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = bash.stderr(Stdio::null()).spawn().unwrap();
        let mut reader = Self {
            home,
            into: shell.stdin.take(),
            from: BufReader::new(shell.stdout.take().unwrap()),
            shell,
            blocks: 0,
            _ports: ports,
        };
        reader.types("set -eu; trap 'kill ${DEV:-} 2>/dev/null && wait $DEV' EXIT");
        reader
    }

    /// Runs a script in the shell, and returns what it printed.
    fn types(&mut self, script: &str) -> String {
        self.blocks += 1;
        let said = |kind: &str| self.home.path().join(format!("{kind}.{}", self.blocks));
        let (stdout, stderr) = (said("out"), said("err"));
        let line = format!(
            "{{\n{script}\n}} >{} 2>{}; echo done >&3\n",
            stdout.display(),
            stderr.display()
        );
        let line = if self.blocks == 1 {
            format!("exec 3>&1\n{line}")
        } else {
            line
        };
        self.into
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        let [stdout, stderr] =
            [stdout, stderr].map(|file| fs::read_to_string(file).unwrap_or_default());
        assert_eq!(answer, "done\n", "{script}\nsays: {stdout}\n{stderr}");
        stdout
    }
}

impl Reader {
    /// What its own clock shows, in milliseconds.
    fn clock(&mut self) -> i64 {
        let microseconds: i64 = self
            .types("echo ${EPOCHREALTIME/./}")
            .trim()
            .parse()
            .unwrap();
        microseconds / 1_000
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The shell ends with its input, and the coordinator with the shell.
        drop(self.into.take());
        self.shell.wait().unwrap();
    }
}

#[tokio::test]
async fn every_block_does_what_it_says() {
    let postgres = Postgres::start().await.unwrap();
    postgres.create_database("shop").await.unwrap();
    let mut reader = Reader::sit_down(Some(&postgres));
    let mut printed = String::new();
    let mut shown_and_real: Vec<(String, String)> = Vec::new();
    for Block { language, text } in blocks("README.md") {
        match language.as_str() {
            "sh" => {
                // zsh, at a prompt, takes what follows for words.
                assert!(!text.contains(" #"), "a comment behind a command: {text}");
                printed = reader.types(&runnable(&text));
                // curl is content with a refusal, too.
                let is_granted = printed.contains("\"token\"");
                assert!(!text.contains("leases:acquire") || is_granted, "{printed}");
            }
            "json" => shown_and_real = values(&text, printed.lines().last().unwrap()),
            "sql" => {
                assert!(!shown_and_real.is_empty(), "SQL with values from nowhere");
                let mut sql = text;
                for (shown, real) in &shown_and_real {
                    sql = sql.replace(shown, real);
                }
                reader.types(&format!("psql -v ON_ERROR_STOP=1 shop <<'END'\n{sql}\nEND"));
            }
            "rust" => assert!(
                include_str!("readme/blocks.rs").contains(&text),
                "this is not what readme/blocks.rs compiles: {text}"
            ),
            other => panic!("nothing runs a block of {other:?}: {text}"),
        }
    }
    assert_eq!(
        postgres
            .psql("shop", "SELECT state FROM orders")
            .await
            .unwrap()
            .trim(),
        "paid"
    );
}

/// Token and holder as README.md shows them, and as they were printed now, under the same names.
fn values(shown: &str, printed: &str) -> Vec<(String, String)> {
    let shown = shown.trim().strip_suffix(", …}").unwrap().to_owned() + "}";
    let [shown, printed] = [&*shown, printed].map(|text| {
        let value: serde_json::Value = serde_json::from_str(text).expect(text);
        value.as_object().unwrap().clone()
    });
    let pairs = shown.iter().map(|(name, shown)| {
        let real = printed.get(name).expect(name);
        let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
        (text(shown), text(real))
    });
    pairs.collect()
}

/// A restored database, whose fences are those of the past.
#[tokio::test]
async fn the_script_of_a_restore_seals_everything_again() {
    let postgres = Postgres::start().await.unwrap();
    let scripts = blocks("deploy/README.md").into_iter();
    let mut scripts = scripts.filter(|block| block.text.contains("FROM palisade.fence"));
    let script = scripts.next().unwrap().text;
    let mut reader = Reader::sit_down(Some(&postgres));
    reader.types("palisade dev & DEV=$!");
    reader.types(&format!("export DATABASE={}", postgres.url()));
    reader.types("palisade guard install --postgres \"$DATABASE\"");
    let fences = "SELECT resource FROM palisade.fence WHERE token > 1 ORDER BY resource";
    postgres
        .psql(
            "postgres",
            "SELECT palisade.seal('a', 1, repeat('0f', 16)); SELECT palisade.seal('b/c', 1, repeat('0f', 16))",
        )
        .await
        .unwrap();
    assert_eq!(postgres.psql("postgres", fences).await.unwrap(), "");
    reader.types(&script);
    assert_eq!(
        postgres.psql("postgres", fences).await.unwrap().trim(),
        "a\nb/c"
    );
    assert_eq!(reader.types("palisade list --output json"), "[]\n");
}

/// How long it takes from the installed program to a guarded write, and to a refused one.
#[test]
fn the_first_five_commands_are_all_that_is_needed() {
    let mut all = blocks("README.md")
        .into_iter()
        .skip_while(|block| !block.text.starts_with("cargo install"));
    let (first, second) = (all.next().unwrap(), all.next().unwrap());
    let commands: Vec<&str> = first.text.lines().collect();
    assert_eq!(
        (first.language.as_str(), commands.len()),
        ("sh", 5),
        "{first:?}"
    );
    let mut reader = Reader::sit_down(None);
    let start = reader.clock();
    let mut before = start;
    for command in &commands[1..] {
        reader.types(&runnable(command));
        let now = reader.clock();
        tell(command, now - before);
        before = now;
    }
    tell("from the program to a guarded write", before - start);
    let rows = "sqlite3 shop.db 'SELECT id, state FROM orders'";
    assert_eq!(reader.types(rows), "1|paid\n");
    assert!(reader.types(&runnable(&second.text)).ends_with("refused\n"));
    assert_eq!(reader.types(rows), "1|paid\n");
}

#[allow(clippy::print_stderr, reason = "a figure that people want to see")]
fn tell(what: &str, milliseconds: i64) {
    eprintln!("{milliseconds:>6} ms  {what}");
}
