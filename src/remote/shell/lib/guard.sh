# shellcheck shell=dash
# guard.sh - the host's own way back: when the controller has been silent for too long, or the host was rebooted in mid-run, the
# host undoes the run from its own data.
#
# The watcher is this library again, from $K/guard.sh, live and at boot. It takes the host by the same rename as everybody
# else: exactly one of renew, commit and fire wins. Whoever fires fences the session that held the host first.

# ks_guard_install: the watcher's program and, where the system has one, its start at boot. Before the host is armed, so that
# somebody else may be at the same: it is written in the run's own directory.
ks_guard_install() {
  ks_guard_write
  if [ -e "$KS_RUN_DIR/guard" ]; then
    sync "$KS_RUN_DIR/guard" && mv -f "$KS_RUN_DIR/guard" "$K/guard.sh" && sync "$K" || ks_die write "cannot write in $K"
  fi
  ks_boot_hook
}

# ks_guard_write: the watcher's program as a file of the run, unless the very same one lies at its place already.
ks_guard_write() {
  local mode sum
  rm -f "$KS_RUN_DIR/guard"
  mode='' sum=''
  [ ! -r "$K/guard.sh" ] || { read -r mode && read -r sum; } <"$K/guard.sh"
  [ "$mode $sum" != "KS_MODE=guard # $KS_SUM" ] || return 0
  ks_quote "$K"
  printf 'KS_MODE=guard\n# %s\nK=%s\n%s\n' "$KS_SUM" "${KS_QUOTED# }" "$KS_LIB" >"$KS_RUN_DIR/guard" ||
    ks_die write "cannot write in $KS_RUN_DIR"
}

# ks_hook_name: sets KS_HOOK_NAME, the name of this state directory's start at boot. Each has its own: two inventory names
# of one machine keep their state apart. Letters, digits and dashes alone: cron passes over a file with a dot in its name.
ks_hook_name() {
  KS_HOOK_NAME=keyswap-guard
  [ "$K" = /var/lib/keyswap ] && return 0
  ks_digest "$K"
  KS_HOOK_NAME=keyswap-guard-${KS_DIGEST%"${KS_DIGEST#????????????}"}
}

