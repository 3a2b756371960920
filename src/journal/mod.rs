//! The journal of a run: appended, synced, chained by hash, folded.
