//! `audit` and `retire` against a real host: each kind of drift by its own words, and nothing of the old token left.

use crate::support::runner_host::{ENV_FILE, POINTER, Playbook, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, short};

fn audit(host: &RunnerHost, more: &[&str]) -> Said {
    let mut args = vec!["audit", "-i", "inventory.toml"];
    args.extend(more);
    host.say(&args)
}

/// What has drifted, and the exit code with it.
fn drift(said: &Said) -> Vec<String> {
    let object = said.events.iter().find(|event| event["event"] == "host-audited");
    let object = object.unwrap_or_else(|| panic!("{}", said.all()));
    let drift: Vec<String> =
        object["drift"].as_array().unwrap().iter().map(|drift| drift.as_str().unwrap().to_owned()).collect();
    assert_eq!(said.code, Some(if drift.is_empty() { 0 } else { 10 }), "{}", said.all());
    drift
}

#[test]
fn each_kind_of_drift_has_its_own_words() {
    let host = RunnerHost::start();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    let before = host.picture();
    for playbook in [&["playbook.toml"][..], &[]] {
        let said = audit(&host, playbook);
        assert_eq!(drift(&said), [""; 0], "{}", said.all());
        let object = &said.events[0];
        assert_eq!(object["credentials"][0]["fingerprint"], short(&host.new), "{}", said.all());
        assert_eq!(
            (&object["credentials"][0]["mode"], &object["credentials"][0]["uid"]),
            (&"0600".into(), &1000.into())
        );
        assert_eq!(object["pointers"][0]["value"], TOKEN_FILE, "{}", said.all());
        assert_eq!(object["processes"][0]["pid"], host.runner().unwrap().pid, "{}", said.all());
        assert_eq!(object["copies"][0]["fingerprint"], short(&host.old), "{}", said.all());
        assert!(!said.all().contains(&host.new) && !said.all().contains(&host.old));
    }
    before.assert_same(&host.picture(), &audit(&host, &[]));

    // One thing after the other is spoiled and mended again.
    let env = format!("sed -i 's#^{POINTER}=.*#{POINTER}={TOKEN_FILE}#' {ENV_FILE}");
    let cases = [
        (format!("chmod 644 {TOKEN_FILE}"), "open to group or others (mode 0644)", format!("chmod 600 {TOKEN_FILE}")),
        (format!("chmod 400 {TOKEN_FILE}"), "has mode 0400, not 0600", format!("chmod 600 {TOKEN_FILE}")),
        (format!("chown 0 {TOKEN_FILE}"), "belongs to user 0, not 1000", format!("chown 1000 {TOKEN_FILE}")),
        (
            format!("sed -i '1i INFISICAL_TOKEN=test-token-inline' {ENV_FILE}"),
            "sets INFISICAL_TOKEN, which outranks the pointer",
            format!("sed -i 1d {ENV_FILE}"),
        ),
        (
            format!("sed -i 's#^{POINTER}=.*#{POINTER}={SHARED_FILE}#' {ENV_FILE}"),
            "not /srv/forgejo-runner/data/infisical-token-auth-token",
            env,
        ),
        (
            format!("cp -p {TOKEN_FILE} /srv/keep && printf test-token-by-hand >{TOKEN_FILE}"),
            "sees another credential than the files hold|is not as run",
            format!("cat /srv/keep >{TOKEN_FILE} && rm /srv/keep"),
        ),
        (
            "/usr/local/sbin/runnerctl stop".to_owned(),
            "the runner is stopped",
            "/usr/local/sbin/runnerctl start".to_owned(),
        ),
        (format!("mv {TOKEN_FILE} /srv/gone"), "is not there", format!("mv /srv/gone {TOKEN_FILE}")),
    ];
    for (spoil, words, mend) in cases {
        host.sh(&spoil);
        let said = audit(&host, &["playbook.toml"]);
        let found = drift(&said);
        let any = words.split('|').any(|words| found.iter().any(|drift| drift.contains(words)));
        assert!(any, "{spoil}: {found:?}\n{}", said.all());
        assert!(!said.all().contains("test-token"), "{spoil}: {}", said.all());
        host.sh(&mend);
        let mended = audit(&host, &["playbook.toml"]);
        assert_eq!(drift(&mended), [""; 0], "{mend}: {}", mended.all());
    }
}

#[test]
fn a_retired_host_holds_nothing_of_what_was_before() {
    let host = RunnerHost::start();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    let (rotated, runner) = (host.picture(), host.runner());
    let retired = host.say(&["retire", "--yes"]);
    assert_eq!(retired.code, Some(0), "{}", retired.all());
    assert_eq!(host.holders(&host.old), [""; 0], "{}", retired.all());
    assert_eq!(host.holders(&host.shared), [""; 0], "the pointer's old file goes too: {}", retired.all());
    assert_eq!(host.holders(&host.new), [TOKEN_FILE]);
    assert_eq!(rotated.changed(&host.picture()), [SHARED_FILE], "{}", retired.all());
    assert_eq!(host.runner(), runner, "nothing was restarted");
    assert_eq!(drift(&audit(&host, &[])), [""; 0]);
    assert_eq!(host.say(&["rollback"]).code, Some(5));
    // The way forward is open: another rotation, and its own way back.
    let next = format!("{}-next", host.new);
    std::fs::write(host.controller().join("token"), &next).unwrap();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), next);
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");
    assert_eq!(host.read(TOKEN_FILE), host.new);
}

