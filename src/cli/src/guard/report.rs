//! What `palisade guard status` and `palisade guard audit` print.

use std::time::SystemTime;

use palisade_guard::Fence;
use palisade_guard::postgres::{Finding, Severity};
use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;
use crate::output;
use crate::table::{Table, plain};
use crate::units::Times;

#[derive(Debug, Serialize)]
struct FenceJson {
    resource: String,
    token: u64,
    holder: String,
    sealed_unix_ms: i64,
}

pub(super) fn fence(fence: &Fence, format: Format, times: Times) -> Result<(), Failure> {
    let since = fence.sealed_at.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    let json = FenceJson {
        resource: fence.resource.to_string(),
        token: fence.token.get(),
        holder: fence.holder.to_string(),
        sealed_unix_ms: i64::try_from(millis).unwrap_or(i64::MAX),
    };
    match format {
        Format::Table => {
            let mut table = Table::with_header(["RESOURCE", "TOKEN", "HOLDER", "SEALED"]);
            let sealed = times.show(json.sealed_unix_ms);
            table.row([json.resource, json.token.to_string(), json.holder, sealed]);
            output::data(table)
        }
        Format::Json => output::pretty_json(&json),
        Format::Jsonl => output::json(&json),
    }
}

#[derive(Debug, Serialize)]
struct FindingJson<'a> {
    severity: &'static str,
    kind: &'a str,
    object: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    problem: &'a str,
    advice: &'a str,
}

impl<'a> From<&'a Finding> for FindingJson<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            severity: match finding.severity {
                Severity::Warning => "warning",
                _ => "error",
            },
            kind: &finding.kind,
            object: &finding.object,
            resource: finding.resource.as_deref(),
            problem: &finding.problem,
            advice: &finding.advice,
        }
    }
}

/// Prints the findings. That something is open is a failure.
pub(super) fn audit(findings: &[Finding], format: Format) -> Result<(), Failure> {
    let rows: Vec<FindingJson<'_>> = findings.iter().map(FindingJson::from).collect();
    match format {
        Format::Table if rows.is_empty() => output::note("palisade: nothing goes past the guard"),
        Format::Table => {
            let header = [
                "SEVERITY",
                "KIND",
                "OBJECT",
                "RESOURCE",
                "PROBLEM",
                "WHAT TO DO",
            ];
            let mut table = Table::with_header(header);
            for row in &rows {
                table.row([
                    row.severity.to_owned(),
                    row.kind.to_owned(),
                    plain(row.object),
                    plain(row.resource.unwrap_or("-")),
                    plain(row.problem),
                    plain(row.advice),
                ]);
            }
            output::data(table)?;
        }
        Format::Json => output::pretty_json(&rows)?,
        Format::Jsonl => rows.iter().try_for_each(output::json)?,
    }
    match rows.iter().filter(|row| row.severity == "error").count() {
        0 => Ok(()),
        open => Err(Failure::other(format!(
            "writes can go past the guard: {open} of {} findings are errors",
            rows.len()
        ))),
    }
}
