//! Which programs of a host keyswap uses, what for, and which packages bring them.

use crate::remote::HostFacts;

/// A program that is not there.
pub(super) struct Lack {
    pub(super) tool: &'static str,
    /// What does not work without it; empty where nothing works.
    pub(super) without: &'static str,
    /// The command that installs it.
    pub(super) install: String,
}

/// What a host lacks, by how much it matters.
pub(super) struct Lacks {
    /// keyswap refuses the host.
    pub(super) needed: Vec<Lack>,
    /// Only runners in containers need it.
    pub(super) docker: Vec<Lack>,
    /// Something is done less well.
    pub(super) nice: Vec<Lack>,
}

/// The packages that bring a program: for apt, apk, dnf, zypper and pacman.
type Packages = [&'static str; 5];

const COREUTILS: Packages = ["coreutils"; 5];
const FINDUTILS: Packages = ["findutils"; 5];

/// What the library on a host calls, whatever a step does; `ks_hello` asks for the same. All of it is in busybox, too.
const NEEDED: &[(&str, Packages)] = &[
    ("sha256sum", COREUTILS),
    ("stat", COREUTILS),
    ("mktemp", COREUTILS),
    ("sync", COREUTILS),
    ("mv", COREUTILS),
    ("dd", COREUTILS),
    ("timeout", COREUTILS),
    ("readlink", COREUTILS),
    ("chown", COREUTILS),
    ("chmod", COREUTILS),
    ("cat", COREUTILS),
    ("tail", COREUTILS),
    ("tr", COREUTILS),
    ("ln", COREUTILS),
    ("df", COREUTILS),
    ("od", COREUTILS),
    ("id", COREUTILS),
    ("rm", COREUTILS),
    ("mkdir", COREUTILS),
    ("rmdir", COREUTILS),
    ("ls", COREUTILS),
    ("date", COREUTILS),
    ("sleep", COREUTILS),
    ("grep", ["grep"; 5]),
];

/// What only runners in containers need.
const DOCKER: &[(&str, Packages, &str)] = &[
    (
        "docker",
        ["docker.io", "docker-cli", "moby-engine", "docker", "docker"],
        "no restart of a container, and no waiting for its jobs",
    ),
    (
        "compose",
        ["docker-compose", "docker-cli-compose", "docker-compose", "docker-compose", "docker-compose"],
        "no `restart = { compose = … }`",
    ),
];

/// Without which something is done less well.
const NICE: &[(&str, Packages, &str)] = &[
    ("setsid", ["util-linux"; 5], "no guard"),
    ("cron", ["cron", "cronie", "cronie", "cronie", "cronie"], "no guard after a reboot"),
    (
        "lsattr",
        ["e2fsprogs", "e2fsprogs-extra", "e2fsprogs", "e2fsprogs", "e2fsprogs"],
        "an immutable file shows only when it is written",
    ),
    ("mkfifo", COREUTILS, "what a failing command says is lost"),
    ("setfacl", ["acl"; 5], "without Perl, no file with a mode other than 0600 below a default access list"),
    ("perl", ["perl-base", "perl", "perl-interpreter", "perl-base", "perl"], "every step takes longer"),
    ("find", FINDUTILS, "no `audit --search`"),
    ("head", COREUTILS, "no `audit --search`"),
    ("sort", COREUTILS, "no `audit --search`"),
    ("cut", COREUTILS, "no owners by the name of a group"),
    ("getent", ["libc-bin", "musl-utils", "glibc-common", "glibc", "glibc"], "no owners by the name of a group"),
];

impl Lacks {
    /// What a host that says this of itself lacks.
    pub(super) fn of(facts: &HostFacts) -> Self {
        let has = |tool: &str| facts.have.iter().any(|have| have == tool);
        let lack = |(tool, packages, without): &(&'static str, Packages, &'static str)| Lack {
            tool,
            without,
            install: install(&facts.os, packages),
        };
        let needed = NEEDED.iter().filter(|(tool, _)| facts.missing.iter().any(|missing| missing == tool));
        let needed: Vec<Lack> = needed.map(|(tool, packages)| lack(&(tool, *packages, ""))).collect();
        // podman's docker is one, and so is the compose of old.
        let there = |tool: &str| match tool {
            "docker" => has("docker") || has("podman"),
            "compose" => has("compose") || has("docker-compose"),
            // systemd starts the guard and brings it back, and what cron could do without root is nothing.
            "setsid" => has("setsid") || facts.uid == 0 && has("systemd") && has("systemd-run"),
            // Beside Perl nobody asks for it.
            "setfacl" => has("setfacl") || has("perl"),
            "cron" => facts.uid != 0 || has("systemd") || has("cron") || has("crond"),
            tool => has(tool),
        };
        let absent = |all: &[(&'static str, Packages, &'static str)]| {
            all.iter().filter(|(tool, ..)| !there(tool)).map(lack).collect::<Vec<_>>()
        };
        Self { needed, docker: absent(DOCKER), nice: absent(NICE) }
    }
}

/// How a package is installed on a system with this name.
fn install(os: &str, packages: &Packages) -> String {
    let families: [(&[&str], &str); 5] = [
        (&["Debian", "Ubuntu", "Raspbian", "Mint"], "apt-get install"),
        (&["Alpine"], "apk add"),
        (&["Fedora", "Red Hat", "CentOS", "Rocky", "Alma", "Amazon"], "dnf install"),
        (&["SUSE"], "zypper install"),
        (&["Arch"], "pacman -S"),
    ];
    let known = families.iter().zip(packages).find(|((names, _), _)| names.iter().any(|name| os.contains(name)));
    match known {
        Some(((_, command), package)) => format!("{command} {package}"),
        None => format!("install {}", packages.first().copied().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: [&str; 13] = [
        include_str!("../remote/shell/lib/base.sh"),
        include_str!("../remote/shell/lib/env.sh"),
        include_str!("../remote/shell/lib/file.sh"),
        include_str!("../remote/shell/lib/guard.sh"),
        include_str!("../remote/shell/lib/idle.sh"),
        include_str!("../remote/shell/lib/look.sh"),
        include_str!("../remote/shell/lib/loop.sh"),
        include_str!("../remote/shell/lib/saga.sh"),
        include_str!("../remote/shell/lib/service.sh"),
        include_str!("../remote/shell/lib/state.sh"),
        include_str!("../remote/shell/lib/survey.sh"),
        include_str!("../remote/shell/lib/undo.sh"),
        include_str!("../remote/shell/lib/hands.sh"),
    ];

    /// Programs that a shell library could call, beside those that are shell builtins everywhere.
    const PROGRAMS: &str = "awk basename base64 cat chcon chmod chown cksum cmp comm cp cut date dd df diff dirname du expr find \
        flock fold getent getfacl getfattr grep gzip head id install join ln logger ls lsattr md5sum mkdir mkfifo mktemp mv nice nl \
        nohup nsenter od paste perl pgrep pkill ps readlink realpath rm rmdir sed seq setfacl setfattr setsid sha256sum shuf sleep sort split \
        stat strings stty sync tac tail tar tee timeout touch tr truncate uname uniq wc xargs xxd";

    /// The programs that the library calls: words where a command may stand.
    fn called() -> std::collections::BTreeSet<&'static str> {
        let programs: Vec<&str> = PROGRAMS.split_whitespace().collect();
        let mut called = std::collections::BTreeSet::new();
        for line in LIBRARY.iter().flat_map(|file| file.lines()).filter(|line| !line.trim_start().starts_with('#')) {
            // A message is not a command.
            let line = line.split("ks_die ").next().unwrap_or_default();
            let words: Vec<&str> = line.split([' ', '\t', '(', ')', '`', ';']).collect();
            for (at, word) in words.iter().enumerate() {
                let before = at.checked_sub(1).and_then(|at| words.get(at)).copied().unwrap_or_default();
                let opens = [
                    "", "&&", "||", "|", "then", "do", "else", "if", "!", "{", "$", "exec", "while", "until", "env",
                    "ks_get",
                ];
                // `ks_bounded 15 tail`, `timeout -k 5 10 cmd`
                let bounded = before.parse::<u32>().is_ok() && at > 1;
                if (opens.contains(&before) || before.ends_with("$") || bounded)
                    && let Some(program) = programs.iter().find(|program| *program == word)
                {
                    called.insert(*program);
                }
            }
        }
        called
    }

    #[test]
    fn everything_that_the_library_calls_is_asked_for_and_known() {
        let called = called();
        assert!(called.len() > 20 && called.contains("sha256sum") && called.contains("find"), "{called:?}");
        let optional = ["chcon", "setfattr", "setsid", "lsattr"];
        for program in &called {
            let known = NEEDED.iter().any(|(tool, _)| tool == program) || NICE.iter().any(|(tool, ..)| tool == program);
            assert!(
                known || optional.contains(program),
                "{program} is called, and nobody is told when it is not there"
            );
        }
        // The host asks for the same.
        let look = LIBRARY[5].replace("\\\n", " ");
        let asked = look.split("for tool in ").nth(1).unwrap().split(';').next().unwrap();
        let asked: Vec<&str> = asked.split_whitespace().collect();
        assert_eq!(asked, NEEDED.iter().map(|(tool, _)| *tool).collect::<Vec<_>>());
        let asked = look.split("for tool in ").nth(2).unwrap().split(';').next().unwrap();
        for (tool, ..) in NICE.iter().chain(DOCKER).filter(|(tool, ..)| *tool != "compose") {
            assert!(asked.split_whitespace().any(|asked| asked == *tool), "{tool}");
        }
    }

    #[test]
    fn packages_are_named_as_the_system_names_them() {
        let (_, packages, _) = DOCKER[0];
        let said = ["Debian GNU/Linux 12", "Alpine Linux v3.20", "Fedora Linux 40", "Arch Linux", "Plan 9"]
            .map(|os| install(os, &packages));
        assert_eq!(
            said,
            [
                "apt-get install docker.io",
                "apk add docker-cli",
                "dnf install moby-engine",
                "pacman -S docker",
                "install docker.io"
            ]
        );
    }
}
