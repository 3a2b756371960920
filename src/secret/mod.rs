//! Secrets: where they come from, and how they are kept off every output.
