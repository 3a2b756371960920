//! The guard and the host's state, with real shells: who holds the host, and who puts it back.

use super::super::file_tests::{in_every_shell as in_every_shell_here, run};
use super::*;

/// The one name in `cas`.
fn phase(runner: &Runner) -> String {
    let names: Vec<_> = std::fs::read_dir(runner.state().join("cas")).unwrap().flatten().collect();
    names
        .first()
        .map(|name| name.file_name().to_string_lossy().split('.').nth(2).unwrap().to_owned())
        .unwrap_or_default()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same in every shell, side by side.
async fn in_every_shell<Fut: Future<Output = ()>>(work: impl Fn(&'static [&'static str]) -> Fut) {
    futures_util::future::join_all(SHELLS.iter().map(|shell| work(shell))).await;
}

#[tokio::test]
async fn a_silent_controller_is_fenced_and_the_host_puts_itself_back() {
    in_every_shell(|shell| async move {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        let op = Op::Prepare {
            hold: guarded(&rotation.run),
            owner: "tester".into(),
            undo: rotation.undo.clone(),
            manifest: String::new(),
        };
        one.call(&op, None).await.unwrap();
        for step in [1, 2, 3] {
            let act = rotation.acts[step - 1].clone();
            let data = matches!(act, Act::Place(_)).then_some(NEW);
            let step = u32::try_from(step).unwrap();
            one.call(&Op::Act { hold: guarded(&rotation.run), step, act }, data).await.unwrap();
        }
        // The last lease is the restart's; a sign of life shortens it to the guard's own.
        one.call(&Op::Renew { hold: guarded(&rotation.run) }, None).await.unwrap();
        assert_eq!(phase(&runner), "armed");
        let pid = runner.pid();
        until("the guard", || phase(&runner) == "old").await;
        assert_eq!(runner.picture(), before, "{shell:?}");
        assert_ne!(runner.pid(), pid, "the runner was restarted on the old token");
        let error = one
            .call(&Op::Commit { hold: guarded(&rotation.run), runner: true, paths: Vec::new() }, None)
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Lost(_)), "the session was fenced: {error:?}");
        let mut two = host(shell, &runner.state()).await;
        let facts = two.hello().await.unwrap();
        assert!(facts.by_guard && facts.phase == "old" && facts.run == rotation.run.as_str(), "{facts:?}");
        let forward = Op::Takeover { hold: guarded(&rotation.run), owner: "tester".into(), only_held: true };
        let error = two.call(&forward, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{error:?}");
        Box::new(two).close().await;
    })
    .await;
}

