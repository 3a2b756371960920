//! Targets: SSH, the privileged shell, and the `Host` trait in front of them.

mod pipe;

pub use pipe::{Exit, Lost, Pipe};
