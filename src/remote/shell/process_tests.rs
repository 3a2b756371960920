//! Runners' processes and operators' commands, in every shell: what they may read, what they inherit, what they are taken for.

use super::file_tests::{in_every_shell, run};

/// The library says of a process what the process itself finds.
#[test]
fn whether_a_process_can_read_a_file_is_what_it_finds_itself() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"chmod 755 . && mkdir d && d=$(readlink -f d) && : >$d/token
            cat >reader <<'END'
echo $$ >"$1/pid"; while [ ! -e "$1/try" ]; do sleep 0.01; done; (: <"$1/d/token") 2>/dev/null && echo yes || echo no
END
            try() { # WORDS MODE OWNER MODE OWNER: the reader's, the directory's, the file's
                rm -f pid try found; chmod "$2" d; chown "$3" d; chmod "$4" d/token; chown "$5" d/token
                setpriv $1 sh "$PWD/reader" "$PWD" </dev/null >found 2>/dev/null &
                while [ ! -s pid ]; do sleep 0.01; done
                said=no; ! ks_readable "$(cat pid)" "$d/token" || said=yes
                : >try; wait; [ "$said" = "$(cat found)" ] || echo "$*: $said ($KS_WHY), but $(cat found)"
                answers="$answers$said "
            }
            chmod 777 .; chmod 644 reader; answers=
            one="--reuid=4711 --regid=4712 --groups=4713,4714"
            try "$one" 755 0:0 600 4711:0
            try "$one" 755 0:0 640 0:4712
            try "$one" 755 0:0 640 0:4714
            try "$one" 755 0:0 604 0:0
            try "$one" 710 0:4713 604 0:0
            try "$one" 700 0:0 600 4711:0
            try "$one" 755 0:0 640 0:4715
            try "$one" 755 0:0 044 4711:4712
            try "$one" 705 0:4712 644 0:0
            try "$one" 755 0:0 600 0:0
            try "--reuid=0" 700 4711:0 000 4711:0
            try "--reuid=0 --bounding-set=-all --inh-caps=-all" 755 0:0 600 4711:0
            setfacl -m u:4711:r d/token; try "$one" 755 0:0 640 0:0
            echo "$answers""#;
        let (said, _) = run(shell, dir.path(), script);
        // The last one has an access list, which is not held against it; its mask keeps the mode 640.
        assert_eq!(said, "yes yes yes yes yes no no no no no yes no yes \n", "{shell:?}");
    });
}

/// A daemon that an operator's command starts is as it would be without us.
#[test]
fn operators_commands_have_neither_our_umask_nor_our_signals() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let shell = [&["sh", "-c", "umask 027; exec \"$@\"", "-"], shell].concat();
        // The longer answer is no work of the hands.
        // Hangups are the first bit, broken pipes the thirteenth.
        let script = "trap '' HUP; umask
                      for most in '' 9; do ks_user 9 \"$K\" 'umask; grep SigIgn /proc/self/status | tail -c 5' $most; echo $KS_RC $KS_OUT; done";
        let (said, _) = run(&shell, dir.path(), script);
        let signals: Vec<_> = said.lines().skip(1).collect();
        assert_eq!(signals, ["0 0027 0000"; 2], "{shell:?}: {said}");
        assert!(said.starts_with("0077\n"), "{shell:?}: {said}");
    });
}

#[test]
fn a_variable_s_blanks_count() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let script = "env 'A= /data/token  ' sleep 30 & pid=$!
                      until ks_proc_env $pid A; do sleep 0.01; done; printf '<%s>\\n' \"$KS_VALUE\"; kill $pid";
        let (said, _) = run(shell, dir.path(), script);
        assert_eq!(said, "< /data/token  >\n", "{shell:?}");
    });
}

/// Bash before 5.1 makes a file for each here-document.
#[test]
fn a_full_disk_does_not_look_like_a_runner_that_is_down_or_idle() {
    let dir = tempfile::tempdir().unwrap();
    let bash = ["unshare", "-m", "env", "KS_PLAIN=1", "BASH_COMPAT=50", "bash", "--norc"];
    let script =
        "mkdir full; mount -t tmpfs -o size=64k full full; cat /dev/zero >full/all 2>/dev/null; export TMPDIR=$PWD/full
                  (read -r x <<END
a document
END
                  echo \"it has come: $x\") 2>/dev/null
                  ks_bounded() { printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\nMainPID=7\\n'; }
                  ks_svc_state systemd runner -; echo $KS_ACTIVE $KS_PID \"$KS_DETAIL\"
                  ks_processes() { KS_TABLE=\"7 1 forgejo-runner${KS_NL}8 7 sh$KS_NL\"; }
                  KS_LOOKED= KS_JOBS=; ks_busy_tree 7; echo $KS_LOOKED $KS_JOBS
                  ks_bounded() { echo GITEA-ACTIONS-TASK-1; echo GITEA-ACTIONS-TASK-2; }
                  KS_JOBS=; ks_task_containers docker; echo $KS_JOBS";
    let (said, _) = run(&bash, dir.path(), script);
    let jobs = "container:GITEA-ACTIONS-TASK-1 container:GITEA-ACTIONS-TASK-2";
    assert_eq!(said, format!("it has come: \nyes 7 loaded active/running\nprocesses process:8(sh)\n{jobs}\n"));
}
