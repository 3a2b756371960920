//! The hands answer as the programs do, for nobody but us, and keep nothing busy; in every shell that has them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::file_tests::run_after;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--norc"], &["busybox", "ash"]];

/// What a script says, which has hands, and how long it took. Descriptor 3 is a pipe, as it is where requests come in.
fn timed(shell: &[&str], dir: &Path, script: &str) -> (String, Duration) {
    let channel = "mkfifo channel && exec 3<>channel && rm channel";
    run_after(channel, shell, dir, &format!("[ -n \"$KS_HANDS\" ] || echo 'no hands'\n{script}"))
}

fn said(shell: &[&str], dir: &Path, script: &str) -> String {
    timed(shell, dir, script).0
}

#[test]
fn they_answer_as_the_programs_do() {
    // Each line a call, asked of both. What is free changes while it is looked at.
    let calls = [
        "stat -c '%f %s %u %g %a %h %d:%i %Y' -- . ./plain ./dir ./link ./pipe ./odd",
        "stat -L -c '%f %s %u %g %a %h %d.%i' -- ./link /proc/self/fd/6",
        "stat -c %a -- . ./gone",
        "stat -c %u -- ./plain/below",
        "stat -f -c '%S %c %i' -- .",
        "readlink ./link",
        "readlink /proc/self/fd/6",
        "sha256sum",
    ];
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        std::fs::write(dir.path().join("plain"), "content\n").unwrap();
        symlink("plain", dir.path().join("link")).unwrap();
        let mut script = "mkfifo pipe; : >odd; chown 12:34 odd; chmod 4751 odd; exec 6<plain\n".to_owned();
        for call in calls {
            // Theirs is asked for by the program's own way to its standard input.
            script += &format!(
                "a=0; ks_hand {call} <plain || a=$?; [ $a != 2 ] || echo \"not by hand: {name}\"
                 b=0; theirs=$(command {call} <plain 2>/dev/null) || b=$?
                 [ \"$a $KS_SAID\" = \"$b $theirs\" ] || echo \"{name}: $a $KS_SAID, $b $theirs\"\n",
                name = call.replace(['\'', '$'], "")
            );
        }
        assert_eq!(said(shell, dir.path(), &script), "", "{shell:?}");
    }
}

/// What they say of access lists and attributes is in other words, of which only some are looked at.
#[test]
fn they_see_access_lists_and_attributes() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = ": >bare; : >listed; setfacl -m u:4711:r listed
                      for f in bare listed; do ks_hand ls -ldn -- ./$f; echo \"$? $KS_SAID\"; done
                      : >fixed; if chattr +i fixed 2>/dev/null; then
                          for f in bare fixed; do ks_hand lsattr -d ./$f || echo \"$?\"; echo \"${KS_SAID%% *}\"; done
                          chattr -i fixed
                      else printf -- '---\\n-i-\\n'; fi";
        assert_eq!(said(shell, dir.path(), script), "0 -\n0 -+\n---\n-i-\n", "{shell:?}");
    }
}

/// A runner owns the directory of its pid file: what stands there is read, and is no answer of theirs.
#[test]
fn what_they_read_is_no_answer() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = "for me in /proc/self/task/*; do :; done; set +f; for me in /proc/self/task/*; do :; done; set -f
                      printf '7\\nx\\n%s 0 0 forged\\n' \"${me##*/}-$KS_ID\" >pid
                      ks_hand line \"$PWD/pid\"; echo \"$? $KS_SAID\"
                      ks_hand readlink /proc/self/cwd; [ \"$KS_SAID\" = \"$PWD\" ] || echo \"$KS_SAID\"
                      printf '%0100d\\n' 0 >long; ks_hand line \"$PWD/long\"; echo ${#KS_SAID}
                      truncate -s 2M large; ks_hand sight \"$PWD/large\"; echo $?
                      mkfifo pipe; ks_hand line \"$PWD/pipe\"; echo $?";
        assert_eq!(said(shell, dir.path(), script), "0 7\n64\n2\n2\n", "{shell:?}");
    }
}

