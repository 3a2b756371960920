#!/bin/sh
# Process 1 of the fleet: one real sshd, one login that may sudo, many host directories, each with a toy runner.
#
# It runs in mount, process and host-name namespaces of its own, in a network that has only loopback. When its standard
# input ends it goes, and the kernel ends everything it started and takes the mounts away.
#
# Arguments: the fleet's files, a directory on a disk (empty), the control group, the number of hosts.
# Prints its outer process id, then "ready".
set -eu
files=$1 disk=$2 group=$3 count=$4

# /proc still shows the outer namespace here.
read -r outer_pid _ </proc/self/stat
echo 0 >"$group/cgroup.procs"
echo "$outer_pid"
exec 3<&0 </dev/null
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022
mount -t proc proc /proc

# Private copies in memory; but what a rotation writes lies on the disk, so that a sync costs what it costs.
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/files /mnt/disk
cp -R "$files/." /mnt/files
mount --bind "$disk" /mnt/disk
for dir in etc usr/local; do
    mkdir -p "/mnt/$dir/upper" "/mnt/$dir/work"
    chmod --reference="/$dir" "/mnt/$dir/upper"
    mount -t overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir/upper,workdir=/mnt/$dir/work" overlay "/$dir"
done
for dir in home root run tmp var/log; do
    mount -t tmpfs -o mode=0755 tmpfs "/$dir"
done
chmod 1777 /tmp
chmod 700 /root
mkdir -p /etc/cron.d
for dir in srv var/lib etc/cron.d; do
    mkdir -p "/mnt/disk/$dir"
    mount --bind "/mnt/disk/$dir" "/$dir"
done

tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
hostname fleet
cat >/etc/passwd <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
sshd:x:110:65534::/run/sshd:/usr/sbin/nologin
runner:x:1000:1000::/nonexistent:/bin/sh
bench-ops:x:4200:4200::/home/bench-ops:/bin/sh
PASSWD
cat >/etc/group <<'GROUP'
root:x:0:
tty:x:5:
nogroup:x:65534:
runner:x:1000:
bench-ops:x:4200:
GROUP
for user in root nobody sshd runner bench-ops; do
    echo "$user:*:19000:0:99999:7:::"
done >/etc/shadow
chmod 640 /etc/shadow
rm -f /etc/gshadow /etc/nologin
printf '%s: files\n' passwd group shadow hosts >/etc/nsswitch.conf
printf '127.0.0.1 localhost fleet\n' >/etc/hosts
rm -rf /etc/sudoers.d
cat >/etc/sudoers <<'SUDOERS'
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
Defaults env_keep += "KS_MACHINE_FILE"
bench-ops ALL=(ALL:ALL) NOPASSWD: ALL
SUDOERS
chmod 440 /etc/sudoers

mkdir -m 755 /home/bench-ops
mkdir -m 700 /home/bench-ops/.ssh
cp /mnt/files/authorized_keys /home/bench-ops/.ssh/
chmod 600 /home/bench-ops/.ssh/authorized_keys
chown -R bench-ops:bench-ops /home/bench-ops

# A host without systemd starts keyswap's guard from cron after a reboot; that there is a cron is all that it looks for.
printf '#!/bin/sh\n' >/usr/local/sbin/cron
cp /mnt/files/toyctl /usr/local/sbin/toyctl
chmod 755 /usr/local/sbin/cron /usr/local/sbin/toyctl

# One directory a host: the runner's data, its env file, what lives while it runs, the operator's backups.
at=1
while [ "$at" -le "$count" ]; do
    dir=/srv/bench/$at
    mkdir -p "$dir/data" "$dir/run"
    mkdir -m 700 "$dir/backups"
    cp /mnt/files/old-token "$dir/data/infisical-token-auth-token"
    cp /mnt/files/shared-token "$dir/data/shared-token"
    chmod 600 "$dir/data/infisical-token-auth-token" "$dir/data/shared-token"
    chown -R runner:runner "$dir/data"
    chown runner:runner "$dir/run"
    sed "s|@DIR@|$dir|" /mnt/files/runner.env >"$dir/runner.env"
    tr -d - </proc/sys/kernel/random/uuid >"$dir/machine-id"
    toyctl restart "$dir"
    at=$((at + 1))
done

mkdir -m 755 /run/sshd
rm -rf /etc/ssh/sshd_config.d
cp /mnt/files/host_key /etc/ssh/host_key
chmod 600 /etc/ssh/host_key
cat >/etc/ssh/sshd_config <<'CONFIG'
Port 22
ListenAddress 0.0.0.0
HostKey /etc/ssh/host_key
PidFile /run/sshd.pid
AuthorizedKeysFile .ssh/authorized_keys
MaxStartups 5000
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
Subsystem sftp internal-sftp
CONFIG
# Each address is a machine of its own: keyswap works on names of one machine one after the other.
at=1
while [ "$at" -le "$count" ]; do
    printf 'Match LocalAddress 127.1.%s.%s\n    SetEnv KS_MACHINE_FILE=/srv/bench/%s/machine-id\n' \
        "$((at / 250))" "$((at % 250 + 1))" "$at"
    at=$((at + 1))
done >/mnt/machines
# Where sshd knows the option (9.8 and later) a failed login must not make the others wait.
cp /etc/ssh/sshd_config /mnt/sshd_config
echo 'PerSourcePenalties no' >>/etc/ssh/sshd_config
cat /mnt/machines >>/etc/ssh/sshd_config
sshd=$(command -v sshd)
"$sshd" -t -f /etc/ssh/sshd_config 2>/dev/null || cat /mnt/sshd_config /mnt/machines >/etc/ssh/sshd_config
"$sshd" -D -E /var/log/sshd.log -f /etc/ssh/sshd_config 3<&- &
daemon=$!
until grep -qs 'Server listening' /var/log/sshd.log; do
    if ! kill -0 "$daemon" 2>/dev/null; then
        echo "sshd did not start: $(cat /var/log/sshd.log)"
        exit 1
    fi
    sleep 0.01
done
sync
echo ready

# Waiting for one child takes leave of all others that end meanwhile, as a process 1 must.
cat <&3 >/dev/null &
wait $! || :
