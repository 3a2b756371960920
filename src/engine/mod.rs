//! One host's saga.