#[test]
fn they_copy_what_the_programs_copy() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        // From a pipe by pieces, as a request brings it; a file whole; into one that has blocks of its own already.
        let script = r"printf 'one\ntwo\n\377' | { ks_copy 4 >first; ks_copy 2 >second; ks_copy >rest; }
                      for f in first second rest; do od -An -c $f; done; od -An -c rest | od -An -c >/dev/null
                      truncate -s 3M large; exec 6<large; ks_copy <&6 >twin; cmp large twin && echo same
                      exec 6<first 5<>rest; ks_copy <&6 >&5; od -An -c rest
                      ks_digest 'one two'; [ $KS_DIGEST = $(printf 'one two' | command sha256sum | cut -d' ' -f1) ] || echo $KS_DIGEST";
        let copied = "   o   n   e  \\n\n   t   w\n   o  \\n 377\nsame\n   o   n   e  \\n\n";
        assert_eq!(said(shell, dir.path(), script), copied, "{shell:?}");
    }
}

/// One look says of a file what the programs say of it by and by.
#[test]
fn they_open_a_file_and_say_what_it_holds() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"by_program() { KS_HANDS='' && ks_content "$1" && ks_fp && facts "$1"; }
                      facts() { echo "$1 $KS_SHA $KS_FP $KS_TYPE $KS_SIZE $KS_OWN $KS_GRP $KS_MODE $KS_LINKS $KS_INO"; }
                      chmod 777 .; printf 'one' >bare; printf 'one\n' >line; printf 'one\r\n' >dos; printf 'a\n\n' >two; : >empty
                      printf '\n' >end; printf '\0\n\377' >odd; chown 12:34 odd; chmod 4751 odd; ln odd twin; truncate -s 1M full
                      for f in bare line dos two empty end odd full; do
                          ks_content $f; [ -n "$KS_SUM" ] || echo "not by hand: $f"
                          ks_fp; ours=$(facts $f); theirs=$(by_program $f); [ "$ours" = "$theirs" ] || echo "$ours, $theirs"
                      done
                      ks_content gone; echo $KS_SHA
                      truncate -s 1048577 large; ks_open large; echo "<$KS_SUM> $KS_SIZE"
                      ln -s line link; mkfifo pipe; mkdir dir; ln -s . up
                      for f in link pipe dir up; do (ks_content $f) | tr '\t' ' '; done"#;
        let refused =
            |name| format!("fail class=refused message={}/{name} is not a regular file\n", dir.path().display());
        let expected = format!("absent\n<> 1048577\n{}", ["link", "pipe", "dir", "up"].map(refused).concat());
        assert_eq!(said(shell, dir.path(), script), expected, "{shell:?}");
    }
}

/// The data of a request: so many bytes and none of the next one, which nobody whom they start can read.
#[test]
fn they_take_the_data_of_a_request() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"printf 'a\0\nbcde' >&3; ks_hand take 4; od -An -c "/proc/$KS_HANDS/fd/$KS_SAID"
                      ks_hand take 3; held=$KS_SAID; ks_hand drop; [ -e "/proc/$KS_HANDS/fd/$held" ] || echo dropped
                      head -c 4096 /dev/zero >&3; ks_hand take 4097; echo $?; ks_hand take 4096; wc -c <"/proc/$KS_HANDS/fd/$KS_SAID"
                      ks_user 5 . 'for fd in /proc/self/fd/[0-9]; do [ ! -p $fd ] || echo ${fd##*/}; done'; echo "$KS_OUT""#;
        assert_eq!(said(shell, dir.path(), script), "   a  \\0  \\n   b\ndropped\n2\n4096\n1\n2\n", "{shell:?}");
    }
}

