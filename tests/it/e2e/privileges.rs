//! Whole rotations, one that goes back and one that goes forward, with the rights and the shells that operators give.

use keyswap::sandbox::forge::Ending;

use crate::support::real_host::RealHost;
use crate::support::runner_host::{LIVE, Playbook, RunnerHost, TOKEN_FILE, short, whole};

/// How a host lets us in and at root.
struct Setting {
    what: &'static str,
    /// The login shell of `ops`.
    shell: &'static str,
    /// What is done to the host first, as root.
    prepare: &'static str,
    /// What in the inventory takes another's place.
    inventory: &'static [(&'static str, &'static str)],
    /// Who changes things there.
    uid: &'static str,
}

const LEAST: &str =
    "rm -f /etc/sudoers.d/*; echo 'ops ALL=(root) NOPASSWD: /bin/sh' >/etc/sudoers.d/ops; chmod 440 /etc/sudoers.d/ops";

const SETTINGS: &[Setting] = &[
    Setting { what: "the least sudoers rule", shell: "/bin/sh", prepare: LEAST, inventory: &[], uid: "0" },
    Setting {
        what: "doas",
        shell: "/bin/sh",
        prepare: "rm -f /etc/sudoers.d/*; echo 'permit nopass ops as root cmd sh' >/etc/doas.conf; chmod 600 /etc/doas.conf",
        inventory: &[("become = \"sudo\"", "become = \"doas\"")],
        uid: "0",
    },
    Setting {
        what: "nothing but busybox",
        shell: "/usr/local/bb/ash",
        prepare: "mkdir /usr/local/bb; cp \"$(readlink -f \"$(command -v busybox)\")\" /usr/local/bb/busybox
            for tool in $(/usr/local/bb/busybox --list); do [ $tool = busybox ] || ln -s busybox /usr/local/bb/$tool; done
            rm -f /etc/sudoers.d/*; chmod 755 /usr/local/bb
            printf 'ops ALL=(root) NOPASSWD: /usr/local/bb/sh\\nDefaults secure_path=/usr/local/bb\\n' >/etc/sudoers.d/ops
            chmod 440 /etc/sudoers.d/ops",
        inventory: &[],
        uid: "0",
    },
    Setting {
        what: "nothing can be run in /tmp, /run and /var",
        shell: "/bin/sh",
        prepare: "mount -t tmpfs -o noexec,nosuid,nodev tmpfs /tmp; mount -o remount,noexec,nosuid,nodev /var 2>/dev/null ||
            { mount --bind /var /var && mount -o remount,bind,noexec,nosuid,nodev /var; }
            printf '#!/bin/sh\\n' >/tmp/x; chmod 755 /tmp/x; ! /tmp/x 2>/dev/null || exit 1
            cp /tmp/x /var/x; chmod 755 /var/x; ! /var/x 2>/dev/null || exit 1; rm /tmp/x /var/x",
        inventory: &[],
        uid: "0",
    },
    Setting {
        what: "bash with a talkative .bashrc, for root as well",
        shell: "/bin/bash",
        prepare: "for home in /home/ops /root; do
            printf 'echo welcome; echo H 0 0; echo trouble >&2; set -u; alias mv=false; cd /\\n' >$home/.bashrc; done
            chown ops /home/ops/.bashrc",
        inventory: &[],
        uid: "0",
    },
    Setting {
        what: "no root at all: all of it is the user's own",
        shell: "/bin/sh",
        prepare: "rm -f /etc/sudoers.d/*; mkdir -p /home/runner; cp -R /home/ops/.ssh /home/runner; chown -R runner:runner /home/runner
            chmod 755 /home/runner; chmod 700 /home/runner/.ssh; chown -R 1000:1000 /srv/forgejo-runner",
        inventory: &[("become = \"sudo\"", "become = \"none\""), ("user = \"ops\"", "user = \"runner\"")],
        uid: "1000",
    },
];

#[test]
fn a_rotation_goes_back_and_forward_with_whatever_rights_suffice() {
    for setting in SETTINGS {
        let what = setting.what;
        let host = RunnerHost::on(RealHost::builder().shell(setting.shell));
        host.sh(setting.prepare);
        if setting.uid != "0" {
            // The runner is started by its own user from now on.
            host.control("stop");
            host.sh(&format!(
                "chown -R 1000:1000 {LIVE}; setpriv --reuid=1000 --regid=1000 --clear-groups runnerctl start"
            ));
        }
        let file = host.controller().join("inventory.toml");
        let mut inventory = std::fs::read_to_string(&file).unwrap();
        for (old, new) in setting.inventory {
            assert!(inventory.contains(old), "{what}: {inventory}");
            inventory = inventory.replace(old, new);
        }
        std::fs::write(&file, inventory).unwrap();
        let playbook = Playbook::rotate().before(
            "restart",
            "who",
            "command = { run = \"id -u >/srv/forgejo-runner/who\", undo = \"rm -f /srv/forgejo-runner/who\" }",
        );

        let (before, runner) = (host.picture(), host.runner().unwrap());
        host.publishing_ends_in(Ending::Failure);
        let back = host.rotate(&playbook, &[]);
        assert_eq!(back.code, Some(2), "{what}: {}", back.all());
        assert_eq!(back.host()["status"], "rolled-back", "{what}: {}", back.all());
        // Without root the state lies in the user's home; pictures leave out the usual place alone.
        let mut changed = before.differences(&host.picture());
        changed.retain(|line| !line.starts_with("/home/runner/.local"));
        assert!(changed.is_empty(), "{what}: {changed:?}\n{}", back.all());
        let now = host.runner().unwrap_or_else(|| panic!("{what}: the runner is gone: {}", back.all()));
        assert_eq!((&now.pointer, &now.token, now.uid), (&runner.pointer, &runner.token, 1000), "{what}");
        assert_ne!(now.pid, runner.pid, "{what}: it was restarted");

        host.publishing_ends_in(Ending::Success);
        let forward = host.rotate(&playbook, &[]);
        assert_eq!(forward.code, Some(0), "{what}: {}", forward.all());
        assert_eq!(host.read(TOKEN_FILE), host.new, "{what}");
        assert_eq!(host.runner().unwrap().token, whole(&host.new), "{what}");
        assert_eq!(forward.host()["credentials"][0]["now"], short(&host.new), "{what}");
        assert_eq!(host.read("/srv/forgejo-runner/who").trim(), setting.uid, "{what}");
        println!("{what}: back and forward");
    }
}
