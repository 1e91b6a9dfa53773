use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use palisade_token::{Grant, ResourceName};

use super::{ClientArgs, Format, TimeArgs};
use crate::units::parse_duration;

/// Put the guard into a database, and look after it.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    #[command(subcommand)]
    pub(crate) command: GuardCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GuardCommand {
    Install(GuardInstallArgs),
    Protect(GuardProtectArgs),
    Unprotect(GuardUnprotectArgs),
    Seal(GuardSealArgs),
    Status(GuardStatusArgs),
    Audit(GuardAuditArgs),
    Sql(GuardSqlArgs),
}

/// Install the guard in a database, or bring it up to date.
///
/// PostgreSQL gets the schema `palisade`; from psql then: SELECT palisade.protect('orders', 'orders'), and
/// palisade.seal, palisade.enter and palisade.check with a grant's three parts. SQLite gets tables whose
/// names begin with palisade_. What is installed already is no error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade guard install --postgres postgres://owner@127.0.0.1:5432/orders
  palisade guard install --sqlite orders.db")]
pub(crate) struct GuardInstallArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// The database that is guarded.
#[derive(Debug, Args)]
#[group(id = "store", required = true, multiple = false)]
pub(crate) struct StoreArgs {
    /// The PostgreSQL database
    #[arg(
        long,
        value_name = "URL",
        env = "PALISADE_POSTGRES",
        hide_env_values = true
    )]
    pub(crate) postgres: Option<String>,
    /// The SQLite file; it must be there
    #[arg(long, value_name = "FILE")]
    pub(crate) sqlite: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PostgresArgs {
    /// The PostgreSQL database
    #[arg(
        long,
        value_name = "URL",
        env = "PALISADE_POSTGRES",
        hide_env_values = true
    )]
    pub(crate) postgres: String,
}

/// Refuse writes to a table that carry no grant, or a stale one.
///
/// Either the whole table is one resource, or in PostgreSQL each row has its own, named by the prefix and the
/// values of some columns. Partitions and children are protected with their root. Again, it repairs what was
/// weakened. In a SQLite file the guard is installed first, if it is not there.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true).args(["resource", "columns"]))]
#[command(after_help = "\
Examples:
  palisade guard protect orders --resource orders --postgres \"$DATABASE\"
  palisade guard protect orders --resource orders --sqlite shop.db
  # each row is a resource of its own, such as accounts/eu/17
  palisade guard protect accounts --columns shard,id --prefix accounts \\
      --postgres \"$DATABASE\"")]
pub(crate) struct GuardProtectArgs {
    /// The table, written as in SQL
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
    /// The resource of the whole table
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) resource: Option<ResourceName>,
    /// The columns whose values name the resource of a row
    #[arg(long, value_name = "COLUMN[,COLUMN...]", value_delimiter = ',')]
    #[arg(conflicts_with = "sqlite")]
    pub(crate) columns: Vec<String>,
    /// What the names of the rows' resources begin with
    #[arg(long, value_name = "RESOURCE", requires = "columns")]
    pub(crate) prefix: Option<ResourceName>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Take the guard off a table and what is below it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade guard unprotect orders --postgres postgres://owner@127.0.0.1:5432/shop
  palisade guard unprotect orders --sqlite shop.db")]
pub(crate) struct GuardUnprotectArgs {
    /// The table, written as in SQL
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Seal a resource: from then on nobody older writes.
///
/// With --grant that grant is sealed: what its holder does before its first read. Without it the resource is
/// acquired here, sealed and released again, which stops the writes of whoever held it before: one whose lease
/// was revoked, or everybody after the database was restored. It returns once no write with an older token can
/// commit.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["resource", "grant"]))]
#[command(after_help = "\
Examples:
  palisade guard seal orders --wait 5m --postgres \"$DATABASE\"
  palisade guard seal --grant \"$grant\" --sqlite shop.db")]
pub(crate) struct GuardSealArgs {
    /// What to acquire, seal and release
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: Option<ResourceName>,
    /// Seal this grant, as `palisade acquire --output grant` prints it, without asking a coordinator
    #[arg(long, value_name = "RESOURCE#TOKEN#HOLDER")]
    pub(crate) grant: Option<Grant>,
    /// How long to wait while others hold it, on top of --timeout; without it the answer comes at once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Show a resource's fence: the token sealed last, by whom and when.
///
/// To look at. Comparing with it is no check: the answer is old when it arrives.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade guard status orders --postgres postgres://owner@127.0.0.1:5432/shop
  palisade guard status orders --sqlite shop.db --output json | jq .token")]
pub(crate) struct GuardStatusArgs {
    /// What to look at
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
}

/// List what goes past the guard in PostgreSQL, and what to do.
///
/// Errors are open now: partitions, parents and children without a guard, triggers that are disabled, altered
/// or not ALWAYS, fences from before a restore. Warnings are not, yet. Ends with code 1 if there is an error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade guard audit --postgres postgres://owner@127.0.0.1:5432/orders
  palisade guard audit --postgres \"$DATABASE\" --output jsonl | jq -r .advice")]
pub(crate) struct GuardAuditArgs {
    #[command(flatten)]
    pub(crate) database: PostgresArgs,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Print the guard as SQL, and the calls of other languages.
///
/// Run by the database's own client it installs all, or (but for MySQL, where it may be run again) nothing where
/// the guard is there before; `palisade guard install` also brings an older one up to date.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade guard sql --dialect postgres | psql -v ON_ERROR_STOP=1 \"$DATABASE\"
  palisade guard sql --dialect mysql | mysql orders
  palisade guard sql --dialect sqlite | sqlite3 -bail orders.db")]
pub(crate) struct GuardSqlArgs {
    /// The database's language
    #[arg(long, value_enum)]
    pub(crate) dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// PostgreSQL
    Postgres,
    /// MySQL and MariaDB
    Mysql,
    /// SQLite
    Sqlite,
}
