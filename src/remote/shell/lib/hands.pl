# hands.pl - the programs that the library uses most, in one process: a call costs far less than the start of one.
#
# Started by hands.sh where the host has Perl (Debian and Ubuntu always do); without it the programs themselves do the work.
# It knows of each program just what the library asks of it, and says `2` to everything else: then the program is started
# after all. So it hardly ever has to explain a failure. It also reads what a shell would read byte by byte.
#
# In:  words that each end in a zero: who asks (PROCESS-REQUEST), how many words follow, the words.
# Out: a line `WHO STATUS MORE .TEXT.` and MORE further lines. STATUS 0: done, 1: it failed or is not there, 2: not by me.
# Nothing that it has read can bring a line of its own into an answer: a runner could forge the next one.
# A name counts as where the asking process is (its working directory, its descriptors). The Perl of perl-base is
# enough, but for SHA-256; no single quote may stand in this file. No module is loaded for a few names: that takes longer
# than all the work of a request. Nor is one, or anything else, looked for in a directory of a runner.
use strict;

$| = 1;
$/ = "\0";
# Older ones look for modules also in the directory where they are.
@INC = grep { m{^/} } @INC;
# Whoever ignores the ends of children would not hear of them.
$SIG{CHLD} = "DEFAULT";
# What has another number on each machine: system calls that Perl has no name for, and O_NOFOLLOW. By the machine for which
# this very Perl was made (the header of its file).
my ($ENOENT, $ENOTDIR, $ENODATA) = (2, 20, 61);
my ($O_NOCTTY, $O_NONBLOCK) = (0400, 04000);
my ($FSYNC, $STATFS, $LGETXATTR, $SETSID, $CLOCK_GETTIME, $O_NOFOLLOW, $IOCTL, $CLOSE, $SYNC_FILE_RANGE, $REMOVEXATTR) = machine();
my ($PIDFD_OPEN, $PIDFD_GET_INFO) = (434, 0xc040ff0b);

sub machine {
  my %known = (62 => [74, 137, 192, 112, 228, 0400000, 16, 3, 277, 197], 183 => [82, 43, 9, 157, 113, 0100000, 29, 57, 84, 14]);
  open(my $self, "<", "/proc/self/exe") or exit 1;
  # 64 bits, little-endian; at 18 the machine
  read($self, my $head, 20);
  $head =~ /^\x7fELF\x02\x01.{14}/s or exit 1;
  my $numbers = $known{ unpack("x18 v", $head) } or exit 1;
  return @$numbers;
}

my ($state, $umask) = @ARGV;
my ($who, $asker, $held);
my ($mounts_for, @mounts) = ("");

# The requests of the controller, where we are the hands of the shell that reads them. Under another number than the one that
# we were given it is nobody`s but ours: whoever we start does not get it.
my ($channel, $given);
if (open($channel, "<&", 3)) { open($given, "<&=", 3) && close $given } else { $channel = undef }

# The pipe on which we are asked is ours; who asks opens it by our number, and only then we let go of its other end.
pipe(my $in, my $theirs) or exit 1;
print "hands $$ ", fileno($theirs), "\n";

