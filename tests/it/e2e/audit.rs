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