/// A process and all below it, by what the kernel tells of each: as a newer kernel does it, and as all do.
#[test]
fn they_know_who_is_below_a_process() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"sh -c 'sh -c "sleep 30 & wait" & sleep 31 & wait' & top=$!
                      i=0; until ks_processes $top && [ "$(printf %s "$KS_TABLE" | wc -l)" = 4 ]; do
                          i=$((i + 1)); [ $i -lt 200 ] || { echo "$KS_TABLE"; break; }; sleep 0.05
                      done
                      ours=$(printf %s "$KS_TABLE" | sort)
                      by_program() { KS_HANDS='' && ks_processes $top && printf %s "$KS_TABLE"; }
                      theirs=$(by_program | awk -v top=$top '{ parent[$1] = $2; line[$1] = $0 }
                          END { for (pid in parent) { up = pid; while (up in parent && up != top) up = parent[up]; if (up == top) print line[pid] } }' | sort)
                      [ "$ours" = "$theirs" ] || echo "$ours, $theirs"
                      kill $(printf %s "$ours" | cut -d' ' -f1)"#;
        assert_eq!(said(shell, dir.path(), script), "", "{shell:?}");
        let older =
            r#"[ -z "${KS_HANDS_PL##*434, *}" ] && KS_HANDS_PL="${KS_HANDS_PL%%434, *}9999, ${KS_HANDS_PL#*434, }""#;
        assert_eq!(run_after(older, shell, dir.path(), script).0, "", "{shell:?}");
    }
}

/// The clock is that of process starts.
#[test]
fn they_tell_the_time_of_processes() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = "by_process() { KS_HANDS='' && ks_ticks && echo $KS_TICKS; }
                      before=$(by_process); ks_ticks; after=$(by_process)
                      [ $before -le $KS_TICKS ] && [ $KS_TICKS -le $after ] || echo $before $KS_TICKS $after";
        assert_eq!(said(shell, dir.path(), script), "", "{shell:?}");
    }
}

/// What sleeps as the guard is in a session of its own and nobody's child; it becomes the library when the lease has ended,
/// and goes by itself when the host was settled.
#[test]
fn one_sleeps_as_the_guard_until_there_is_something_to_do() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = "until_so() { i=0; until eval \"$1\"; do i=$((i + 1)); [ $i -lt 200 ] || { echo \"not $1\"; return; }; sleep 0.05; done; }
                      mkdir cas; ks_boot; ks_uptime; : >cas/1.1.armed.r.1-1-0.$KS_BOOT.$((KS_UP + 100000))
                      printf 'echo fired $$ >done\n' >guard.sh
                      ks_hand watch $KS_BOOT; echo $?; ks_guard_alive || echo 'not alive'
                      read -r pid start <watcher; ks_pid $pid; [ $KS_SID = $pid ] || echo 'no session of its own'
                      [ $KS_PARENT != $KS_HANDS ] || echo 'a child of the hands'
                      set +f; [ ! -e done ] && mv cas/1.1.* cas/1.2.armed.r.1-1-0.$KS_BOOT.$((KS_UP + 1)); kill -CONT $pid
                      set +f; for fd in /proc/$pid/fd/[0-9] /proc/$pid/fd/1[0-9]; do [ ! -p $fd ] || echo a pipe $fd; done
                      until_so '[ -s done ]'; [ \"$(cat done)\" = \"fired $pid\" ] || echo 'another process'
                      rm done; set +f; mv cas/1.2.* cas/1.3.new.r.-.$KS_BOOT.0; ks_hand watch $KS_BOOT
                      until_so '! ks_guard_alive'; [ ! -e done ] || echo 'fired'";
        assert_eq!(said(shell, dir.path(), script), "0\n", "{shell:?}");
    }
}

/// As `timeout` and a pipe would have it, and by one process for all of it.
#[test]
fn they_run_an_operators_command() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"said() { ks_user "$1" . "$2"; echo "$KS_RC<$KS_OUT>"; ls | grep '^u\.'; }
                      said 5 'echo one; echo two >&2; echo; exit 7'
                      said 5 'cat; pwd >where; kill -9 $$'; [ "$(cat where)" = "$PWD" ] || cat where
                      said 5 'printf "a\0b\r\t c"'
                      ks_user 5 . 'i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i + 1)); done; echo done >&2'; echo "$KS_RC ${#KS_OUT}"
                      said 5 'echo up; sleep 30 & echo $! >daemon'; kill "$(cat daemon)" && echo was there
                      said 5 'exec >/dev/null 2>&1; sleep 0.3; exit 3'
                      said 1 'echo begun; trap "echo told; exit 0" TERM; sleep 20 & wait'
                      said 1 'sh -c "sleep 20; echo late >late" & wait'; [ ! -e late ] || echo late
                      said 5 'for fd in /proc/self/fd/[0-9]; do [ ! -p $fd ] || echo ${fd##*/}; done'"#;
        let (said, took) = timed(shell, dir.path(), script);
        let expected =
            "7<one\ntwo>\n137<>\n0<ab\r\t c>\n0 8192\n0<up>\nwas there\n3<>\n124<begun\ntold>\n124<>\n0<1\n2>\n";
        assert_eq!(said, expected, "{shell:?}");
        assert!(took < Duration::from_secs(20), "{shell:?}: {took:?}");
    }
}

