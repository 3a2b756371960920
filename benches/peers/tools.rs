//! How each tool is told to do the five steps: the files that it wants, and its command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::fleet::{Fleet, USER, address, digest, directory, place};

const ROTATE: &str = include_str!("rotate.sh");

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// keyswap with every safety on.
    Keyswap,
    /// A process of OpenSSH's client for each host, at once, each with the hand-written script.
    Ssh,
    /// A bare program over the SSH library that keyswap uses, with the hand-written script.
    Russh,
    /// Ansible with pipelining, as many forks as hosts.
    Ansible,
    /// The same with Mitogen's strategy.
    Mitogen,
    /// pyinfra, as many at a time as hosts.
    Pyinfra,
    /// The bare program that logs in and does nothing; for the table of what remains.
    #[value(skip)]
    Login,
    /// The same with a `sudo` that does nothing.
    #[value(skip)]
    Sudo,
}

impl Tool {
    /// Those that are compared.
    pub(crate) const PEERS: [Self; 6] =
        [Self::Keyswap, Self::Ssh, Self::Russh, Self::Ansible, Self::Mitogen, Self::Pyinfra];

    /// What it is called in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Keyswap => "keyswap",
            Self::Ssh => "hand-written ssh",
            Self::Russh => "bare russh",
            Self::Ansible => "Ansible, pipelining",
            Self::Mitogen => "Ansible, Mitogen",
            Self::Pyinfra => "pyinfra",
            Self::Login => "log in",
            Self::Sudo => "log in, sudo",
        }
    }

    /// Whether the hosts are rotated afterwards.
    pub(crate) fn rotates(self) -> bool {
        !matches!(self, Self::Login | Self::Sudo)
    }

    /// The command that works on every host of a fleet, through this port; what it needs is written.
    pub(crate) fn command(self, fleet: &Fleet, port: u16, group: &Path) -> Command {
        let program = match self {
            Self::Keyswap => keyswap(fleet, port),
            Self::Ssh => ssh(fleet, port),
            Self::Russh => oneshot(fleet, port, rotation),
            Self::Login => oneshot(fleet, port, |_| ":".to_owned()),
            Self::Sudo => oneshot(fleet, port, |_| "sudo -n true".to_owned()),
            Self::Ansible => ansible(fleet, port, "linear"),
            Self::Mitogen => ansible(fleet, port, "mitogen_linear"),
            Self::Pyinfra => pyinfra(fleet, port),
        };
        // The first process goes into the control group, and so everything that it starts.
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 >\"$0/cgroup.procs\" && exec \"$@\""]);
        command.arg(group).arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        command.current_dir(&fleet.files).env("HOME", &fleet.files).env_remove("SSH_AUTH_SOCK");
        command
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("-", |value| value.get_name()))
    }
}

/// The hand-written script as a command line for a host.
fn rotation(host: usize) -> String {
    let script = ROTATE.replace('\'', "'\\''");
    format!("sudo -n sh -c '{script}' rotate {} {}", directory(host), digest())
}

/// Hosts as lines, each made from its number.
fn lines(fleet: &Fleet, line: impl Fn(usize) -> String) -> String {
    (1..=fleet.count).map(line).collect()
}

fn keyswap(fleet: &Fleet, port: u16) -> Command {
    let files = fleet.files.display();
    let inventory = format!(
        "[defaults]\nuser = \"{USER}\"\nport = {port}\nbecome = \"sudo\"\nidentity_file = \"{files}/identity\"\n\
         known_hosts = \"{files}/known_hosts\"\n\n[groups.fleet]\nhosts = [\"h-[1:{}]\"]\n{}",
        fleet.count,
        lines(fleet, |host| {
            let dir = directory(host);
            format!(
                "\n[hosts.h-{host}]\naddress = \"{}\"\nstate_dir = \"/var/lib/keyswap-{host}\"\nvars = {{ dir = \"{dir}\" }}\n",
                address(host)
            )
        })
    );
    let playbook = format!(
        r#"name = "Rotate"
hosts = "fleet"
[vars]
token_file = "{{{{ dir }}}}/data/infisical-token-auth-token"
[secrets.token]
from = "file"
path = "{files}/token"
[rollout]
batches = ["100%"]
guard = "120s"
[[steps]]
name = "Back up"
backup = {{ path = "{{{{ token_file }}}}" }}
[[steps]]
name = "Place"
place = {{ secret = "token", path = "{{{{ token_file }}}}", mode = "0600", owner = "1000", group = "1000" }}
[[steps]]
name = "Point"
point = {{ file = "{{{{ dir }}}}/runner.env", key = "INFISICAL_TOKEN_AUTH_FILE", value = "{{{{ token_file }}}}" }}
[[steps]]
name = "Restart"
restart = {{ command = "toyctl restart {{{{ dir }}}}", pid_file = "{{{{ dir }}}}/run/runner.pid", healthy = "0s" }}
[[steps]]
name = "Verify"
command = {{ run = "toyctl verify {{{{ dir }}}} {}", changes = false }}
"#,
        digest()
    );
    write(fleet, "inventory.toml", &inventory);
    write(fleet, "playbook.toml", &playbook);
    let mut command = Command::new(place().join("keyswap"));
    command.args([
        "run",
        "playbook.toml",
        "-i",
        "inventory.toml",
        "--yes",
        "--output",
        "plain",
        "--state-dir",
        "state",
    ]);
    command.args(["--forks", &fleet.count.to_string()]);
    command
}

