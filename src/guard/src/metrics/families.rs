//! Names and labels. Every key is made and hashed at compile time: without a recorder an event costs a
//! few nanoseconds, and it never allocates.

use metrics::{Key, Label};

/// The kinds of store, for the label `store`.
///
/// ```
/// use palisade_guard::metrics::StoreKind;
///
/// assert_eq!(StoreKind::ObjectStore.name(), "object_store"); // the value of the label `store`
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis.
    Redis,
    /// Object stores.
    ObjectStore,
    /// The in-memory fence table, and engines over it.
    Memory,
}

const STORES: usize = 6;

type ByStore<T> = [T; STORES];

impl StoreKind {
    /// Its name in the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::ObjectStore => "object_store",
            Self::Memory => "memory",
        }
    }

    const fn pick<T>(self, from: &ByStore<T>) -> &T {
        let [postgres, sqlite, mysql, redis, object_store, memory] = from;
        match self {
            Self::Postgres => postgres,
            Self::Sqlite => sqlite,
            Self::Mysql => mysql,
            Self::Redis => redis,
            Self::ObjectStore => object_store,
            Self::Memory => memory,
        }
    }
}

const fn store(kind: StoreKind) -> Label {
    Label::from_static_parts("store", kind.name())
}

const fn with_store(label: &'static str, value: &'static str) -> ByStore<[Label; 2]> {
    const fn both(kind: StoreKind, label: &'static str, value: &'static str) -> [Label; 2] {
        [store(kind), Label::from_static_parts(label, value)]
    }
    [
        both(StoreKind::Postgres, label, value),
        both(StoreKind::Sqlite, label, value),
        both(StoreKind::Mysql, label, value),
        both(StoreKind::Redis, label, value),
        both(StoreKind::ObjectStore, label, value),
        both(StoreKind::Memory, label, value),
    ]
}

const fn keys<const N: usize>(
    name: &'static str,
    labels: &'static ByStore<[Label; N]>,
) -> ByStore<Key> {
    let [postgres, sqlite, mysql, redis, object_store, memory] = labels;
    [
        Key::from_static_parts(name, postgres),
        Key::from_static_parts(name, sqlite),
        Key::from_static_parts(name, mysql),
        Key::from_static_parts(name, redis),
        Key::from_static_parts(name, object_store),
        Key::from_static_parts(name, memory),
    ]
}

static STORE_ONLY: ByStore<[Label; 1]> = [
    [store(StoreKind::Postgres)],
    [store(StoreKind::Sqlite)],
    [store(StoreKind::Mysql)],
    [store(StoreKind::Redis)],
    [store(StoreKind::ObjectStore)],
    [store(StoreKind::Memory)],
];

/// Metrics whose only label is the store.
macro_rules! plain {
    ($($name:ident = $text:literal;)+) => {
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Plain { $($name),+ }

        impl Plain {
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            pub(super) fn key(self, store: StoreKind) -> &'static Key {
                match self {
                    $(Self::$name => {
                        static KEYS: ByStore<Key> = keys($text, &STORE_ONLY);
                        store.pick(&KEYS)
                    })+
                }
            }
        }
    };
}

/// A metric with the store and one more label, whose values are the variants of an enum.
macro_rules! family {
    (
        $(#[$doc:meta])* $name:ident: $metric:literal by $label:literal {
            $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(super) const METRIC: &'static str = $metric;

            pub(super) fn key(self, store: StoreKind) -> &'static Key {
                match self {
                    $(Self::$variant => {
                        static LABELS: ByStore<[Label; 2]> = with_store($label, $value);
                        static KEYS: ByStore<Key> = keys($metric, &LABELS);
                        store.pick(&KEYS)
                    })+
                }
            }
        }
    };
}

plain! {
    SealBlockers = "palisade_guard_seal_blockers_total";
    Unguarded = "palisade_guard_unguarded_total";
    RolledBack = "palisade_guard_commit_rolled_back_total";
    CommitUnknown = "palisade_guard_commit_unknown_total";
    Dropped = "palisade_guard_tx_dropped_total";
    OldestInProgress = "palisade_guard_idempotency_oldest_in_progress_seconds";
    OutboxPending = "palisade_guard_outbox_pending";
    HorizonLag = "palisade_guard_outbox_horizon_lag_seconds";
}

family! {
    /// What a check of a grant met.
    ///
    /// ```
    /// use palisade_guard::metrics::{Check, StoreKind, check};
    /// check(StoreKind::Memory, Check::Stale);
    /// ```
    Check: "palisade_guard_checks_total" by "outcome" {
        /// The grant is the one that was sealed.
        Admitted = "admitted",
        /// A greater token was sealed.
        Stale = "stale",
        /// The token was not sealed in this store.
        Unsealed = "unsealed",
        /// It was sealed, and the store does not know of it.
        Backwards = "backwards",
        /// The token was sealed by another hold.
        Collision = "collision",
        /// The write showed no grant.
        Unguarded = "unguarded",
    }
}

family! {
    /// What a seal ended in.
    ///
    /// ```
    /// use palisade_guard::metrics::Seal;
    /// assert_ne!(Seal::Timeout, Seal::Failed); // `seal` chooses by the error
    /// ```
    Seal: "palisade_guard_seal_seconds" by "outcome" {
        /// The fence is at the grant.
        Sealed = "sealed",
        /// A greater token was sealed.
        Stale = "stale",
        /// The token was sealed by another hold.
        Collision = "collision",
        /// Running writers kept it waiting for too long.
        Timeout = "timeout",
        /// Anything else.
        Failed = "failed",
    }
}

