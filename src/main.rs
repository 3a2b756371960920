//! The `keyswap` program.

fn main() {}
