//! Looking at leases: `palisade get` and `palisade list`.

use palisade_client::{Client, LeaseInfo, Occupancy};
use palisade_token::{FencingToken, HolderId, ResourceName};
use serde::Serialize;

use crate::args::{Format, GetArgs, ListArgs};
use crate::failure::Failure;
use crate::output;
use crate::table::{Table, plain};
use crate::units::{show_duration, show_unix_ms};

/// As many as a coordinator gives at once.
const PAGE_SIZE: u16 = 1_000;

/// A lease in JSON.
#[derive(Debug, Serialize)]
struct LeaseJson<'a> {
    resource: &'a ResourceName,
    token: FencingToken,
    holder: HolderId,
    grant: String,
    session: &'a str,
    request: &'a str,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_unix_ms: Option<i64>,
    granted_revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiters: Option<u32>,
}

impl<'a> From<&'a LeaseInfo> for LeaseJson<'a> {
    fn from(lease: &'a LeaseInfo) -> Self {
        let bytes = &lease.metadata.0;
        let text = std::str::from_utf8(bytes).ok();
        Self {
            resource: &lease.grant.resource,
            token: lease.grant.token,
            holder: lease.grant.holder,
            grant: lease.grant.to_string(),
            session: &lease.session_id,
            request: &lease.request_id,
            label: &lease.label,
            metadata: text.filter(|text| !text.is_empty()),
            metadata_hex: text.is_none().then(|| hex::encode(bytes)),
            ttl_ms: Some(lease.ttl.as_millis()).filter(|known| *known > 0),
            granted_unix_ms: Some(lease.granted_unix_ms).filter(|known| *known > 0),
            granted_revision: lease.granted_revision,
            waiters: lease.waiters,
        }
    }
}

/// What is known of one resource, in JSON.
#[derive(Debug, Serialize)]
struct OccupancyJson<'a> {
    resource: &'a ResourceName,
    held: bool,
    lease: Option<LeaseJson<'a>>,
    waiters: u32,
    revision: i64,
}

/// `palisade get`.
pub(crate) async fn get(args: GetArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let found = client.get_lease(&args.resource, 0).await?;
    let told = OccupancyJson {
        resource: &args.resource,
        held: found.lease.is_some(),
        lease: found.lease.as_ref().map(LeaseJson::from),
        waiters: found.waiters,
        revision: found.revision,
    };
    match args.output {
        Format::Json => output::pretty_json(&told),
        Format::Jsonl => output::json(&told),
        Format::Table => output::data(describe(&args.resource, &found)),
    }
}

fn describe(resource: &ResourceName, found: &Occupancy) -> String {
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("resource", resource.to_string());
    match &found.lease {
        None => row("state", "vacant".to_owned()),
        Some(lease) => {
            row("state", "held".to_owned());
            row("token", lease.grant.token.to_string());
            row("holder", lease.grant.holder.to_string());
            row("label", plain(&lease.label));
            row("session", plain(&lease.session_id));
            row("request", plain(&lease.request_id));
            // Not every coordinator knows these two.
            if lease.granted_unix_ms > 0 {
                row("granted", show_unix_ms(lease.granted_unix_ms));
            }
            if !lease.ttl.is_zero() {
                row("ttl", show_duration(lease.ttl));
            }
            if !lease.metadata.0.is_empty() {
                row(
                    "metadata",
                    plain(&String::from_utf8_lossy(&lease.metadata.0)),
                );
            }
        }
    }
    row("waiters", found.waiters.to_string());
    table.to_string()
}

/// `palisade list`.
pub(crate) async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    match args.output {
        Format::Table => {
            let mut table =
                Table::with_header(["RESOURCE", "TOKEN", "LABEL", "SESSION", "WAITERS"]);
            for_each(&client, &args.prefix, |lease| {
                table.row(columns(lease));
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

fn columns(lease: &LeaseInfo) -> [String; 5] {
    [
        lease.grant.resource.to_string(),
        lease.grant.token.to_string(),
        plain(&lease.label),
        plain(&lease.session_id),
        lease
            .waiters
            .map_or_else(|| "-".to_owned(), |waiters| waiters.to_string()),
    ]
}

async fn for_each(
    client: &Client,
    prefix: &str,
    mut show: impl FnMut(&LeaseInfo) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut next: Option<String> = None;
    loop {
        let page = client
            .list_leases(prefix, PAGE_SIZE, next.as_deref())
            .await?;
        page.leases.iter().try_for_each(&mut show)?;
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
}