fn ssh(fleet: &Fleet, port: u16) -> Command {
    fs::create_dir_all(fleet.files.join("commands")).unwrap();
    for host in 1..=fleet.count {
        fs::write(fleet.files.join(format!("commands/{host}")), rotation(host)).unwrap();
    }
    let start = lines(fleet, |host| {
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o ControlMaster=no -o StrictHostKeyChecking=yes \
             -o UserKnownHostsFile=known_hosts -o IdentitiesOnly=yes -i identity -p {port} {USER}@{} \
             \"$(cat commands/{host})\" <token &\npids=\"$pids $!\"\n",
            address(host)
        )
    });
    let wait = "failed=0\nfor pid in $pids; do wait \"$pid\" || failed=1; done\nexit $failed\n";
    write(fleet, "fan-out", &format!("pids=\n{start}{wait}"));
    let mut command = Command::new("sh");
    command.arg("fan-out");
    command
}

fn oneshot(fleet: &Fleet, port: u16, what: impl Fn(usize) -> String) -> Command {
    let jobs: Vec<_> = (1..=fleet.count).map(|host| (address(host), port, what(host))).collect();
    fs::write(fleet.files.join("jobs"), serde_json::to_string(&jobs).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["oneshot", "jobs"]);
    command
}

/// Where the programs from PyPI are.
fn venv(program: &str) -> PathBuf {
    place().join("venv/bin").join(program)
}

fn ansible(fleet: &Fleet, port: u16, strategy: &str) -> Command {
    let hosts = lines(fleet, |host| format!("h-{host} ansible_host={} dir={}\n", address(host), directory(host)));
    let inventory = format!(
        "[all]\n{hosts}\n[all:vars]\nansible_user={USER}\nansible_port={port}\nansible_ssh_private_key_file={}\n\
         ansible_python_interpreter=/usr/bin/python3\ndigest={}\n",
        fleet.files.join("identity").display(),
        digest()
    );
    let packages = fs::read_dir(place().join("venv/lib")).into_iter().flatten().flatten();
    let mut plugins = packages.map(|python| python.path().join("site-packages/ansible_mitogen/plugins/strategy"));
    let plugins = plugins.find(|dir| dir.exists()).unwrap_or_default();
    let config = format!(
        "[defaults]\nforks = {}\nhost_key_checking = True\nretry_files_enabled = False\ninterpreter_python = /usr/bin/python3\n\
         strategy_plugins = {}\nlocal_tmp = {files}/tmp\ntimeout = 60\n\n[ssh_connection]\npipelining = True\n\
         ssh_args = -F /dev/null -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={files}/known_hosts \
         -o IdentitiesOnly=yes\ncontrol_path_dir = {files}/c\n",
        fleet.count,
        plugins.display(),
        files = fleet.files.display()
    );
    write(fleet, "hosts.ini", &inventory);
    write(fleet, "ansible.cfg", &config);
    write(fleet, "ansible.yml", include_str!("ansible.yml"));
    let mut command = Command::new(venv("ansible-playbook"));
    command.args(["-i", "hosts.ini", "ansible.yml"]);
    command.env("ANSIBLE_CONFIG", fleet.files.join("ansible.cfg")).env("ANSIBLE_NOCOLOR", "1");
    command.env("ANSIBLE_STRATEGY", strategy).env("BENCH_TOKEN", fleet.files.join("token"));
    // Mitogen is on its way to it: its own Python must be the first one.
    let path = format!("{}:{}", place().join("venv/bin").display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path);
    command
}

fn pyinfra(fleet: &Fleet, port: u16) -> Command {
    let hosts = lines(fleet, |host| {
        let data = format!("\"ssh_hostname\": \"{}\", \"dir\": \"{}\"", address(host), directory(host));
        format!("    (\"h-{host}\", {{{data}}}),\n")
    });
    let shared = format!(
        "{{\"ssh_user\": \"{USER}\", \"ssh_port\": {port}, \"ssh_key\": \"identity\", \"digest\": \"{}\", \
         \"ssh_known_hosts_file\": \"known_hosts\", \"ssh_strict_host_key_checking\": \"yes\"}}",
        digest()
    );
    write(fleet, "inventory.py", &format!("fleet = ([\n{hosts}], {shared})\n"));
    write(fleet, "deploy.py", include_str!("pyinfra_deploy.py"));
    let mut command = Command::new(venv("pyinfra"));
    command.args(["-y", "--no-wait", "--parallel", &fleet.count.to_string(), "inventory.py", "deploy.py"]);
    command
}

fn write(fleet: &Fleet, name: &str, text: &str) {
    fs::write(fleet.files.join(name), text).unwrap();
}
