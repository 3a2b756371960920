//! Batches, failure budget, scope of the rollback.
