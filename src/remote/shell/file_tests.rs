//! Opening and making files among others' names, in every shell: what was planted is neither waited for nor followed.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::tests::SHELLS;

const LIBRARY: &str = concat!(
    "KS_HANDS_PL='",
    include_str!("lib/hands.pl"),
    "'\nKS_CR='\r'\n",
    include_str!("lib/hands.sh"),
    "\n",
    include_str!("lib/base.sh"),
    "\n",
    include_str!("lib/file.sh"),
    "\n",
    include_str!("lib/env.sh"),
    "\n",
    include_str!("lib/service.sh"),
    "\n",
    include_str!("lib/state.sh"),
    "\n",
    include_str!("lib/look.sh"),
    "\n",
    include_str!("lib/idle.sh"),
    "\n",
    include_str!("lib/saga.sh"),
    "\n",
    include_str!("lib/undo.sh"),
    "\n",
    include_str!("lib/survey.sh"),
    "\n",
    include_str!("lib/guard.sh"),
    "\nKS_UID=$(id -u) KS_GID=$(id -g) KS_RUN=20260101-000000-abcdef\n"
);

/// Runs a script with the library in `dir`; its output and how long it took.
pub(super) fn run(shell: &[&str], dir: &Path, script: &str) -> (String, Duration) {
    run_after("", shell, dir, script)
}

/// The same, with what is to be done before there are hands. As in the loop nobody is ended by a pipe that nobody reads: whose
/// hands are gone goes on without them, and is not taken for somebody who had nothing to say.
pub(super) fn run_after(before: &str, shell: &[&str], dir: &Path, script: &str) -> (String, Duration) {
    std::fs::write(dir.join("lib.sh"), LIBRARY).unwrap();
    let began = Instant::now();
    let output = Command::new("timeout")
        .arg("60")
        .args(shell)
        .args([
            "-c",
            &format!("cd \"$1\" && K=$PWD && . ./lib.sh; trap '' PIPE\n{before}\nks_test() {{\n{script}\n}}\nks_with_hands ks_test"),
            "-",
        ])
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), began.elapsed())
}

/// Every shell at once: each of them waits a while for what was planted.
pub(super) fn in_every_shell(test: impl Fn(&[&str]) + Sync) {
    std::thread::scope(|scope| {
        for shell in SHELLS {
            scope.spawn(|| test(shell));
        }
    });
}

#[test]
fn a_planted_pipe_or_link_is_neither_waited_for_nor_followed() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
        assert!(made.success());
        std::fs::write(dir.path().join("plain"), "content").unwrap();
        symlink(dir.path().join("made"), dir.path().join("dangling")).unwrap();
        // Others may write here: a name may change at any time.
        let script = "chmod 777 .; for f in pipe dangling gone plain; do (ks_hold $f; echo \"$f $?\"); done
                      (ks_open plain; cat <&6; echo; [ ! -e /proc/$KS_HOLDER ] || sleep 0.2; [ ! -e /proc/$KS_HOLDER/fd/8 ]; echo $?)
                      (ks_open pipe 2>&1 | tr '\\t' ' ' | cut -d' ' -f1,2)";
        let (said, took) = run(shell, dir.path(), script);
        assert_eq!(said, "pipe 1\ndangling 1\ngone 1\nplain 0\ncontent\n0\nfail class=refused\n", "{shell:?}");
        assert!(took < Duration::from_secs(40), "{shell:?} {took:?}");
        assert!(!dir.path().join("made").exists(), "{shell:?}: a file was made through a link");
    });
}

#[test]
fn a_file_in_a_directory_of_our_own_is_opened_without_a_helper_and_no_link_is_followed() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "content").unwrap();
        symlink(dir.path().join("plain"), dir.path().join("link")).unwrap();
        // The hands wait for nobody: where they are, none of this is wanted.
        let script = "KS_HANDS=; ks_hold() { echo helped; exit 1; }
                      (ks_open plain; cat <&6; echo); (ks_open gone || echo gone)
                      (ks_open link) | tr '\\t' ' ' | cut -d' ' -f1,2
                      for mode in 770 707 1777; do chmod $mode .; (ks_open plain); done; chmod 755 .; chown 4711 .; (ks_open plain)";
        let (said, _) = run(shell, dir.path(), script);
        assert_eq!(said, "content\ngone\nfail class=refused\nhelped\nhelped\nhelped\nhelped\n", "{shell:?}");
    });
}

#[test]
fn what_is_exchanged_for_a_new_file_gets_nothing_and_is_not_taken_for_it() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let empty = elsewhere.path().join("empty");
        for plant in ["ln -s $e/empty $f", "ln -s $e/made $f", "mkfifo $f", "ln $e/empty $f", "mkdir $f", ":"] {
            std::fs::write(&empty, "").unwrap();
            // As soon as it is made, before anything else is done with it.
            let script = format!(
                "ks_fstat() {{ [ -n \"$f\" ] || {{ f=$KS_TEMP; e={e}; rm $f; {plant}; }}
                     ks_get stat -L -c \"$KS_FACTS\" -- /proc/self/fd/$1 && KS_FD_FACTS=$KS_GOT; }}
                 sha=$(printf secret | sha256sum); f=
                 (ks_temp .keyswap-x. 644 $KS_UID $KS_GID; printf secret >&5; ks_seal token ${{sha%% *}}; echo sealed) |
                     grep -e sealed -e '^fail' | tr '\t' ' ' | cut -d' ' -f1; rm -rf ./.keyswap-x.* token",
                e = elsewhere.path().display()
            );
            let (said, _) = run(shell, dir.path(), &script);
            assert_eq!(said, "fail\n", "{shell:?} {plant}");
            assert_eq!(std::fs::read(&empty).unwrap(), b"", "{shell:?} {plant}");
            assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1, "{shell:?} {plant}");
            std::fs::remove_file(&empty).unwrap();
        }
    });
}