#[tokio::test]
async fn signs_of_life_hold_the_guard_off_and_a_commit_ends_it() {
    let runner = Runner::new();
    let value = runner.dir.join("data/token");
    let mut one = host(SHELLS[0], &runner.state()).await;
    let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
    let hold = Hold { guard: Some(Duration::from_secs(1)), ..hold(&rotation.run) };
    let op = Op::Prepare {
        hold: hold.clone(),
        owner: "tester".into(),
        undo: rotation.undo.clone(),
        manifest: String::new(),
    };
    one.call(&op, None).await.unwrap();
    one.call(&Op::Act { hold: hold.clone(), step: 1, act: rotation.acts[0].clone() }, Some(NEW)).await.unwrap();
    for _ in 0..12 {
        one.call(&Op::Renew { hold: hold.clone() }, None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(phase(&runner), "armed", "three leases have gone by");
    let watcher = std::fs::read_to_string(runner.state().join("watcher")).unwrap();
    let watcher = PathBuf::from("/proc").join(watcher.split(' ').next().unwrap());
    assert!(watcher.exists());
    for n in [1, 2] {
        let step = u32::try_from(n).unwrap() + 1;
        one.call(&Op::Act { hold: hold.clone(), step, act: rotation.acts[n].clone() }, None).await.unwrap();
    }
    one.call(&Op::Commit { hold, runner: true, paths: Vec::new() }, None).await.unwrap();
    until("the watcher's end", || !watcher.exists()).await;
    assert_eq!(std::fs::read(runner.dir.join("data/token")).unwrap(), NEW);
    Box::new(one).close().await;
}

/// A run that takes the host while the watcher of the one before it ends may have found that watcher, and relies on it.
#[test]
fn a_watcher_that_is_about_to_end_looks_once_more() {
    in_every_shell_here(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let script = "at=$K/cas; mkdir $at; ks_boot; : >$at/1.1.old.r.-.$KS_BOOT.0; KS_OWNER_SELF=7-8-0
                      ks_guard_remove() {
                          [ ! -s $K/watcher ] || echo late >$K/said
                          mv $at/1.1.old.r.-.$KS_BOOT.0 $at/2.2.armed.s.9-9-0.$KS_BOOT.0
                      }
                      sleep() { cat $K/watcher >$K/said; exit; }
                      (ks_watch); cat said
                      ks_guard_remove() { :; }
                      mv $at/2.2.armed.s.9-9-0.$KS_BOOT.0 $at/2.3.new.s.-.$KS_BOOT.0; (ks_watch); echo \"$? $(cat watcher)\"";
        let (said, _) = run(shell, dir.path(), script);
        assert_eq!(said, "7 8\n0 \n", "{shell:?}");
    });
}

/// The same for its start at boot: whoever takes that away sees who was faster, or is seen.
#[test]
fn a_start_at_boot_that_another_run_needs_stays() {
    in_every_shell_here(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let shell = [&["unshare", "-m"], shell].concat();
        let script = "for at in /var/lib /etc/cron.d /run; do mount -t tmpfs none $at || exit; done; ks_boot; cron() { :; }
                      K=/var/lib/ks; mkdir -p $K/cas; : >$K/cas/1.1.armed.r.7-8-0.$KS_BOOT.0
                      show() { set +f; set -- /etc/cron.d/*; set -f; case $1 in */keyswap-guard-*) echo \"$x there\" ;; *) echo \"$x gone\" ;; esac; }
                      x=armed; ks_boot_hook; ks_guard_remove; show
                      x=taken; set +f; rm /etc/cron.d/*; set -f; ks_guard_alive() { return 0; }; ks_guard_start; show
                      x=old; mv $K/cas/1.1.armed.r.7-8-0.$KS_BOOT.0 $K/cas/1.2.old.r.-.$KS_BOOT.0; ks_guard_remove; show";
        let (said, _) = run(&shell, dir.path(), script);
        assert_eq!(said, "armed there\ntaken there\nold gone\n", "{shell:?}");
    });
}

/// Prepares with a guard and places the new token.
async fn half_done(one: &mut ShellHost, rotation: &Rotation) {
    let op = Op::Prepare {
        hold: guarded(&rotation.run),
        owner: "tester".into(),
        undo: rotation.undo.clone(),
        manifest: String::new(),
    };
    one.call(&op, None).await.unwrap();
    let place = Op::Act { hold: guarded(&rotation.run), step: 1, act: rotation.acts[0].clone() };
    one.call(&place, Some(NEW)).await.unwrap();
}

#[tokio::test]
async fn a_guard_whose_way_back_is_not_whole_says_so_and_waits_for_nobody() {
    in_every_shell(|shell| async move {
        let runner = Runner::new();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        half_done(&mut one, &rotation).await;
        let undo = runner.state().join("runs").join(rotation.run.as_str()).join("undo");
        let whole = std::fs::read(&undo).unwrap();
        std::fs::write(&undo, whole.strip_suffix(b"end\n").unwrap()).unwrap();
        until("the guard to give up", || phase(&runner) == "dirty").await;
        std::fs::write(&undo, whole).unwrap();
        let mut two = host(shell, &runner.state()).await;
        two.call(&Op::Takeover { hold: hold(&rotation.run), owner: "tester".into(), only_held: false }, None)
            .await
            .unwrap();
        assert!(rotation.undo(&mut two).await.clean);
        assert_eq!(phase(&runner), "old");
        Box::new(two).close().await;
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_could_not_put_the_host_back_tries_again() {
    in_every_shell(|shell| async move {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        half_done(&mut one, &rotation).await;
        let undo = runner.state().join("runs").join(rotation.run.as_str()).join("undo");
        let whole = std::fs::read(&undo).unwrap();
        std::fs::write(&undo, whole.strip_suffix(b"end\n").unwrap()).unwrap();
        until("the guard to say so", || phase(&runner) == "dirty").await;
        std::fs::write(&undo, whole).unwrap();
        until("the guard to mend it", || phase(&runner) == "old").await;
        assert_eq!(runner.picture(), before, "{shell:?}");
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_cannot_write_its_log_puts_the_host_back_all_the_same() {
    in_every_shell(|shell| async move {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        half_done(&mut one, &rotation).await;
        let log = runner.state().join("runs").join(rotation.run.as_str()).join("guard.log");
        std::fs::create_dir(&log).unwrap();
        until("the guard", || phase(&runner) == "old").await;
        assert_eq!(runner.picture(), before, "{shell:?}");
    })
    .await;
}

#[tokio::test]
async fn a_preparation_that_was_cut_off_is_ended_by_the_next_one() {
    in_every_shell(|shell| async move {
        let runner = Runner::new();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        let dir = runner.state().join("runs").join(rotation.run.as_str());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(runner.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // It hangs while it writes: nobody reads what it writes to.
        let undo = dir.join("undo");
        assert!(std::process::Command::new("mkfifo").arg(&undo).status().unwrap().success());
        let op = Op::Prepare {
            hold: hold(&rotation.run),
            owner: "tester".into(),
            undo: rotation.undo.clone(),
            manifest: String::new(),
        };
        let late = {
            let op = op.clone();
            tokio::spawn(async move { one.call(&op, None).await })
        };
        let session = dir.join("session");
        until("the first session to begin", || session.exists()).await;
        let mut two = host(shell, &runner.state()).await;
        std::fs::remove_file(&undo).unwrap();
        two.call(&op, None).await.unwrap();
        let error = tokio::time::timeout(Duration::from_secs(30), late).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, CallError::Lost(_)), "the first session is gone: {error:?}");
        rotation.act(&mut two, 0).await.unwrap();
        let error = two.call(&op, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{error:?}");
        assert!(rotation.undo(&mut two).await.clean);
        let error = two.call(&op, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{error:?}");
        Box::new(two).close().await;
    })
    .await;
}

#[tokio::test]
async fn a_run_that_never_held_the_host_is_given_up_for_good() {
    in_every_shell(|shell| async move {
        let runner = Runner::new();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        one.call(&Op::Takeover { hold: guarded(&rotation.run), owner: "tester".into(), only_held: false }, None)
            .await
            .unwrap();
        // The controller dies here: the next one comes upon a host that is held and has no way back.
        let mut two = host(shell, &runner.state()).await;
        let forward = Op::Takeover { hold: guarded(&rotation.run), owner: "tester".into(), only_held: true };
        let error = two.call(&forward, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{error:?}");
        two.call(&Op::Takeover { hold: guarded(&rotation.run), owner: "tester".into(), only_held: false }, None)
            .await
            .unwrap();
        let undone = rotation.undo(&mut two).await;
        assert!(undone.clean && undone.records.is_empty());
        assert_eq!(phase(&runner), "old");
        let prepare = Op::Prepare {
            hold: hold(&rotation.run),
            owner: "tester".into(),
            undo: rotation.undo.clone(),
            manifest: String::new(),
        };
        let error = two.call(&prepare, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{error:?}");
        Box::new(two).close().await;
    })
    .await;
}
