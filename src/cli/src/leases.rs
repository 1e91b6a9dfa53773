//! Looking at leases: `palisade get` and `palisade list`.

use std::io::{self, IsTerminal};

use palisade_client::{Client, ClientError, LeaseInfo, Occupancy, PreviousLease};
use palisade_token::ResourceName;

use crate::args::{Format, GetArgs, ListArgs};
use crate::failure::Failure;
use crate::output;
use crate::progress::{self, ASKING};
use crate::table::{Table, plain};
use crate::units::{Times, show_duration};
use crate::watch;

pub(crate) use json::{LeaseJson, end_name};

use json::OccupancyJson;

mod json;

/// As many as a coordinator gives at once.
const PAGE_SIZE: u16 = 1_000;
/// How many waiters are listed unless told otherwise: those that a person reads.
const LISTED: u16 = 10;

/// `palisade get`.
pub(crate) async fn get(args: GetArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let found = progress::during(ASKING, find(&client, &args.resource, args.queue)).await?;
    let told = OccupancyJson::of(&args.resource, &found);
    match args.output {
        Format::Json => output::pretty_json(&told),
        Format::Jsonl => output::json(&told),
        Format::Table => {
            output::data(describe(&args.resource, &found, args.time.times()))?;
            if found.queue.is_empty() {
                return Ok(());
            }
            output::data(format_args!("\n{}", queue(&found)))
        }
    }
}

async fn find(
    client: &Client,
    resource: &ResourceName,
    queue: Option<u16>,
) -> Result<Occupancy, Failure> {
    let found = client.get_lease(resource, queue.unwrap_or(LISTED)).await;
    match found {
        // Older coordinators count waiters and do not list them. Nobody asked for a list.
        Err(ClientError::NotServed) if queue.is_none() => Ok(client.get_lease(resource, 0).await?),
        found => Ok(found?),
    }
}

fn describe(resource: &ResourceName, found: &Occupancy, times: Times) -> String {
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("resource", resource.to_string());
    match &found.lease {
        None => {
            row("state", "vacant".to_owned());
            if let Some(previous) = json::told(found) {
                row("last lease", last(previous));
                if !previous.reason.is_empty() {
                    row("reason", plain(&previous.reason));
                }
            }
        }
        Some(lease) => {
            row("state", "held".to_owned());
            row("token", lease.grant.token.to_string());
            row("holder", lease.grant.holder.to_string());
            row("label", plain(&lease.label));
            row("session", plain(&lease.session_id));
            row("request", plain(&lease.request_id));
            // Not every coordinator knows these two.
            if lease.granted_unix_ms > 0 {
                row("granted", times.show(lease.granted_unix_ms));
            }
            if !lease.ttl.is_zero() {
                row("ttl", show_duration(lease.ttl));
            }
            if !lease.lock_delay.is_zero() {
                row("lock-delay", show_duration(lease.lock_delay));
            }
            if !lease.metadata.0.is_empty() {
                let text = String::from_utf8_lossy(&lease.metadata.0);
                row("metadata", plain(&text));
            }
        }
    }
    if !found.lock_delay_left.is_zero() {
        let left = show_duration(found.lock_delay_left);
        row("lock-delay left", format!("{left}: nobody gets it before"));
    }
    let listed = found.queue.len();
    let waiters = found.waiters;
    let is_cut = listed > 0 && usize::try_from(waiters).is_ok_and(|all| all > listed);
    row(
        "waiters",
        if is_cut {
            format!("{waiters}, of which the first {listed} are listed (--queue N)")
        } else {
            waiters.to_string()
        },
    );
    table.to_string()
}

/// How the lease before ended, in a line.
fn last(previous: &PreviousLease) -> String {
    let mut text = match end_name(previous.end) {
        "unknown" => "ended; how, this coordinator did not see".to_owned(),
        end => end.to_owned(),
    };
    if let Some(token) = previous.token {
        text.push_str(&format!(", token {token}"));
    }
    if !previous.label.is_empty() {
        text.push_str(&format!(", label {}", plain(&previous.label)));
    }
    text
}

fn queue(found: &Occupancy) -> Table {
    let mut table = Table::with_header(["PLACE", "LABEL", "SESSION", "REQUEST"]);
    for (place, waiter) in (1..).zip(&found.queue) {
        table.row([
            format!("{place}"),
            plain(&waiter.label),
            plain(&waiter.session_id),
            plain(&waiter.request_id),
        ]);
    }
    table
}

/// `palisade list`.
pub(crate) async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    if args.watch {
        let is_seen = args.output == Format::Table && io::stdout().is_terminal();
        return match is_seen && !output::is_dumb() {
            true => watch::live(&client, &args).await,
            false => watch::changes(&client, args.prefix, args.client.timeout).await,
        };
    }
    match args.output {
        Format::Table => {
            let times = args.time.times();
            let mut table = Table::with_header(COLUMNS);
            for_each(&client, &args.prefix, |lease| {
                table.row(columns(lease, times));
                Ok(())
            })
            .await?;
            output::data(table)
        }
        Format::Jsonl => {
            for_each(&client, &args.prefix, |lease| {
                output::json(&LeaseJson::from(lease))
            })
            .await
        }
        Format::Json => {
            let mut leases = Vec::new();
            for_each(&client, &args.prefix, |lease| {
                let lease = serde_json::to_value(LeaseJson::from(lease));
                leases.push(
                    lease.map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?,
                );
                Ok(())
            })
            .await?;
            output::pretty_json(&leases)
        }
    }
}

pub(crate) const COLUMNS: [&str; 7] = [
    "RESOURCE", "TOKEN", "LABEL", "GRANTED", "TTL", "WAITERS", "SESSION",
];

pub(crate) fn columns(lease: &LeaseInfo, times: Times) -> [String; 7] {
    let unless_none = |known: bool, text: String| if known { text } else { "-".to_owned() };
    [
        lease.grant.resource.to_string(),
        lease.grant.token.to_string(),
        plain(&lease.label),
        unless_none(lease.granted_unix_ms > 0, times.show(lease.granted_unix_ms)),
        unless_none(!lease.ttl.is_zero(), show_duration(lease.ttl)),
        lease
            .waiters
            .map_or_else(|| "-".to_owned(), |waiters| waiters.to_string()),
        plain(&lease.session_id),
    ]
}

async fn for_each(
    client: &Client,
    prefix: &str,
    mut show: impl FnMut(&LeaseInfo) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut next: Option<String> = None;
    loop {
        let page = client.list_leases(prefix, PAGE_SIZE, next.as_deref());
        let page = progress::during(ASKING, page).await?;
        page.leases.iter().try_for_each(&mut show)?;
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
}
