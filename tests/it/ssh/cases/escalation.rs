//! Becoming root: sudo and doas with the rules that operators write, behind the login shells that they have.

use std::sync::Arc;

use keyswap::model::{Become, Connection, Host};
use keyswap::remote::{Answer, Connect as _, NoGate, NoPasswords, Op, SshConnect};

use super::{Bench, Outcome};
use crate::ssh::{connection, dialer};

/// What the users of these cases have for a password, and what somebody may think that it is.
const PASSWORD: &str = "test-token it's $HOME";
const WRONG: &str = "test-token-wrong";

pub(super) struct Row {
    what: &'static str,
    /// The rules: lines of sudoers, or of doas.conf, with `$U` for the user.
    rules: &'static str,
    become_method: Become,
    shell: &'static str,
    given: Option<&'static str>,
    /// What the host's facts or the refusal and its hint must say.
    pub(super) expected: &'static str,
}

const fn sudo(what: &'static str, rules: &'static str, given: Option<&'static str>, expected: &'static str) -> Row {
    Row { what, rules, become_method: Become::Sudo, shell: "/bin/sh", given, expected }
}

const fn doas(what: &'static str, rules: &'static str, given: Option<&'static str>, expected: &'static str) -> Row {
    Row { what, rules, become_method: Become::Doas, shell: "/bin/sh", given, expected }
}

const fn shell(what: &'static str, shell: &'static str) -> Row {
    Row { shell, ..sudo(what, "$U ALL=(root) NOPASSWD: /bin/sh", None, "root") }
}

const ROOT: &str = "root";

/// A shell that repeats each command.
const TRACED: &str = "/usr/local/bin/traced-bash";

pub(super) const ROWS: &[Row] = &[
    sudo("sudo, everything without a password", "$U ALL=(ALL:ALL) NOPASSWD: ALL", None, ROOT),
    sudo("sudo, the least rule", "$U ALL=(root) NOPASSWD: /bin/sh", None, ROOT),
    sudo("sudo, the least rule by the other path", "$U ALL=(root) NOPASSWD: /usr/bin/sh", None, ROOT),
    sudo("sudo, a password that is not needed", "$U ALL=(root) NOPASSWD: /bin/sh", Some(PASSWORD), ROOT),
    sudo("sudo, password", "$U ALL=(root) /bin/sh", Some(PASSWORD), ROOT),
    sudo("sudo, wrong password", "$U ALL=(root) /bin/sh", Some(WRONG), "the password was refused"),
    sudo(
        "sudo, wrong password, one try",
        "$U ALL=(root) /bin/sh\nDefaults:$U passwd_tries=1",
        Some(WRONG),
        "the password was refused",
    ),
    sudo("sudo, password wanted, none given", "$U ALL=(root) /bin/sh", None, "-K asks for the password"),
    sudo("sudo, asks each time", "$U ALL=(root) /bin/sh\nDefaults:$U timestamp_timeout=0", Some(PASSWORD), ROOT),
    sudo("sudo, lecture", "$U ALL=(root) /bin/sh\nDefaults:$U lecture=always", Some(PASSWORD), ROOT),
    sudo("sudo, own prompt", "$U ALL=(root) /bin/sh\nDefaults:$U passprompt=\"Say it, %u: \"", Some(PASSWORD), ROOT),
    sudo(
        "sudo, foreign prompt that wins",
        "$U ALL=(root) /bin/sh\nDefaults:$U passprompt_override, passprompt=\"Mot de passe : \"",
        Some(PASSWORD),
        ROOT,
    ),
    sudo(
        "sudo, own insults",
        "$U ALL=(root) /bin/sh\nDefaults:$U insults, badpass_message=\"Non.\"",
        Some(WRONG),
        "the password was refused",
    ),
    sudo("sudo, requiretty", "$U ALL=(root) NOPASSWD: /bin/sh\nDefaults:$U requiretty", None, "!requiretty"),
    sudo(
        "sudo, requiretty taken back",
        "$U ALL=(root) NOPASSWD: /bin/sh\nDefaults:$U requiretty\nDefaults:$U !requiretty",
        None,
        ROOT,
    ),
    sudo("sudo, no rule", "# none", None, "NOPASSWD: /bin/sh"),
    sudo("sudo, no rule, password given", "# none", Some(PASSWORD), "not in the sudoers file"),
    sudo("sudo, another command allowed", "$U ALL=(root) NOPASSWD: /bin/ls", None, "NOPASSWD: /bin/sh"),
    sudo("sudo, records input", "$U ALL=(root) NOPASSWD: /bin/sh\nDefaults:$U log_input", None, "!log_input"),
    sudo(
        "sudo, records input but for another command",
        "$U ALL=(root) NOPASSWD: /bin/sh\nDefaults:$U log_input\nDefaults!/sbin/reboot !log_input",
        None,
        "!log_input",
    ),
    sudo(
        "sudo, records input by the rule alone",
        "$U ALL=(root) NOPASSWD: LOG_INPUT: /bin/sh\nDefaults:$U !log_input",
        None,
        "!log_input",
    ),
    sudo("sudo, records input, password", "$U ALL=(root) /bin/sh\nDefaults:$U log_input", Some(PASSWORD), "!log_input"),
    sudo(
        "sudo, records the input of others",
        "$U ALL=(root) NOPASSWD: NOLOG_INPUT: /bin/sh\nDefaults:$U log_input",
        None,
        ROOT,
    ),
    sudo("sudo, a terminal of its own", "$U ALL=(root) NOPASSWD: /bin/sh\nDefaults:$U use_pty", None, ROOT),
    sudo("sudo, a terminal of its own, password", "$U ALL=(root) /bin/sh\nDefaults:$U use_pty", Some(PASSWORD), ROOT),
    sudo("sudo, records output only", "$U ALL=(root) NOPASSWD: /bin/sh\nDefaults:$U log_output", None, ROOT),
    sudo(
        "sudo, asks for a password twice",
        "$U ALL=(root) /bin/sh\n# second question",
        Some(PASSWORD),
        "the password was refused",
    ),
    sudo("sudo, only as another user", "$U ALL=(runner) NOPASSWD: /bin/sh", None, "NOPASSWD: /bin/sh"),
    doas("doas, the least rule", "permit nopass $U as root cmd sh", None, ROOT),
    doas("doas, everything", "permit nopass keepenv $U", None, ROOT),
    doas("doas, password wanted", "permit $U as root cmd sh", None, "permit nopass"),
    doas("doas, password wanted, one given", "permit $U as root cmd sh", Some(PASSWORD), "on a terminal only"),
    doas("doas, no rule", "# none", None, "permit nopass"),
    Row { become_method: Become::None, ..sudo("no escalation", "# none", None, "uid") },
    shell("dash", "/bin/dash"),
    shell("bash", "/bin/bash"),
    shell("busybox ash", "/usr/local/bin/ash"),
    shell("bash with a talkative .bashrc", "/usr/local/bin/noisy-bash"),
    Row { shell: TRACED, ..sudo("traced bash, password", "$U ALL=(root) /bin/sh", Some(PASSWORD), ROOT) },
    Row {
        shell: TRACED,
        ..sudo("traced bash, wrong password", "$U ALL=(root) /bin/sh", Some(WRONG), "the password was refused")
    },
    Row {
        shell: TRACED,
        ..sudo("traced bash, a password that is not needed", "$U ALL=(root) NOPASSWD: /bin/sh", Some(PASSWORD), ROOT)
    },
    shell("traced bash", TRACED),
    shell("no login", "/usr/sbin/nologin"),
];

