//! The generation that a connection may grant under: read, judged and made (I3, I9).

use etcd_client::{Compare, CompareOp, GetOptions, ResponseHeader, TxnOp, TxnOpResponse};

use super::{Link, reached};
use crate::audit;
use crate::domain::{Generation, Span};
use crate::store::etcd::codec::{self, Stored, revision};
use crate::store::etcd::trust::Verdict;
use crate::store::{Advance, Advanced, Failure, StoreError};

/// How often the making of a generation is tried anew when another coordinator was faster.
const ROUNDS: usize = 16;

impl Link {
    /// A read that a quorum confirms.
    pub(in crate::store::etcd) async fn confirm(&self) -> Result<(), StoreError> {
        self.read_generation().await.map(|_| ())
    }

    pub(super) async fn read_generation(
        &self,
    ) -> Result<(Option<Stored<Generation>>, ResponseHeader), StoreError> {
        let get = TxnOp::get(self.context.keys.generation(), None::<GetOptions>);
        let (replies, header) = self.read(vec![get]).await?;
        let found = match replies.first() {
            Some(TxnOpResponse::Get(get)) => {
                get.kvs().first().map(codec::generation).transpose()?
            }
            _ => None,
        };
        self.trust().read(found.clone(), reached(&header)?);
        Ok((found, header))
    }

    /// Takes note of a generation that a read of this connection showed.
    pub(in crate::store::etcd) fn judge(
        &self,
        found: Option<Stored<Generation>>,
        header: &ResponseHeader,
    ) -> Result<Verdict, StoreError> {
        Ok(self.trust().read(found, reached(header)?))
    }

    /// The generation that grants may be made under; makes one where none is trusted (I9).
    pub(in crate::store::etcd) async fn generation(
        &self,
    ) -> Result<Stored<Generation>, StoreError> {
        if let Some(trusted) = self.trusted() {
            return Ok(trusted);
        }
        let _making = self.making.lock().await;
        match self.trusted() {
            Some(trusted) => Ok(trusted),
            None => {
                let made = Box::pin(self.make_generation(Advance::default()));
                Ok(made.await?.1)
            }
        }
    }

    /// Makes a generation above a token that a guard has seen.
    pub(in crate::store::etcd) async fn advance(
        &self,
        advance: Advance,
    ) -> Result<Advanced, StoreError> {
        let _making = self.making.lock().await;
        let (previous, made) = self.make_generation(advance).await?;
        Ok(Advanced {
            generation: made.record,
            previous,
        })
    }

    async fn make_generation(
        &self,
        Advance { past, is_forced }: Advance,
    ) -> Result<(Option<Generation>, Stored<Generation>), StoreError> {
        for _ in 0..ROUNDS {
            let (old, header) = self.read_generation().await?;
            // The clock is read after the old generation: the new one is above all it can have issued.
            let clock = self.context.clock.wall();
            let nonce = self.context.entropy.nonce();
            let span = Span {
                revision: revision(header.revision())?,
                past,
                is_forced,
                nonce,
            };
            let made = Generation::after(old.as_ref().map(|old| &old.record), span, clock)
                .map_err(|error| StoreError::not_applied(Failure::Generation(error)))?;
            let made = Stored {
                record: made,
                raw: codec::generation_value(&made).into(),
            };
            let key = self.context.keys.generation();
            let unchanged = match &old {
                Some(old) => Compare::value(key.clone(), CompareOp::Equal, &*old.raw),
                None => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
            };
            let put = TxnOp::put(key, made.raw.to_vec(), None);
            if let Some(committed) = self.write(vec![unchanged], vec![put]).await? {
                if committed.is_regress {
                    break;
                }
                self.trust().made(made.clone(), committed.reached);
                audit::generation(&made.record, past);
                self.context.metrics.generation_made();
                return Ok((old.map(|old| old.record), made));
            }
            // Another coordinator was faster. Where nothing more is asked for, its generation, seen to
            // change on this connection, serves as well.
            self.read_generation().await?;
            let is_past =
                |made: &Stored<Generation>| past.is_none_or(|past| made.record.base > past.get());
            if let Some(trusted) = self.trusted().filter(is_past) {
                return Ok((old.map(|old| old.record), trusted));
            }
        }
        Err(StoreError::not_applied(Failure::HistoryRegressed))
    }
}