sub at { my ($path) = @_; $path =~ s{^/proc/self/}{/proc/$asker/}; return $path }
sub plain { my ($path, $more) = @_; sysopen(my $file, $path, $O_NONBLOCK | $O_NOCTTY | ($more // 0)) or return; return $file }

# All that is left to read of a file, if it is no more than 1 MiB: nothing that is looked at here is larger, and who may write to
# a file could make it grow while it is read.
sub rest {
  my ($file) = @_;
  my $text = "";
  while (sysread($file, $text, 1 << 16, length $text) // return) { length $text <= 1 << 20 or return }
  return $text;
}

# SHA-256 of a text. What Digest::SHA is written in C for is enough: to load all of it takes longer than all digests of a
# session. The loader finds that by the name of the file that asks for it.
sub digest {
  my ($text) = @_;
  if (!defined &Digest::SHA::sha256_hex) {
    my ($dir) = grep { -f "$_/Digest/SHA.pm" } @INC;
    return if !defined $dir || $dir =~ /["\\\n]/;
    eval "require XSLoader; package Digest::SHA;\n#line 1 \"$dir/Digest/SHA.pm\"\nXSLoader::load()" if -f "$dir/auto/Digest/SHA/SHA.so";
    defined &Digest::SHA::sha256_hex or eval { require Digest::SHA } or return;
  }
  return Digest::SHA::sha256_hex($text);
}

# The content of a small plain file on a file system of the system itself: what a runner mounts may never answer, and what it
# blows up may never end. Of anything else the program may say it, under its time limit.
sub small {
  my ($path) = @_;
  my ($device) = stat($path) or return;
  -f _ && grep { my ($own) = stat($_); defined $own && $own == $device } "/", $state or return;
  my $file = plain($path) or return;
  return -f $file ? rest($file) : undef;
}

# Name, state, parent and so on of a process.
sub process {
  my ($pid) = @_;
  sysopen(my $file, "/proc/$pid/stat", 0) or return;
  sysread($file, my $text, 4096) or return;
  my ($name, $facts) = $text =~ /^\d+ \((.*)\) (.*)/s or return;
  return ($name, split / /, $facts);
}

# The parent of a process. Newer kernels say it without writing down all else that they know of it.
sub parent {
  my ($pid) = @_;
  my ($file, $info) = (syscall($PIDFD_OPEN, $pid + 0, 0), "\0" x 64);
  return if $file < 0;
  my $told = syscall($IOCTL, $file, $PIDFD_GET_INFO, $info);
  syscall($CLOSE, $file);
  return $told == 0 ? unpack("x24 L", $info) : undef;
}

# Seconds since the boot.
sub now {
  my $time = "\0" x 16;
  # CLOCK_BOOTTIME
  syscall($CLOCK_GETTIME, 7, $time) == 0 or die;
  my ($seconds, $nanoseconds) = unpack("q q", $time);
  return $seconds + $nanoseconds / 1e9;
}

# Has something done by a process that is nobody`s child and has nothing of ours.
sub apart {
  my ($work) = @_;
  defined(my $child = fork) or return 0;
  if (!$child) {
    # Who cannot fork must not do it as a child: it would be waited for.
    my $next = fork;
    exit(defined $next ? 0 : 1) if $next || !defined $next;
    close $in;
    close $channel if $channel;
    open(STDIN, "<", "/dev/null") && open(STDOUT, ">", "/dev/null") and $work->();
    exit 0;
  }
  waitpid($child, 0);
  return $? == 0;
}

# Before a program is started that is not ours: the umask and the signals are as they were before us.
sub ours_no_more {
  umask oct $umask;
  @SIG{"PIPE", "HUP"} = ("DEFAULT", "DEFAULT");
}

# Waits for as long as the guard has nothing to do, and then becomes the library, which does it: a process that sleeps
# needs none.
sub watch {
  my ($boot, $tell) = @_;
  my (undef, @facts) = process($$);
  my $watching = sub {
    open(my $file, ">", "$state/watcher") or return;
    return print({$file} $_[0]) && close $file;
  };
  my $ending;
  $watching->("$$ $facts[19]\n") or return;
  syswrite($tell, "1");
  close $tell;
  while (1) {
    opendir(my $dir, "$state/cas") or return;
    my @names = grep { /^[0-9]/ } readdir $dir;
    my (undef, undef, $phase, undef, undef, $since, $until) = split /[.]/, @names == 1 ? $names[0] : "";
    # A directory that is read while a rename is under way may show none or both.
    my $rest = 0.05;
    if (defined $until) {
      # What is settled has no start at boot that would have to be taken away, but for this place. Whoever takes the host from
      # here on finds no watcher; whoever took it before may rely on this one.
      if ($phase =~ /^(idle|old|new)$/ && $state !~ m{^/var/lib/}) {
        return if $ending;
        $watching->("");
        $ending = 1;
        next;
      }
      if ($ending) { $watching->("$$ $facts[19]\n"); $ending = undef }
      last if $phase ne "armed" || $since ne $boot;
      open(my $file, "<", "/proc/uptime") or last;
      my ($up) = <$file> =~ /^(\d+[.]\d+)/;
      # Without a lease only a reboot is a reason.
      $rest = $until ? $until / 100 - $up : 5;
      last if $rest <= 0;
    }
    closedir $dir;
    select(undef, undef, undef, $rest < 5 ? $rest : 5);
  }
  ours_no_more();
  exec "/bin/sh", "$state/guard.sh";
}

# What is mounted where, and how: read once for each request.
sub mounts {
  return @mounts if $mounts_for eq $who;
  open(my $file, "<", "/proc/self/mountinfo") or return;
  local $/ = "\n";
  $mounts_for = $who;
  return @mounts = map { [(split / /)[4, 5]] } <$file>;
}

sub statfs {
  my ($path) = @_;
  my $room = "\0" x 256;
  return if syscall($STATFS, $path, $room) != 0;
  my ($type, $bsize, $blocks, $bfree, $bavail, $files, $ffree, $id0, $id1, $namelen, $frsize) = unpack("q q Q Q Q Q Q L L q q", $room);
  return {
    a => $bavail, f => $bfree, S => $frsize || $bsize, d => $ffree, c => $files,
    i => sprintf("%x", $id1 | ($id0 << 32)),
  };
}

# What `stat -c` calls the facts of a file.
sub facts {
  my (@s) = @_;
  return (
    f => sprintf("%x", $s[2]), a => sprintf("%o", $s[2] & 07777), s => $s[7], u => $s[4], g => $s[5], h => $s[3],
    d => $s[0], i => $s[1], Y => $s[9],
  );
}

my %do = (
  stat => sub {
    my ($follow, $system, $format);
    while (@_ && $_[0] =~ /^-/) {
      my $word = shift;
      if ($word eq "-L") { $follow = 1 } elsif ($word eq "-f") { $system = 1 } elsif ($word eq "-c") { $format = shift }
      elsif ($word eq "--") { last } else { return 2 }
    }
    return 2 if !defined $format || !@_;
    my @lines;
    for my $name (@_) {
      my %of;
      if ($system) {
        my $facts = statfs(at($name)) or return 2;
        %of = %$facts;
      } else {
        # What a descriptor is, not the link by which the kernel shows it.
        my @s = $follow ? stat(at($name)) : lstat(at($name));
        if (!@s) { return $! == $ENOENT || $! == $ENOTDIR ? (1, @lines) : 2 }
        %of = facts(@s);
      }
      return 2 if grep { !exists $of{$_} } $format =~ /%(.)/g;
      push @lines, $format =~ s/%(.)/$of{$1}/gr;
    }
    return (0, @lines);
  },
  # Opens a plain file of the directory without waiting for anybody, and keeps it open as `hold` does: our descriptor, the
  # facts of just this file, its SHA-256 and its fingerprint (`-` where it is too large, or that cannot be told).
  content => sub {
    my ($format, $name) = @_;
    my @named = lstat($name) or return $! == $ENOENT ? 1 : 2;
    -f _ && ($held = plain($name, $O_NOFOLLOW)) or return 2;
    my @s = stat($held);
    "@s[0, 1]" eq "@named[0, 1]" && -f _ or return 2;
    my ($sum, $print, %of) = ("-", "-", facts(@s));
    if ($s[7] <= 1 << 20) {
      my $text = rest($held) // return 2;
      $sum = digest($text) // return 2;
      $print = $text =~ s/\r?\n\z// ? digest($text) : $sum;
    }
    return (0, fileno($held) . " $sum $print " . $format =~ s/%(.)/$of{$1}/gr);
  },
  sync => sub {
    return 2 if !@_ || grep { /^-/ } @_;
    my @files = map { plain(at($_)) // return 2 } @_;
    # Begun with all of them at once (SYNC_FILE_RANGE_WRITE), so that the journal of the file system is written once and not for
    # each. What goes wrong there is told below.
    if (@files > 1) { syscall($SYNC_FILE_RANGE, fileno $_, 0, 0, 2) for @files }
    # The kernel tells a disk error once: whoever asked again would hear that all is well.
    for my $file (@files) { syscall($FSYNC, fileno $file) == 0 or return 1 }
    return 0;
  },
  mv => sub {
    my $flags = $_[0] =~ /^-([fT]+)$/ ? shift() && $1 : "";
    return 2 if @_ != 2 || grep { /^-/ } @_;
    my ($from, $to) = @_;
    # Into a directory it would be moved, not over it.
    return 2 if $flags !~ /T/ && -d $to;
    return rename($from, $to) ? 0 : 2;
  },
  ln => sub { return @_ == 3 && $_[0] =~ /^-f?T$/ && link($_[1], $_[2]) ? 0 : 2 },
  rm => sub {
    return 2 if shift() ne "-f";
    shift if @_ && $_[0] eq "--";
    for my $name (@_) {
      return 2 if $name =~ /^-/;
      if (!lstat($name)) { next if $! == $ENOENT || $! == $ENOTDIR; return 2 }
      return 2 if -d _;
      unlink($name) or return 2;
    }
    return 0;
  },
  mkdir => sub {
    my ($mode, $parents);
    while (@_ && $_[0] =~ /^-/) {
      my $word = shift;
      if ($word eq "-p") { $parents = 1 } elsif ($word eq "-m") { $mode = oct shift } else { return 2 }
    }
    return 2 if defined $mode && $parents;
    for my $name (@_) {
      if ($parents) {
        my $part = "";
        for my $piece ($name =~ m{/*[^/]+}g) {
          $part .= $piece;
          mkdir($part) or -d $part or return 2;
        }
      } else {
        mkdir($name) or return 2;
        !defined $mode or chmod($mode, $name) or return 2;
      }
    }
    return 0;
  },
  # Standard input, all or so many bytes of it, into the new file that is standard output.
  copy => sub {
    my ($left) = @_;
    sysopen(my $from, "/proc/$asker/fd/7", 0) && sysopen(my $to, "/proc/$asker/fd/1", 1) or return 2;
    -f $to && -z _ or return 2;
    while (!defined $left || $left > 0) {
      my $got = sysread($from, my $text, defined $left && $left < 1 << 16 ? $left : 1 << 16) // return 1;
      $got or last;
      my $at = 0;
      while ($at < $got) { $at += syswrite($to, $text, $got - $at, $at) // return 1 }
      $left -= $got if defined $left;
    }
    return 0;
  },
  # The guard of the host, in a session of its own. It is there when this returns.
  watch => sub {
    my ($boot) = @_;
    pipe(my $told, my $tell) or return 2;
    apart(sub { close $told; syscall($SETSID); watch($boot, $tell) }) or return 2;
    close $tell;
    return sysread($told, my $word, 1) ? 0 : 2;
  },
  # An operator`s command line under a time limit, as `timeout -k 5`: its status, and the first 8 KiB of what it says. A daemon
  # that keeps the output open is not waited for, and can go on writing.
  run => sub {
    my ($limit, $script) = @_;
    pipe(my $from, my $to) or return 2;
    defined(my $child = fork) or return 2;
    if (!$child) {
      setpgrp(0, 0);
      ours_no_more();
      open(STDIN, "<", "/dev/null") && open(STDOUT, ">&", $to) && open(STDERR, ">&", $to) and exec "sh", "-c", $script;
      exit 126;
    }
    close $to;
    my ($text, $open, $ended, $late, $end, $pause) = ("", 1, undef, undef, now() + $limit, 0.001);
    until (defined $ended && (!$open || now() >= $end)) {
      my $bits = "";
      vec($bits, fileno $from, 1) = 1 if $open;
      if (select($bits, undef, undef, $open ? 0.1 : $pause) > 0) {
        my $got = sysread($from, my $piece, 1 << 16);
        $open = 0 if !$got;
        $text .= substr($piece, 0, (8 << 10) - length $text) if $got;
      }
      $pause *= 2 if !$open && $pause < 0.1;
      if (!defined $ended && waitpid($child, 1) == $child) {
        $ended = $? & 127 ? 128 + ($? & 127) : $? >> 8;
        # What it said last may still be on its way.
        $end = now() + 0.3;
      } elsif (!defined $ended && now() >= $end) {
        kill defined $late ? "KILL" : "TERM", -$child;
        kill "CONT", -$child;
        ($late, $end) = (defined $late ? 137 : 124, now() + 5);
      }
    }
    apart(sub { while (sysread($from, $text, 1 << 16)) {} }) if $open;
    $text =~ tr/\0//d;
    return (0, $late // $ended, split /\n/, $text);
  },
  chmod => sub { return @_ == 2 && $_[0] =~ /^[0-7]+$/ && chmod(oct $_[0], at($_[1])) ? 0 : 2 },
  chown => sub { return @_ == 2 && $_[0] =~ /^(\d+):(\d+)$/ && chown($1, $2, at($_[1])) ? 0 : 2 },
  readlink => sub {
    my $to = @_ == 1 && $_[0] !~ /^-/ ? readlink(at($_[0])) : undef;
    return defined $to && $to !~ /\n/ ? (0, $to) : 2;
  },
  # Only whether there is an access list is asked.
  ls => sub {
    return 2 if @_ != 3 || $_[0] ne "-ldn";
    my ($room, $name, $path) = ("\0" x 64, "system.posix_acl_access", $_[2]);
    my $size = syscall($LGETXATTR, $path, $name, $room, 0);
    return (0, $size > 0 ? "-+" : "-") if $size >= 0 || $! == $ENODATA;
    return 2;
  },
  lsattr => sub {
    return 2 if shift() ne "-d";
    my @lines;
    for my $path (@_) {
      lstat($path) && (-f _ || -d _) or return 2;
      my $file = plain($path, $O_NOFOLLOW) or return 2;
      my $flags = pack("l!", 0);
      # FS_IOC_GETFLAGS
      defined ioctl($file, 0x80086601, $flags) or return 2;
      $flags = unpack("l!", $flags);
      push @lines, "-" . ($flags & 0x10 ? "i" : "-") . ($flags & 0x20 ? "a" : "-") . " $path";
    }
    return (0, @lines);
  },
  sha256sum => sub {
    my $check = @_ == 1 && $_[0] eq "-c" ? shift : undef;
    return 2 if @_ || !defined digest("");
    open(my $file, "<", "/proc/$asker/fd/7") or return 2;
    # What came through a pipe is gone; a file the program reads once more.
    my $text = rest($file) // return -f $file ? 2 : 1;
    return (0, digest($text) . "  -") if !$check;
    for my $line (split /\n/, $text) {
      my ($want, $name) = $line =~ /^([0-9a-f]{64})  (.+)$/ or return 2;
      open(my $one, "<", $name) or return 2;
      digest(rest($one) // return 1) eq $want or return 1;
    }
    return 0;
  },
  # SHA-256 of a text.
  digest => sub {
    my $sum = digest($_[0]) // return 2;
    return (0, $sum);
  },
  # Now, in the unit of process start times: by the clock that they are taken from, which nothing shows differently.
  ticks => sub {
    return (0, int(now() * 100));
  },
  # SHA-256 of a file as another process sees it.
  sight => sub {
    my $sum = digest(small($_[0]) // return 2) // return 2;
    return (0, $sum);
  },
  # The first line of a small file in a directory that a runner may own.
  line => sub {
    my $text = small($_[0]) // return 2;
    return (0, $text =~ /\A([^\n]{0,64})/);
  },
  # A variable of a process, line ends in it as \001.
  environ => sub {
    open(my $file, "<", "/proc/$_[0]/environ") or return 1;
    my $value;
    while (my $line = <$file>) { chomp $line; $value = $1 if $line =~ /^\Q$_[1]\E=(.*)\z/s }
    defined $value or return 1;
    $value =~ tr/\n/\001/;
    return (0, $value);
  },
  # What a process acts as: user, capabilities, groups.
  credentials => sub {
    open(my $file, "<", "/proc/$_[0]/status") or return 1;
    my %of = rest($file) =~ /^(\w+):[ \t]*(.*?)[ \t]*$/mg;
    my ($user, $group) = map { (split /\t/, $of{$_} // "")[1] } "Uid", "Gid";
    return defined $user && defined $of{CapEff} ? (0, "$user $of{CapEff} $group $of{Groups}") : 1;
  },
  # Takes its access list from a file.
  bare => sub {
    my ($path, $name) = (at($_[0]), "system.posix_acl_access");
    return syscall($REMOVEXATTR, $path, $name) == 0 || $! == $ENODATA ? 0 : 2;
  },
  # A process: its state, parent, session and start.
  process => sub {
    my (undef, @facts) = $_[0] =~ /^[0-9]+$/ ? process($_[0]) : ();
    return @facts >= 20 ? (0, "@facts[0, 1, 3, 19]") : 1;
  },
  # What a directory is mounted with, and where that mount is.
  mount => sub {
    my ($best, $how) = ("", "");
    for my $mount (mounts()) {
      ($best, $how) = @$mount if index("$_[0]/", $mount->[0] =~ s{/\z}{}r . "/") == 0 && length $mount->[0] >= length $best;
    }
    return (0, "$how $best");
  },
  # Whether something is mounted exactly there.
  mounted => sub { return (grep { $_->[0] eq $_[0] } mounts()) ? 0 : 1 },
  # A process and all below it that live: `PID PARENT NAME`. There may be thousands: of most of them just the parent is wanted.
  processes => sub {
    opendir(my $proc, "/proc") or return 2;
    my ($file, $text, %below, %seen, @lines);
    my $told = (parent($$) // -1) == getppid;
    for my $pid (grep { /^[0-9]/ } readdir $proc) {
      my $above = $told ? parent($pid)
        : sysopen($file, "/proc/$pid/stat", 0) && sysread($file, $text, 4096) && $text =~ /.*\) . (\d+)/s ? $1 : undef;
      push @{ $below{$above} }, $pid if defined $above;
    }
    my @todo = ($_[0]);
    while (@todo) {
      my $pid = shift @todo;
      next if $seen{$pid}++;
      my ($name, $state, $parent) = process($pid) or next;
      $name = "unnamed" if $name !~ /^[A-Za-z0-9_.:-]+$/;
      push @lines, "$pid $parent $name" if $state ne "Z";
      push @todo, @{ $below{$pid} // [] };
    }
    return (0, @lines);
  },
  # The data of a request, so many bytes of them, in a pipe that is kept as `hold` keeps a file. It takes a page without a reader.
  take => sub {
    my ($length) = @_;
    $channel && $length <= 4096 or return 2;
    pipe(my $from, my $to) or return 2;
    my $text = "";
    while (length $text < $length) { sysread($channel, $text, $length - length $text, length $text) or return 1 }
    syswrite($to, $text) == $length or return 1;
    $held = $from;
    return (0, fileno $held);
  },
  # Keeps a plain file open, so that it can be looked at and opened by our descriptor.
  hold => sub {
    $held = plain($_[0], $O_NOFOLLOW) or return 1;
    return -f $held ? (0, fileno $held) : 1;
  },
  drop => sub { $held = undef; return 0 },
);

sub word { my $word = <$in>; exit 0 unless defined $word; chomp $word; return $word }

while (1) {
  $who = word();
  if (defined $theirs) { close $theirs; $theirs = undef }
  my @words = map { word() } 1 .. word();
  ($asker) = $who =~ /^(\d+)-/ or exit 1;
  my $act = $do{ shift @words };
  my ($status, @lines) = chdir("/proc/$asker/cwd") && $act ? $act->(@words) : 2;
  # No directory is kept busy by somebody who waits.
  chdir("/");
  @lines = () if $status == 2;
  tr/\n/\001/ for @lines;
  my $first = @lines ? shift @lines : "";
  print join("\n", "$who $status " . scalar(@lines) . " .$first.", @lines), "\n";
}