# ks_boot_hook: has the watcher started at boot. Sets KS_HOOK to how: systemd, cron or none.
ks_boot_hook() {
  local dir
  KS_HOOK=none
  [ "$KS_UID" = 0 ] || return 0
  # State in another place is a sandbox's or a test's: it does not outlive its machine, and leaves the system alone.
  case $K in /var/lib/*) ;; *) return 0 ;; esac
  ks_hook_name
  if [ -d /run/systemd/system ]; then
    dir=/etc/systemd/system
    mkdir -p "$dir/multi-user.target.wants" &&
      printf '[Unit]\nDescription=keyswap: put this host back if its run was cut off\nAfter=local-fs.target\n\n[Service]\nType=simple\nKillMode=process\nExecStart=/bin/sh %s/guard.sh\n' "$K" >"$dir/$KS_HOOK_NAME.service" &&
      ln -sf "../$KS_HOOK_NAME.service" "$dir/multi-user.target.wants/$KS_HOOK_NAME.service" &&
      sync "$dir/$KS_HOOK_NAME.service" "$dir" "$dir/multi-user.target.wants" && KS_HOOK=systemd
  elif [ -d /etc/cron.d ] && { command -v crond || command -v cron; } >/dev/null 2>&1; then
    printf '@reboot root /bin/sh %s/guard.sh\n' "$K" >"/etc/cron.d/$KS_HOOK_NAME" && sync "/etc/cron.d/$KS_HOOK_NAME" /etc/cron.d && KS_HOOK=cron
  fi
}

# ks_guard_remove: the host is settled; nothing needs to be watched or started at boot any more. Sets PH and its like anew where
# there was something to remove.
ks_guard_remove() {
  [ "$KS_UID" = 0 ] || return 0
  case $K in /var/lib/*) ;; *) return 0 ;; esac
  ks_hook_name
  set -- "/etc/systemd/system/multi-user.target.wants/$KS_HOOK_NAME.service" "/etc/systemd/system/$KS_HOOK_NAME.service" \
    "/etc/cron.d/$KS_HOOK_NAME"
  [ -L "$1" ] || [ -e "$2" ] || [ -e "$3" ] || return 0
  rm -f "$@"
  # Another run may have taken the host since, and relies on it.
  ! ks_cas_look || case $PH in armed | undo) ks_boot_hook ;; esac
}

# ks_hooked: the start at boot that this request has made is still there.
ks_hooked() {
  case ${KS_HOOK:-none} in
    systemd) [ -L "/etc/systemd/system/multi-user.target.wants/$KS_HOOK_NAME.service" ] && [ -e "/etc/systemd/system/$KS_HOOK_NAME.service" ] ;;
    cron) [ -e "/etc/cron.d/$KS_HOOK_NAME" ] ;;
  esac
}

# ks_guard_alive: a watcher runs.
ks_guard_alive() {
  local pid start
  [ -r "$K/watcher" ] && read -r pid start <"$K/watcher" && [ -n "$start" ] && ks_alive "$pid" "$start"
}

# ks_guard_start: starts a watcher that outlives this session, and waits until it says that it watches. The host is armed by now:
# a watcher of an earlier run that was about to end has seen that, or has taken away what is looked for here.
ks_guard_start() {
  local i
  ks_hooked || ks_boot_hook
  ! ks_guard_alive || return 0
  if [ "$KS_UID" = 0 ] && [ -d /run/systemd/system ] && command -v systemd-run >/dev/null 2>&1; then
    # A process that is only detached dies with the login session where KillUserProcesses is set.
    systemd-run --quiet --collect -p Restart=on-failure -p KillMode=process /bin/sh "$K/guard.sh" </dev/null >/dev/null 2>&1 8>&- 9<&- ||
      ks_die refused "systemd-run would not start the guard"
  elif [ -z "$KS_HANDS" ] || ! ks_hand watch "$KS_BOOT"; then
    # It lets go of its output when it watches: the substitution ends just then, or when it could not start.
    i=
    ! command -v setsid >/dev/null 2>&1 || i=setsid
    i=$(umask "$KS_UMASK"; trap - PIPE HUP; $i /bin/sh "$K/guard.sh" </dev/null 2>/dev/null 5>&- 6>&- 7>&- 8>&- 9<&- &)
  fi
  i=0
  until ks_guard_alive; do
    i=$((i + 1))
    [ $i -lt 100 ] || ks_die refused "the guard did not start"
    sleep 0.05
  done
}

# ks_watching: says that this process watches.
ks_watching() {
  local start
  start=${KS_OWNER_SELF#*-}
  printf '%s %s\n' "${KS_OWNER_SELF%%-*}" "${start%-*}" >"$K/watcher"
}

# ks_watch: the watcher's life: sleep until the lease ends, look again, fire or sleep on; end when the host is settled.
ks_watch() {
  local left fence tries again dirty
  tries=0 again=0
  cd /
  ks_boot
  ks_watching
  # Whoever started us waits for this.
  exec >/dev/null
  while ks_cas_look; do
    case $PH in
      armed)
        ks_uptime
        if [ "$BT" = "$KS_BOOT" ]; then
          # Without a lease only a reboot is a reason.
          [ "$UN" != 0 ] || { sleep 5; continue; }
          left=$((UN - KS_UP))
          if [ $left -gt 0 ]; then
            [ $left -lt 500 ] || left=500
            sleep "$((left / 100)).$((left / 10 % 10))$((left % 10))"
            continue
          fi
        fi
        fence=0
        [ "$BT" != "$KS_BOOT" ] || fence=$OWN
        # Somebody was faster, or the disk does not write now.
        ks_cas undo "$KS_OWNER_SELF" "$fence" "$RUN" "$E" || { sleep 0.2; continue; }
        ks_fire "$fence"
        ;;
      undo)
        if [ "$BT.$OWN" = "$KS_BOOT.$KS_OWNER_SELF" ]; then
          # Our own attempt broke off before it could settle the host: the disk does not write, or the way back is not whole.
          # Tried again, and said as soon as the disk lets us.
          tries=$((tries + 1))
          [ $tries -le 3 ] || ! ks_cas dirty - 0 "$RUN" "$E" || { sync "$K/cas"; continue; }
          [ $tries -lt 60 ] || tries=60
          sleep $tries
        # Another watcher is at work; if it has died, its work is taken over, and the old session fenced again.
        elif [ "$BT" = "$KS_BOOT" ] && ks_owner_alive; then
          sleep 0.2
          continue
        fi
        fence=0
        [ "$BT" != "$KS_BOOT" ] || fence=$UN
        ks_cas undo "$KS_OWNER_SELF" "$fence" "$RUN" "$E" || { sleep 0.2; continue; }
        ks_fire "$fence"
        ;;
      dirty)
        # What a guard could not put back may be possible later: the disk has room again, somebody mended it, the machine was
        # rebooted. What a controller left dirty is its operator's, who was told what to do.
        [ -e "$K/runs/$RUN/guard.log" ] || { ks_guard_remove; return 0; }
        again=$((again + 1))
        [ $again -lt 60 ] || again=60
        dirty=$KS_CUR
        sleep $again
        ks_cas_look && [ "$KS_CUR" = "$dirty" ] || continue
        ks_cas undo "$KS_OWNER_SELF" 0 "$RUN" "$E" || continue
        ks_fire 0
        ;;
      *)
        # Whoever takes the host from here on finds no watcher; whoever took it before may rely on this one.
        : >"$K/watcher"
        ks_guard_remove
        ks_cas_look || return 0
        case $PH in armed | undo | dirty) ks_watching ;; *) return 0 ;; esac
        ;;
    esac
  done
}

# ks_fire FENCE: this watcher holds the host: nobody else acts on it any more, then the run is taken back.
ks_fire() {
  local run log
  ks_cas_look
  run=$RUN
  sync "$K/cas"
  [ "$1" = 0 ] || ks_fence "$1"
  ks_run_dir "$run"
  # A full disk must not keep the host from going back.
  log=$KS_RUN_DIR/guard.log
  true >"$log" || log=/dev/null
  (KS_FIRED=1 && ks_undo "$run") >"$log" 2>&1
  sync "$log"
}
