//! The PostgreSQL guard on a real server: one server for this binary, one database for each test.
//!
//! What has cost others years, and the test that holds it here. A is a writer with a token that becomes stale, B
//! seals a later one. `interleavings` runs each at every isolation level, for whole tables and for rows.
//!
//! | trap or interleaving | test |
//! |---|---|
//! | A checks by a plain read, or locks what the seal does not wait for | `traps::a_plain_read_of_the_fence_is_no_check` |
//! | A commits, B seals | `interleavings::write_then_seal` |
//! | B seals, A enters, writes or checks | `interleavings::seal_then_write` |
//! | A has a snapshot, B seals, A enters and writes | `interleavings::snapshot_then_seal_then_write` |
//! | A writes what is not protected, B seals, A checks | `interleavings::write_unprotected_then_seal_then_check` |
//! | A has entered, in each shape, and B seals | `interleavings::seal_waits_for_every_shape_of_running_writer` |
//! | A enters behind a seal that is open, or rolls back | `interleavings::writer_behind_an_open_seal`, `writer_behind_a_seal_that_rolls_back` |
//! | A enters behind a seal that waits: no starvation | `queues::a_later_writer_queues_behind_a_waiting_seal` |
//! | check in the statement of the write | `interleavings::check_inside_the_statement_of_the_write` |
//! | ROLLBACK TO gives the lock back | `interleavings::an_entry_ends_with_its_savepoint`, `an_entry_ends_with_an_exception_block` |
//! | a read in the statement of the seal | `traps::a_read_in_the_statement_of_the_seal_reads_the_past` |
//! | a STABLE function reads the past | `traps::what_decides_is_volatile` |
//! | a snapshot older than one's own first seal | `traps::a_snapshot_older_than_the_first_seal_is_unsealed` |
//! | FOR SHARE in a read-only transaction | `traps::a_read_only_transaction_is_checked_at_read_committed_only` |
//! | a seal above READ COMMITTED, or not durable | `seal::a_seal_needs_read_committed_and_keeps_what_it_acknowledges` |
//! | the last caller wins a seal | `seal::a_seal_is_raised_repeated_and_never_lowered` |
//! | a lock that is raised deadlocks | `seal::a_transaction_that_has_entered_a_resource_does_not_seal_it`, `queues::a_seal_under_an_entry_of_a_neighbour_deadlocks_as_an_error` |
//! | opposite orders, or a row lock first, under a waiting seal | `queues::opposite_orders_under_waiting_seals_stall_and_go_on`, `queues::a_row_lock_before_the_entry_stalls_and_goes_on` |
//! | one token, two holders | `seal::two_seals_of_one_token_have_one_winner`, `commit::a_collision_is_found_by_the_commit` |
//! | the fence is lowered, renamed, deleted, or raised without the lock | `fence::nobody_lowers_renames_or_deletes_a_fence`, `fence::the_owners_raise_waits_for_running_writers` |
//! | COMMIT of an aborted transaction is told as done | `commit::an_aborted_transaction_is_never_reported_as_committed` |
//! | a failed BEGIN leaves its connection in a transaction | `pool::a_failed_begin_leaves_no_aborted_transaction_behind` |
//! | a setting is left on a pooled connection | `pool::no_entry_counts_in_a_later_transaction` |
//! | a setting or a cursor is taken for an entry that it is not | `entries` |
//! | two entries for one resource, one token for two, neighbours in a stripe | `fence::one_transaction_enters_a_resource_with_one_grant`, `unguarded::the_entry_of_one_resource_does_not_open_the_table_of_another`, `fence::neighbours_in_one_stripe_do_not_mix` |
//! | thousands of resources exhaust the lock table | `traps::thirty_thousand_resources_in_one_transaction` |
//! | COPY, MERGE, CTE, ON CONFLICT, cascades, TRUNCATE CASCADE, replica role | `unguarded::every_kind_of_statement_needs_an_entry`, `rows::every_kind_of_statement_on_a_row_needs_an_entry` |
//! | statements on a leaf | `unguarded::partitions_and_children_are_protected_with_their_root`, `rows::partitions_of_a_row_guarded_table_are_guarded_with_it` |
//! | a new leaf, ATTACH, DETACH | `partitions` |
//! | `/` and NULL in the columns of a resource, OLD and NEW | `rows::a_value_with_a_slash_or_null_names_no_resource`, `rows::each_row_needs_the_entry_of_its_own_resource` |
//! | triggers that are weakened, and repaired | `partitions::protect_again_repairs_whatever_was_weakened`, `audit` |
//! | logical apply | `audit::logical_replication_passes_whole_tables_and_stops_at_rows` |
//! | dumps: whole, data only, `--disable-triggers` | `install::a_restored_dump_is_still_guarded`, `audit::a_dump_loaded_with_triggers_disabled_is_found`, `audit::a_fence_from_another_database_is_found_until_it_is_sealed_again` |
//! | the store went backwards | `audit::a_server_restored_from_its_files_kills_what_was_sealed_since`, `seal::a_store_that_went_backwards_is_told_from_a_stale_grant` |
//! | a lost seal of a synchronous standby is repeated | `seal::a_repeated_seal_waits_for_the_synchronous_standby_like_the_first` |
//! | prepared writers, their gid, a crash | `interleavings::a_prepared_writer_holds_the_seal`, `seal::a_seal_that_waits_too_long_names_the_blockers`, `traps::a_prepared_writer_keeps_its_lock_over_a_crash` |
//! | what a writer's role may not do, and what it still can | `install::a_writer_has_no_right_on_the_fence`, `names`, `traps::a_hostile_writer_is_not_stopped` |
//! | no Rust | `psql::psql_alone_meets_every_refusal`, and psycopg in `tests/scenarios/languages.rs` |
//!
//! Not run here: `PgBouncer` itself (what it does to a connection is in `pool`), other major versions of
//! PostgreSQL than the one that is installed.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

mod audit;
mod commit;
mod db;
mod entries;
mod fence;
mod install;
mod interleavings;
mod names;
mod observed;
mod partitions;
mod pool;
mod psql;
mod queues;
#[path = "../shared/recording.rs"]
mod recording;
mod rows;
mod seal;
mod traps;
mod unguarded;
mod ways_round;
mod writers;