fn user(number: usize) -> String {
    format!("u{number}")
}

/// Makes a user for each case.
pub(super) fn prepare(bench: &Bench) {
    let mut script = String::from(
        "ln -s \"$(command -v busybox)\" /usr/local/bin/ash\nln -s /bin/bash /usr/local/bin/noisy-bash\nln -s /bin/bash /usr/local/bin/traced-bash\n: >/etc/doas.conf\n\
         mount -o remount,noexec /tmp\n",
    );
    let mut passwords = String::new();
    for (number, row) in ROWS.iter().enumerate() {
        let (user, uid) = (user(number), 5000 + number);
        let rules = row.rules.replace("$U", &user);
        let file = if row.become_method == Become::Doas { "/etc/doas.conf" } else { "/etc/sudoers.d/$U" };
        script += &format!(
            "echo '{user}:x:{uid}:{uid}::/home/{user}:{}' >>/etc/passwd; echo '{user}:x:{uid}:' >>/etc/group
             echo '{user}:*:19000:0:99999:7:::' >>/etc/shadow
             mkdir -m 700 /home/{user} && cp -R /home/ops/.ssh /home/{user} && chown -R {user}:{user} /home/{user}
             cat >>{} <<'RULES'\n{rules}\nRULES\n",
            row.shell,
            file.replace("$U", &user),
        );
        passwords += &format!("{user}:{PASSWORD}\n");
        let first = match row.shell {
            TRACED => "echo traced; set -xv; export SHELLOPTS",
            noisy if noisy.contains("noisy") => "echo welcome; echo H 0 0; echo trouble >&2",
            _ => continue,
        };
        script += &format!("echo '{first}' >/home/{user}/.bashrc; chown {user} /home/{user}/.bashrc\n");
    }
    // A second question, by a module that every system has.
    for (number, _) in ROWS.iter().enumerate().filter(|(_, row)| row.rules.contains("second question")) {
        script += &format!(
            "printf 'auth [success=ignore default=1] pam_succeed_if.so quiet user = u{number}\\nauth required pam_ftp.so\\n' >>/etc/pam.d/sudo\n"
        );
    }
    script += &format!(
        "chmod 440 /etc/sudoers.d/*; chmod 600 /etc/doas.conf\nchpasswd -c SHA512 <<'PASSWORDS'\n{passwords}PASSWORDS\n"
    );
    bench.host.sh(&script);
}

/// What comes of one case.
pub(super) async fn ask(bench: &Bench, number: usize, row: &Row) -> Outcome {
    let connection = Connection { user: user(number), become_method: row.become_method, ..connection(&bench.host) };
    let host = Host { name: "h1".parse().unwrap(), connection, vars: Default::default() };
    let connect = SshConnect::new(Arc::new(dialer(&bench.host)), "inv.toml".to_owned())
        .with_passwords(Arc::new(NoPasswords), row.given.map(Into::into));
    let got = match connect.connect(&host, &NoGate).await {
        Ok(mut conn) => {
            let answer = conn.call(&Op::Hello, None).await;
            conn.close().await;
            match answer {
                Ok(Answer::Hello(facts)) if facts.uid == 0 => ROOT.to_owned(),
                Ok(Answer::Hello(facts)) if facts.uid == u32::try_from(5000 + number).unwrap() => "uid".to_owned(),
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            }
        }
        Err(error) => format!("{error}; {}", error.hint.as_deref().unwrap_or_default()),
    };
    assert!(!got.contains(PASSWORD) && !got.contains(WRONG), "a password is said");
    let expected = if row.shell.ends_with("nologin") { "did not start" } else { row.expected };
    let fits = if expected == ROOT || expected == "uid" { got == expected } else { got.contains(expected) };
    let got = if fits { expected.to_owned() } else { got };
    Outcome { what: format!("escalation: {}", row.what), expected: expected.to_owned(), got }
}
