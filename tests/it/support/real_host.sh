#!/bin/sh
# Process 1 of a throw-away host: makes the namespaces it was started in into a machine of its own, starts sshd
# and stays until its standard input ends. When it goes, the kernel ends everything it started.
#
# Arguments: directory with the host's files, port, login shell of `ops`. Prints its outer process id, then "ready".
set -eu
files=$1 port=$2 shell=$3

# /proc still shows the outer namespace here: this is the pid that others can look us up by.
read -r outer_pid _ </proc/self/stat
echo "$outer_pid"
exec 3<&0 </dev/null
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022

mount -t proc proc /proc

# Writable copies of what a host changes, kept in memory and gone with it.
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/files
cp -R "$files/." /mnt/files
for dir in etc var usr/local; do
    mkdir -p "/mnt/$dir/upper" "/mnt/$dir/work"
    chmod --reference="/$dir" "/mnt/$dir/upper"
    mount -t overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir/upper,workdir=/mnt/$dir/work" overlay "/$dir"
done
for dir in home root srv run tmp; do
    mount -t tmpfs -o size=64m,mode=0755 tmpfs "/$dir"
done
chmod 1777 /tmp
chmod 700 /root
rm -rf /var/lib/keyswap

# Machine and boot of its own: keyswap tells machines apart by these.
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
cat /proc/sys/kernel/random/uuid >/mnt/boot_id
mount --bind /mnt/boot_id /proc/sys/kernel/random/boot_id
hostname "real-$port"

cat >/etc/passwd <<PASSWD
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
sshd:x:110:65534::/run/sshd:/usr/sbin/nologin
runner:x:1000:1000::/home/runner:/bin/sh
ops:x:4200:4200::/home/ops:$shell
PASSWD
cat >/etc/group <<'GROUP'
root:x:0:
daemon:x:1:
adm:x:4:
tty:x:5:
sudo:x:27:
shadow:x:42:
utmp:x:43:
nogroup:x:65534:
runner:x:1000:
ops:x:4200:
GROUP
for user in root daemon nobody sshd runner ops; do
    echo "$user:*:19000:0:99999:7:::"
done >/etc/shadow
chmod 640 /etc/shadow
rm -f /etc/gshadow /etc/nologin
printf '%s: files\n' passwd group shadow hosts >/etc/nsswitch.conf
printf '127.0.0.1 localhost real-%s\n' "$port" >/etc/hosts

rm -rf /etc/sudoers.d
mkdir -m 750 /etc/sudoers.d
cat >/etc/sudoers <<'SUDOERS'
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
SUDOERS
echo 'ops ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
chmod 440 /etc/sudoers /etc/sudoers.d/ops

for user in ops runner; do
    mkdir -m 750 "/home/$user"
    chown "$user:$user" "/home/$user"
done
for home in root home/ops; do
    mkdir -m 700 "/$home/.ssh"
    cp /mnt/files/authorized_keys "/$home/.ssh/authorized_keys"
    chmod 600 "/$home/.ssh/authorized_keys"
done
chown -R ops:ops /home/ops/.ssh

mkdir -m 755 /run/sshd
rm -rf /etc/ssh/sshd_config.d
cp /mnt/files/host_key /etc/ssh/host_key
chmod 600 /etc/ssh/host_key
{
    # First, since sshd takes the first value that it meets; but for this one it takes the last.
    cat /mnt/files/sshd_options
    grep -q '^MaxStartups ' /mnt/files/sshd_options || echo 'MaxStartups 200:30:400'
    cat <<CONFIG
Port $port
ListenAddress 127.0.0.1
HostKey /etc/ssh/host_key
PidFile /run/sshd.pid
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
LogLevel VERBOSE
CONFIG
} >/etc/ssh/sshd_config
# OpenSSH 9.8 and later make a source that failed wait; the tests fail on purpose, all from one address.
cp /etc/ssh/sshd_config /mnt/sshd_config
echo 'PerSourcePenalties no' >>/etc/ssh/sshd_config
sshd=$(command -v sshd)
"$sshd" -t -f /etc/ssh/sshd_config 2>/dev/null || cp /mnt/sshd_config /etc/ssh/sshd_config

"$sshd" -D -E /var/log/sshd.log -f /etc/ssh/sshd_config 3<&- &
daemon=$!
until grep -qs 'Server listening' /var/log/sshd.log; do
    if ! kill -0 "$daemon" 2>/dev/null; then
        echo "sshd did not start: $(cat /var/log/sshd.log)"
        exit 1
    fi
    sleep 0.01
done
echo ready

# Waiting for one child takes leave of all others that end meanwhile, as a process 1 must.
cat <&3 >/dev/null &
wait $! || :