family! {
    /// What the store was asked to do.
    ///
    /// ```
    /// use palisade_guard::metrics::{Operation, StoreKind, Timer, store_answered};
    /// store_answered(StoreKind::Memory, Operation::Commit, Timer::start());
    /// ```
    Operation: "palisade_guard_store_seconds" by "operation" {
        /// Begin a guarded transaction, or enter.
        Begin = "begin",
        /// Check and commit.
        Commit = "commit",
        /// Claim an idempotency key, or replay its answer; without the effect itself.
        Key = "key",
        /// Begin, complete or take over a two-phase attempt.
        Attempt = "attempt",
        /// Accept a number of a sequence.
        Sequence = "sequence",
        /// Advance an offset.
        Offset = "offset",
        /// Check or advance a version.
        Version = "version",
        /// Note a message as seen.
        Inbox = "inbox",
        /// Stage a message.
        Stage = "stage",
        /// Read and mark a batch of staged messages; without publishing them.
        Relay = "relay",
        /// Bury or replay a dead letter.
        DeadLetter = "dead_letter",
        /// Delete a batch of what has expired.
        Purge = "purge",
    }
}

family! {
    /// What an idempotency key met.
    ///
    /// ```
    /// use palisade_guard::metrics::{Idempotency, StoreKind, idempotency};
    /// idempotency(StoreKind::Memory, Idempotency::Replayed);
    /// ```
    Idempotency: "palisade_guard_idempotency_total" by "outcome" {
        /// The effect was applied.
        Executed = "executed",
        /// The stored answer was given.
        Replayed = "replayed",
        /// Another attempt is under way.
        InProgress = "in_progress",
        /// The key was used with another request.
        Mismatch = "mismatch",
        /// An unfinished attempt was taken over.
        TakenOver = "taken_over",
        /// The key's lifetime is over.
        Expired = "expired",
        /// An attempt was finished that another had taken over.
        Lost = "lost",
    }
}

family! {
    /// What a sequence number met.
    ///
    /// ```
    /// use palisade_guard::metrics::{Sequence, StoreKind, sequence};
    /// sequence(StoreKind::Memory, Sequence::Applied);
    /// ```
    Sequence: "palisade_guard_sequence_total" by "outcome" {
        /// It was the next.
        Applied = "applied",
        /// It was seen before.
        Duplicate = "duplicate",
        /// Numbers before it are missing.
        Gap = "gap",
        /// A later holder has gone on.
        Fenced = "fenced",
    }
}

family! {
    /// What a consumer's offset, or a version, met.
    ///
    /// ```
    /// use palisade_guard::metrics::{Position, StoreKind, position};
    /// position(StoreKind::Memory, Position::OffsetAdvanced);
    /// ```
    Position: "palisade_guard_position_total" by "outcome" {
        /// The offset was advanced.
        OffsetAdvanced = "offset_advanced",
        /// The offset is not where the caller believed it.
        OffsetConflict = "offset_conflict",
        /// The version was as expected.
        VersionAdvanced = "version_advanced",
        /// The version is another one.
        VersionConflict = "version_conflict",
    }
}

family! {
    /// What a received message met in the inbox.
    ///
    /// ```
    /// use palisade_guard::metrics::{Inbox, StoreKind, inbox};
    /// inbox(StoreKind::Memory, Inbox::Duplicate);
    /// ```
    Inbox: "palisade_guard_inbox_total" by "outcome" {
        /// It is new.
        Accepted = "accepted",
        /// It was seen before.
        Duplicate = "duplicate",
        /// Its maker was replaced, and messages of the successor were seen.
        Late = "late",
    }
}

family! {
    /// What became of a staged message that the relay published.
    ///
    /// ```
    /// use palisade_guard::metrics::{Publish, StoreKind, published};
    /// published(StoreKind::Memory, Publish::Published, 20); // a batch of 20
    /// ```
    Publish: "palisade_guard_outbox_publish_total" by "outcome" {
        /// The publisher has taken it, and it is marked so.
        Published = "published",
        /// The publisher failed; it is tried again.
        Failed = "failed",
        /// The relay had lost its lease: the mark was refused.
        Fenced = "fenced",
        /// It failed too often and is a dead letter now.
        Dead = "dead",
    }
}

family! {
    /// What happened to a dead letter.
    ///
    /// ```
    /// use palisade_guard::metrics::{DeadLetter, StoreKind, dead_letter};
    /// dead_letter(StoreKind::Memory, DeadLetter::Buried);
    /// ```
    DeadLetter: "palisade_guard_dead_letters_total" by "outcome" {
        /// A message or an attempt became one.
        Buried = "buried",
        /// It was tried again under its original key.
        Replayed = "replayed",
        /// It was deleted.
        Discarded = "discarded",
    }
}

family! {
    /// A table of effects, for what was purged from it.
    ///
    /// ```
    /// use palisade_guard::metrics::{Purged, StoreKind, purged};
    /// purged(StoreKind::Memory, Purged::Keys, 1_000);
    /// ```
    Purged: "palisade_guard_purged_total" by "table" {
        /// Idempotency keys.
        Keys = "keys",
        /// Messages seen.
        Inbox = "inbox",
        /// Messages published.
        Outbox = "outbox",
        /// Dead letters.
        DeadLetters = "dead_letters",
    }
}

family! {
    /// A table of effects, for the rows it holds.
    ///
    /// ```
    /// use palisade_guard::metrics::{Rows, StoreKind, rows};
    /// rows(StoreKind::Memory, Rows::DeadLetters, 3); // a gauge
    /// ```
    Rows: "palisade_guard_rows" by "table" {
        /// Idempotency keys.
        Keys = "keys",
        /// Messages seen.
        Inbox = "inbox",
        /// Messages staged, published or not.
        Outbox = "outbox",
        /// Dead letters.
        DeadLetters = "dead_letters",
    }
}
