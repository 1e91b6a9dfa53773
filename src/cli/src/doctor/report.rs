//! What `palisade doctor` has found, told as it is found.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::Format;
use crate::failure::Failure;
use crate::output;
use crate::table::plain;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// It works, and somebody should know.
    Warn,
    /// It does not work, or will not when it is needed.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// What kind of thing; stable, for programs.
    check: &'static str,
    verdict: Verdict,
    /// Which of them.
    subject: String,
    /// What was found.
    found: String,
    /// What to do about it; never with OK.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// More lines of what was found, for people.
    #[serde(skip)]
    details: Vec<String>,
    /// What was measured, for programs.
    #[serde(flatten)]
    values: Map<String, Value>,
}

impl Check {
    fn new(
        verdict: Verdict,
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            check,
            verdict,
            subject: plain(&subject.into()),
            found: plain(&found.into()),
            advice: None,
            details: Vec::new(),
            values: Map::new(),
        }
    }

    pub(super) fn ok(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Ok, check, subject, found)
    }

    pub(super) fn warn(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Warn, check, subject, found).advice(advice)
    }

    pub(super) fn fail(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Fail, check, subject, found).advice(advice)
    }

    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(plain(&advice.into()));
        self
    }

    pub(super) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(plain(&line.into()));
        self
    }

    pub(super) fn value(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }
}

/// All checks, printed one after another; as one JSON document at the end.
#[derive(Debug)]
pub(super) struct Report {
    format: Format,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    ok: bool,
    failed: usize,
    warned: usize,
    checks: &'a [Check],
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            checks: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, check: Check) -> Result<(), Failure> {
        match self.format {
            Format::Table => output::data(line(&check))?,
            Format::Jsonl => output::json(&check)?,
            Format::Json => {}
        }
        self.checks.push(check);
        Ok(())
    }

    pub(super) fn add_all(
        &mut self,
        checks: impl IntoIterator<Item = Check>,
    ) -> Result<(), Failure> {
        checks.into_iter().try_for_each(|check| self.add(check))
    }

    /// The end of it. That something failed is a failure.
    pub(super) fn end(&self) -> Result<(), Failure> {
        let count = |verdict| {
            let alike = self.checks.iter().filter(|check| check.verdict == verdict);
            alike.count()
        };
        let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warn));
        if self.format == Format::Json {
            output::pretty_json(&ReportJson {
                ok: failed == 0,
                failed,
                warned,
                checks: &self.checks,
            })?;
        }
        let all = self.checks.len();
        if failed > 0 {
            return Err(Failure::other(format!(
                "{failed} of {all} checks failed, {warned} warned: do what is said there"
            )));
        }
        output::note(format_args!(
            "palisade: {all} checks, none failed, {warned} warned"
        ));
        Ok(())
    }
}

/// A check as people read it: what was found, and below it what to do.
fn line(check: &Check) -> String {
    const INDENT: &str = "\n      ";
    let (word, colour) = match check.verdict {
        Verdict::Ok => ("OK", 32),
        Verdict::Warn => ("WARN", 33),
        Verdict::Fail => ("FAIL", 31),
    };
    let colour = output::has_colour(&io::stdout()).then_some(colour);
    let mut text = output::painted(&format!("{word:<4}"), colour);
    text.push_str(&format!("  {}: {}", check.subject, check.found));
    for detail in &check.details {
        text.push_str(&format!("{INDENT}- {detail}"));
    }
    if let Some(advice) = &check.advice {
        text.push_str(&format!("{INDENT}{advice}"));
    }
    text
}
