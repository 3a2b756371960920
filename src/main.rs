//! The `keyswap` program. Everything is in the library; see `src/cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyswap::cli::main()
}
