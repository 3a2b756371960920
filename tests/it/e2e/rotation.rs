//! A rotation that succeeds, seen from outside.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::runner_host::{
    ENV_FILE, POINTER, Playbook, RunnerHost, SHARED_FILE, TOKEN_FILE, env_text, short, whole,
};

#[test]
fn a_rotation_swaps_file_pointer_and_process() {
    let host = RunnerHost::start();
    let (before, runner_before) = (host.picture(), host.runner().unwrap());
    assert_eq!(runner_before.pointer.as_deref(), Some(SHARED_FILE));
    assert_eq!(runner_before.token, whole(&host.shared));

    let said = host.rotate(&Playbook::rotate(), &[]);
    said.assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new, "exactly the new bytes");
    let meta = fs::metadata(host.path(TOKEN_FILE)).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o600, 1000, 1000));
    assert_eq!(host.read(ENV_FILE), env_text(TOKEN_FILE, false), "one line changed, one removed, nothing else");
    let _ = POINTER;
    let _ = (before, short(&host.new));
}