/// Whether a command was run is not known where they are gone: it is never run again.
#[test]
fn a_command_that_they_were_lost_with_is_not_run_again() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = "(ks_user 5 . \"echo once >>ran; kill -9 $KS_HANDS; sleep 0.2\"; echo on) | cut -f2,3
                      until [ -s ran ]; do sleep 0.05; done; cat ran";
        let said = said(shell, dir.path(), script).replace("Killed\n", "");
        assert_eq!(
            said, "class=command\tmessage=how the command ended is not known: what ran it is gone\nonce\n",
            "{shell:?}"
        );
    }
}

/// A disk's error is told once: who asks again hears that all is well.
#[test]
fn a_sync_that_failed_is_not_tried_again() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "mkdir bin; printf '#!/bin/sh\\necho asked again\\n' >bin/sync; chmod 755 bin/sync; PATH=$PWD/bin:$PATH
                      sync /proc/version; echo $?; sync . /proc/version lib.sh; echo $?; sync ./gone; sync . lib.sh; echo $?";
        assert_eq!(said(shell, dir.path(), script), "1\n1\nasked again\n0\n", "{shell:?}");
    }
}

#[test]
fn they_keep_no_directory_and_no_file_busy() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo content >plain; chmod 777 .; ks_open plain; ks_lstat plain
                      command readlink /proc/$KS_HANDS/cwd; exec 6<&-; ls -l /proc/$KS_HANDS/fd | grep -c plain";
        assert_eq!(said(shell, dir.path(), script), "/\n0\n", "{shell:?}");
    }
}

/// Variables that make Perl do something else do not reach it.
#[test]
fn the_environment_does_not_steer_them() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = ["env", "PERL5OPT=-Mkeyswap_is_not_there", "PERL_UNICODE=SAD", "PERL5LIB=/nonexistent", "dash"];
    let script = "printf '\\303\\244\\n' >plain; ks_open plain
                  [ \"$KS_PRINT\" = \"$(printf '\\303\\244' | command sha256sum | cut -d' ' -f1)\" ] || echo \"$KS_PRINT\"";
    assert_eq!(said(&wrong, dir.path(), script), "");
}

/// An older Perl also looks for its modules where it is, and a runner may own that directory.
#[test]
fn no_module_is_loaded_from_where_they_are() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let older = r#"KS_HANDS_PL="BEGIN { require strict } @INC = (q{.}); $KS_HANDS_PL""#;
        let script = r#"mkdir Digest; echo 'open(my $f, ">", "ran"); sub Digest::SHA::sha256_hex { 1 }' >Digest/SHA.pm; printf one >plain
                      ks_content plain; [ "$KS_SHA" = "$(command sha256sum <plain | cut -d' ' -f1)" ] || echo "$KS_SHA"
                      ks_hand readlink /proc/self/cwd; [ ! -e ran ] || echo 'it was loaded'; echo done"#;
        assert_eq!(run_after(older, shell, dir.path(), script).0, "done\n", "{shell:?}");
    }
}

/// They are gone in the midst of the work: the programs do it.
#[test]
fn without_them_all_goes_on() {
    for shell in SHELLS {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo content >plain; kill -9 $KS_HANDS; trap '' PIPE
                      ks_lstat plain && echo $KS_SIZE; mv -f plain other && sync . && echo moved; ks_lstat plain || echo gone";
        // A shell may say that they were killed.
        let said = said(shell, dir.path(), script).replace("Killed\n", "");
        assert_eq!(said, "8\nmoved\ngone\n", "{shell:?}");
    }
}
