//! The privileged shell of a host: one long-lived `sh` that answers framed requests.
//!
//! The library that it runs is the `.sh` files of `lib/`, joined; it is sent over the channel's standard input after
//! a tiny `sh -c`, so nothing is left on the host and nothing long stands in an argument list.

#[cfg(test)]
mod env_tests;
mod escalate;
#[cfg(test)]
mod exec_tests;
#[cfg(test)]
mod file_tests;
mod frame;
#[cfg(test)]
mod hands_tests;
mod host;
#[cfg(test)]
mod idle_tests;
mod parse;
#[cfg(test)]
mod process_tests;
pub(crate) mod quote;
#[cfg(test)]
mod room_tests;
mod survey;
#[cfg(test)]
mod survey_tests;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub use escalate::Boot;
pub(crate) use escalate::{RECORDS, Refusal, refusal};
pub(crate) use frame::Shell;
pub use frame::ShellError;
pub use host::ShellHost;

/// The library, in the order in which its pieces build on each other; `loop.sh` is last and does not return.
const PIECES: &[&str] = &[
    "KS_HANDS_PL='",
    include_str!("lib/hands.pl"),
    "'",
    include_str!("lib/hands.sh"),
    "KS_CR='\r'",
    include_str!("lib/base.sh"),
    include_str!("lib/file.sh"),
    include_str!("lib/env.sh"),
    include_str!("lib/service.sh"),
    include_str!("lib/state.sh"),
    include_str!("lib/look.sh"),
    include_str!("lib/idle.sh"),
    include_str!("lib/saga.sh"),
    include_str!("lib/undo.sh"),
    include_str!("lib/survey.sh"),
    include_str!("lib/guard.sh"),
    include_str!("lib/loop.sh"),
];

/// The joined library without its comments and indentation, which are for people.
///
/// No line of it may depend on leading blanks, and no line that starts with `#` may be code.
static LIBRARY: LazyLock<String> = LazyLock::new(|| {
    let mut out = String::new();
    for line in PIECES.iter().flat_map(|piece| piece.lines()) {
        let line = line.trim_start_matches(' ');
        if !line.is_empty() && !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
});

/// SHA-256 of [`LIBRARY`]: by it a host knows that the guard that lies there is this very library.
static LIBRARY_SUM: LazyLock<String> = LazyLock::new(|| {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(LIBRARY.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
});

/// What the login shell is asked to start, without escalation. It reads the nonce and the library's length, then the
/// library itself, and keeps the channel on descriptors that no child sees.
const BOOT: &str = "read -r NONCE n; exec 3<&0 4>&1 </dev/null >/dev/null; \
                    KS_LIB=$(dd bs=$n count=1 iflag=fullblock <&3 2>/dev/null); eval \"$KS_LIB\"";
