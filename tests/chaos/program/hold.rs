//! Holds one resource until it is killed: a holder in a process of its own.

use std::time::Duration;

use clap::Args;
use palisade_client::{AcquireOptions, Client, SessionOptions};
use palisade_token::ResourceName;
use tokio::io::{AsyncReadExt, stdin};

use crate::workload::Failed;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, value_delimiter = ',')]
    coordinators: Vec<String>,
    #[arg(long)]
    resource: ResourceName,
    #[arg(long)]
    ttl_s: u64,
}

/// Says `held TOKEN`, and holds until its stdin ends.
pub(crate) async fn run(options: Options) -> Result<(), Failed> {
    let client = Client::builder()
        .endpoints(options.coordinators)
        .connect()?;
    let ttl = Duration::from_secs(options.ttl_s);
    let session = client
        .open_session(SessionOptions::default().ttl(ttl))
        .await?;
    let lease = session
        .acquire(&options.resource, AcquireOptions::default())
        .await?;
    println!("held {}", lease.token());
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