/// A pointer that leads to another file than the managed one, whose values nobody has written down; and what a run left before.
#[test]
fn where_a_pointer_leads_and_what_earlier_runs_left_is_judged() {
    let host = RunnerHost::start();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    let elsewhere = "/srv/forgejo-runner/data/elsewhere";
    let lead = |to: &str| {
        host.sh(&format!(
            "/usr/local/sbin/runnerctl stop; sed -i 's#^{POINTER}=.*#{POINTER}={to}#' {ENV_FILE}; /usr/local/sbin/runnerctl start"
        ));
    };
    host.sh(&format!("cp -p {SHARED_FILE} {elsewhere}"));
    lead(elsewhere);
    // Without a playbook nobody says what the pointer should be: what lies there tells.
    let said = audit(&host, &[]);
    let found = drift(&said);
    let words = format!("points to {elsewhere}, which holds {}", short(&host.shared));
    assert!(found.iter().any(|drift| drift.contains(&words)), "{found:?}\n{}", said.all());
    assert_eq!(said.events[0]["pointers"][0]["fingerprint"], short(&host.shared), "{}", said.all());
    lead(TOKEN_FILE);
    host.sh(&format!("rm {elsewhere}"));
    let mended = audit(&host, &[]);
    assert_eq!(drift(&mended), [""; 0], "{}", mended.all());

    // A later run that was taken back says nothing of the file; the one before it still does.
    let next = format!("{}-next", host.new);
    std::fs::write(host.controller().join("token"), &next).unwrap();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");
    let clean = audit(&host, &[]);
    assert_eq!(drift(&clean), [""; 0], "{}", clean.all());
    host.sh(&format!("printf test-token-by-hand >{TOKEN_FILE}"));
    let found = drift(&audit(&host, &[]));
    assert!(found.iter().any(|drift| drift.contains("is not as run")), "{found:?}");
}

/// Nothing of a run that was taken back is missed, and a host of which nobody knows anything is not called well.
#[test]
fn a_run_that_was_taken_back_left_no_places() {
    let host = RunnerHost::start();
    host.sh(&format!("rm {TOKEN_FILE}"));
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    assert_eq!(drift(&audit(&host, &[])), [""; 0]);
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");
    let said = audit(&host, &[]);
    assert_eq!(drift(&said), [""; 0], "{}", said.all());
    assert_eq!((&said.events[0]["status"], &said.events[1]["status"]), (&"unknown".into(), &"unknown".into()));
    let named = audit(&host, &["playbook.toml"]);
    assert!(drift(&named).iter().any(|drift| drift.contains("is not there")), "{}", named.all());
    let path = host.controller().join("inventory.toml");
    let inventory = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, inventory.replace("port = ", "port = 1 #")).unwrap();
    let lost = audit(&host, &[]);
    assert_eq!((lost.code, &lost.events[1]["status"]), (Some(4), &"unreachable".into()), "{}", lost.all());
}

/// What stood still before a run stands still after it: that is no drift, and no reason to keep the old token for ever.
#[test]
fn a_runner_that_was_stopped_before_does_not_keep_its_host_from_being_retired() {
    let host = RunnerHost::start();
    host.sh("/usr/local/sbin/runnerctl stop");
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    for playbook in [&["playbook.toml"][..], &[]] {
        let said = audit(&host, playbook);
        assert_eq!(drift(&said), [""; 0], "{}", said.all());
    }
    let retired = host.say(&["retire", "--yes"]);
    assert_eq!(retired.code, Some(0), "{}", retired.all());
    assert_eq!(host.holders(&host.shared), [""; 0], "{}", retired.all());
}

/// Stray copies of what earlier runs brought or found, and of what is asked for; by names without links, and never what is managed.
#[test]
fn a_search_finds_what_any_run_knew() {
    let host = RunnerHost::start();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    host.say(&["retire", "--yes"]);
    host.sh("mkdir -p /srv/real && ln -s /srv/real /srv/link");
    host.sh(&format!("printf %s {} >/srv/real/found; printf %s test-token-other >/srv/real/other", host.old));
    let search = |more: &[&str]| {
        let mut args = vec!["--search", "/srv/link", "--search", "/srv/forgejo-runner"];
        args.extend(more);
        drift(&audit(&host, &args))
    };
    let found = search(&[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("lies in /srv/real/found"), "{found:?}");
    let found = search(&["--fingerprint", &short("test-token-other")]);
    assert_eq!(found.len(), 2, "{found:?}");
    // The managed file, reached through a link above it, is where it belongs.
    host.sh("ln -s /srv/forgejo-runner /srv/linked && rm -r /srv/real /srv/link");
    let found = drift(&audit(&host, &["--search", "/srv/linked"]));
    assert_eq!(found, [""; 0], "{found:?}");
}