#[test]
fn a_new_file_is_nobody_else_s_whatever_access_list_its_directory_has() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let script = "setfacl -d -m u:4711:rw,g::rw,o::r . || exit
                      made() { (ks_temp .keyswap-x. $1 4712 4713; stat -c '%a %u %g' $KS_TEMP; echo secret >&5; cat $KS_TEMP
                          getfacl -c $KS_TEMP | grep -e user:4711 -e group:) | tr '\\t' ' ' | cut -d' ' -f1,2,3; }
                      made 600; made 640
                      setfacl() { return 1; }; KS_HANDS=; made 600; made 640; unset -f setfacl; setfacl -k .; made 640";
        let (said, _) = run(shell, dir.path(), script);
        let bare = |mode, group| format!("{mode} 4712 4713\nsecret\ngroup::{group}\n");
        // A list that cannot be taken away lets nobody in with 600; with any other mode there is no such file.
        let listed =
            "600 4712 4713\nsecret\nuser:4711:rw- #effective:---\ngroup::rw- #effective:---\nfail class=refused";
        let lines: Vec<_> = said.lines().map(str::trim_end).collect();
        let expected = format!("{}{}{listed}\n{}", bare(600, "---"), bare(640, "r--"), bare(640, "r--"));
        let said = lines.iter().map(|line| line.split(" message=").next().unwrap()).collect::<Vec<_>>().join("\n");
        assert_eq!(said, expected.trim_end(), "{shell:?}");
    });
}

/// A job may give the stage's name to another file at any time: only what was opened is judged, and written.
#[test]
fn what_is_exchanged_for_a_stage_gets_no_secret() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let script = "KS_RUN_DIR=$PWD KS_NAME=token stage=.keyswap-$KS_RUN-old.1
                      printf secret >pre.1; printf new >token; chmod 600 token; printf '      ' >$stage; chmod 600 $stage
                      : >theirs; chmod 666 theirs; chown 4711 theirs; exec 7<theirs; x=
                      ks_lstat() { ks_get stat -c \"$KS_FACTS\" -- \"./$1\" || return 1; ks_facts_of \"$KS_GOT\"
                          [ -n \"$x\" ] || { x=1; command mv -f theirs \"./$1\"; }; }
                      ks_digest secret
                      (ks_put_copy 1 $KS_DIGEST $KS_UID $KS_GID 600); echo $?; cat <&7; cat token; ls -ln token | cut -d' ' -f1,3";
        let (said, _) = run(shell, dir.path(), script);
        assert_eq!(said, "0\nsecret-rw------- 0\n", "{shell:?}");
    });
}

#[test]
fn a_file_of_mktemp_s_that_was_exchanged_is_not_written() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let empty = elsewhere.path().join("empty");
        // An empty file of ours, as the new one is; a link to it; one that leads to nothing; one with another name.
        for plant in
            ["ln -s $e/empty $f", "ln -s $e/made $f", "mkfifo $f", "mv $e/empty $f; ln $f $e/empty", "mkdir $f"]
        {
            std::fs::write(&empty, "").unwrap();
            let script = format!(
                "chmod 600 {e}/empty
                 mktemp() {{ f=$(command mktemp \"$@\"); e={e}; rm $f; {plant}; echo $f; }}
                 (ks_temp_closed .keyswap-x.; echo secret >&5; echo made) | tr '\\t' ' ' | cut -d' ' -f1,2; rm -rf ./.keyswap-x.*",
                e = elsewhere.path().display()
            );
            let (said, _) = run(shell, dir.path(), &script);
            assert_eq!(said, "fail class=refused\n", "{shell:?} {plant}");
            assert_eq!(std::fs::read(&empty).unwrap(), b"", "{shell:?} {plant}");
            assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1, "{shell:?} {plant}");
            std::fs::remove_file(&empty).unwrap();
        }
    });
}

#[test]
fn a_directory_at_the_stage_s_place_is_not_entered() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        std::fs::write(at.join("token"), "content").unwrap();
        std::fs::create_dir(at.join(".keyswap-20260101-000000-abcdef-old.1")).unwrap();
        let script = format!(
            "(ks_stage file 1 {}/token sha $KS_UID $KS_GID 600 7 post) | tr '\\t' ' ' | cut -d' ' -f1,2",
            at.display()
        );
        let (said, _) = run(shell, &at, &script);
        assert!(said.starts_with("fail class=write\n"), "{shell:?}: {said}");
        let inside = std::fs::read_dir(at.join(".keyswap-20260101-000000-abcdef-old.1")).unwrap().count();
        assert_eq!(inside, 0, "{shell:?}");
    });
}
