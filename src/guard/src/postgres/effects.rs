//! Effects in a guarded transaction: the SQL of what [`crate::effects`] decides.
