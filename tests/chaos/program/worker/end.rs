//! What a job is written with, and how it ended.

use palisade_client::ClientError;
use palisade_guard::GuardError;
use palisade_guard::postgres::GuardedTx;
use sqlx::PgConnection;

use crate::workload::Failed;

/// How a job ended, but for success.
pub(super) enum End {
    Stale(String),
    Lost(String),
    Unknown(String),
    Failed(String),
}

impl End {
    pub(super) fn line(&self) -> String {
        let (word, why) = match self {
            Self::Stale(why) => ("stale", why),
            Self::Lost(why) => ("lost", why),
            Self::Unknown(why) => ("unknown", why),
            Self::Failed(why) => ("failed", why),
        };
        format!("{word} {}", why.replace('\n', " "))
    }
}

impl From<GuardError> for End {
    fn from(error: GuardError) -> Self {
        match &error {
            GuardError::Stale { .. } => Self::Stale(error.to_string()),
            GuardError::CommitUnknown { .. } => Self::Unknown(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<Failed> for End {
    fn from(error: Failed) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<sqlx::Error> for End {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What is written with.
pub(super) enum Tx {
    Guarded(Box<GuardedTx>),
    Plain(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Guarded(tx) => tx,
            Self::Plain(tx) => tx,
        }
    }

    pub(super) fn end_of(&self, error: sqlx::Error) -> End {
        match self {
            Self::Guarded(tx) => tx.refusal(error).into(),
            Self::Plain(_) => error.into(),
        }
    }

    pub(super) async fn commit(self) -> Result<(), End> {
        match self {
            Self::Guarded(tx) => Ok(tx.commit().await.map(drop)?),
            Self::Plain(tx) => tx.commit().await.map_err(|error| match error {
                // The server said no; all else leaves open what it did.
                sqlx::Error::Database(_) => End::Failed(error.to_string()),
                _ => End::Unknown(error.to_string()),
            }),
        }
    }
}
