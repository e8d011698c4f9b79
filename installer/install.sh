#!/bin/sh
# Installs a shrk node on this machine, from the coordinator that served this script:
#
#   curl -fsSL https://COORDINATOR/install | sudo sh -s -- --token TOKEN
#
# All of it is one group in braces, which a shell reads to its end before it does anything: a script that was cut off
# on its way does nothing at all (of `find_python` cut off after four bytes it would else run `find`). It downloads
# into a temporary folder, checks the release's signature, asks, prints its plan, asks again, and only then touches
# the machine. Where it fails it takes everything back, says "not installed", and exits with 1 (2: wrong options).
# --help lists the options.

{

usage() {
  cat <<'END'
Install this machine as a shrk node: curl -fsSL https://COORDINATOR/install | sudo sh -s -- [options]

  --token TOKEN     the join token (or SHRK_JOIN_TOKEN): from shrk coordinator tokens create --owner YOU
  --yes, -y         ask nothing (or SHRK_YES=1, or no terminal): what is not given gets its default
  --user            for this user only, without root: below ~/.local and ~/.config
  --dry-run         print the plan and stop
  --no-service      install, but start nothing
  --version X       refuse any release but X
  --engine E        vllm: on NVIDIA GPUs (default where there are some); cpu: vLLM without a GPU, slow;
                    sim: pretends, for trying out; none: install no engine (or SHRK_ENGINE)
  --temp-max N      GPUs take no new work from 2 degrees below (or SHRK_TEMP_MAX; 40 to 95, default 70)
  --schedule HOURS  when the GPUs may be used, such as "22:00-08:00" or "mon-fri 22:00-08:00" (or SHRK_SCHEDULE)
  --when W          always, or idle: only while nobody else uses the GPUs (or SHRK_WHEN)
  --payout ADDRESS  where earnings go, 0x... (or SHRK_PAYOUT_ADDRESS); may be decided later
  --uninstall       remove everything that this script has installed, weights and identity included
      --keep-config    ... but the settings file and the node's identity, so that it can come back as itself
      --purge          ... in any case: what --uninstall does without --keep-config
  --help, -h        this text

For packagers and tests, SHRK_INSTALL_ROOT=DIR puts everything below DIR, where it also runs from; then no user is
made, and systemd is used only if DIR/run/systemd/system exists.
END
}

say() { printf '%s\n' "$*"; }

# The reason on the way out; what was begun is taken back by `leave`.
fail() {
  told=1
  printf '%s\n' "shrk: not ${do_uninstall:+un}installed: $*" >&2
  exit 1
}

wrong_usage() {
  printf '%s\n' "shrk: not installed: $* (--help lists the options)" >&2
  exit 2
}

unsupported() { fail "$1 is not supported yet; nothing was changed. Supported: Linux on x86-64 and ARM64, with systemd or without a service manager"; }

has() { command -v "$1" >/dev/null 2>&1; }

# --- taking back -----------------------------------------------------------------------------------------------------

# What was made, one a line, the newest last: dir PATH, file PATH, tree PATH, user NAME.
made() { printf '%s\n' "$*" >>"$tmp/made"; }

# A folder and its missing parents.
make_dir() {
  [ -d "$1" ] && return 0
  case $1 in */*) parent=${1%/*} ;; *) parent=. ;; esac
  [ -z "$parent" ] || make_dir "$parent"
  mkdir "$1" || fail "the folder $1 cannot be made"
  made dir "$1"
  say "$1" >>"$tmp/dirs"
}

take_back() {
  [ -s "$tmp/made" ] || return 0
  [ -z "$started" ] || service_stop
  if [ -n "$previous" ]; then
    point "$opt/current" "$previous"
    [ -z "$started" ] || service_start || say "shrk: the version that was here before did not start again" >&2
  fi
  sed '1!G;h;$!d' "$tmp/made" | while read -r kind path; do
    case $kind in
      dir) rmdir "$path" 2>/dev/null ;;
      file) rm -f "$path" ;;
      tree) rm -rf "$path" ;;
      unit) rm -f "$path"; $systemctl daemon-reload ;;
      user) delete_user "$path" ;;
    esac
  done
}

# However it ends: by itself, by a failure, or by a signal.
leave() {
  status=$?
  trap '' HUP INT TERM
  trap - EXIT
  set +e
  if [ -n "$tmp" ]; then
    if [ -z "$finished" ]; then
      [ "$status" -eq 0 ] || [ -n "$told" ] || say "shrk: not installed: a command failed, see above; what was begun is taken back" >&2
      take_back
    fi
    rm -rf "$tmp"
  fi
  exit "$status"
}

stopped() {
  told=1
  printf '\n%s\n' "shrk: not installed: stopped by a signal; what was begun is taken back" >&2
  exit 1
}

# --- asking ----------------------------------------------------------------------------------------------------------

# ask QUESTION DEFAULT -> $answer. Standard input is this script; people sit at the terminal.
ask() {
  printf '? %s [%s]: ' "$1" "$2" >/dev/tty
  IFS= read -r answer </dev/tty || fail "the terminal was closed"
  [ -n "$answer" ] || answer=$2
}

temp_max_ok() {
  case $1 in '' | *[!0-9]* | ????*) return 1 ;; esac
  [ "$1" -ge 40 ] && [ "$1" -le 95 ]
}

# Only what needs no quoting in the settings file; whether the hours make sense the agent says, before it starts.
schedule_ok() { case $1 in *[!A-Za-z0-9:,\ -]*) return 1 ;; esac; }

# Straight out of the verified wheel: nothing is installed yet.
payout_ok() { (cd "$tmp" && PYTHONPATH=$contract_wheel "$python" -m shrk_contract.payout "$1" >/dev/null); }

ask_terms() {
  while :; do
    ask "Thermal cap in degrees Celsius (40 to 95; 70 keeps fans quiet)" "${temp_max:-70}"
    temp_max_ok "$answer" && break
    say "  $answer is not a number from 40 to 95" >/dev/tty
  done
  temp_max=$answer
  while :; do
    ask "Payout address (0x..., Enter: decide later)" "${payout:-later}"
    [ "$answer" != later ] || answer=''
    [ -z "$answer" ] || payout_ok "$answer" 2>/dev/tty || continue
    break
  done
  payout=$answer
  while :; do
    ask "When may we use the GPUs? 1 always, 2 at certain hours, 3 only when nobody else does" 1
    case $answer in 1 | 2 | 3) break ;; esac
  done
  case $answer in
    1) when=always schedule='' ;;
    3) when=idle schedule='' ;;
    2)
      when=always
      while :; do
        ask 'Hours, such as 22:00-08:00 or mon-fri 22:00-08:00, sat-sun 00:00-24:00' "${schedule:-22:00-08:00}"
        schedule_ok "$answer" && break
        say "  use letters, digits and : , - only" >/dev/tty
      done
      schedule=$answer
      ;;
  esac
}

# --- looking ---------------------------------------------------------------------------------------------------------

# The first Python that is new enough, and that the service's user may run: one below /root it may not.
find_python() {
  for candidate in python3.14 python3.13 python3.12 python3.11 python3 /usr/local/bin/python3 /usr/bin/python3; do
    if has "$candidate" && "$candidate" -c 'import os, pathlib, sys
folder = pathlib.Path(sys.base_prefix).resolve()
open_to_all = all(os.stat(part).st_mode & 1 for part in (folder, *folder.parents))
sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 15) and (open_to_all or not sys.argv[1])))' "$account" \
      </dev/null 2>/dev/null; then
      python=$(command -v "$candidate")
      if ! "$python" -c 'import venv, ensurepip' </dev/null 2>/dev/null; then
        fail "$python has no venv. On Debian and Ubuntu: apt install python3-venv"
      fi
      return 0
    fi
  done
  fail "Python 3.11 to 3.14 is needed${account:+, at a place where the user $account may run it,} and was not found. On Debian 12 and Ubuntu 24.04: apt install python3 python3-venv; on Fedora: dnf install python3; elsewhere: your distribution's python3.11 or newer"
}

look_at_machine() {
  system=$(uname -s)
  case $system in
    Linux) ;;
    Darwin) unsupported macOS ;;
    MINGW* | MSYS* | CYGWIN*) unsupported Windows ;;
    *) unsupported "$system" ;;
  esac
  machine=$(uname -m)
  case $machine in x86_64 | amd64 | aarch64 | arm64) ;; *) unsupported "Linux on $machine" ;; esac
  if [ -e "$root/.dockerenv" ] || [ -e "$root/run/.containerenv" ]; then unsupported "a node inside Docker or Podman"; fi
  if [ -d "$root/run/systemd/system" ] && has systemctl; then
    init=systemd
    # Not every session of a user has a manager that can be asked.
    if [ -n "$user_mode" ] && ! systemctl --user show-environment >/dev/null 2>&1 </dev/null; then init=none; fi
  elif [ -e "$root/run/openrc" ] || [ -x "$root/sbin/openrc-run" ]; then
    unsupported OpenRC
  else
    init=none
  fi
  distribution=$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "${root:-}/etc/os-release" /etc/os-release 2>/dev/null | head -n 1)
}

look_for_gpus() {
  gpus=''
  if has nvidia-smi; then
    gpus=$(nvidia-smi --query-gpu=index,name,memory.total,driver_version,temperature.gpu --format=csv,noheader \
      </dev/null 2>/dev/null) || gpus=''
  fi
  if [ -n "$gpus" ]; then
    say "GPUs     index, name, memory, driver, temperature (C)"
    say "$gpus" | sed 's/^/         /'
  elif has nvidia-smi; then
    say "GPUs     nvidia-smi is here but shows none: the driver does not work. This script installs no drivers."
  else
    say "GPUs     none found (no nvidia-smi). For NVIDIA GPUs install your distribution's driver first;"
    say "         this script installs no drivers."
  fi
}

choose_engine() {
  case $engine in
    auto | '') if [ -n "$gpus" ]; then engine=vllm; else
      fail "an engine is needed, and there is no GPU with a working driver for one. --engine cpu serves from the processor (slow); --engine sim pretends, for trying out; --engine none leaves it to you"
    fi ;;
    vllm) [ -n "$gpus" ] || fail "--engine vllm needs an NVIDIA GPU with a working driver; without: --engine cpu" ;;
    cpu | sim | none) ;;
    *) wrong_usage "--engine $engine is none of vllm, cpu, sim, none" ;;
  esac
}

# --- downloading -----------------------------------------------------------------------------------------------------

# fetch NAME: a file of the release, into the temporary folder.
fetch() {
  if has curl; then
    curl -fsS --connect-timeout 20 --max-time 600 -o "$tmp/$1" "$url/install/$1" </dev/null
  else
    wget -q -T 60 -O "$tmp/$1" "$url/install/$1" </dev/null
  fi || fail "$url/install/$1 could not be downloaded"
}

download() {
  has curl || has wget || fail "curl or wget is needed"
  has sha256sum || fail "sha256sum is needed (coreutils)"
  has openssl || fail "openssl is needed, to check the release's signature: install it with your distribution's packages"
  say "[1/5] downloading shrk $release from $url"
  fetch SHA256SUMS
  fetch SHA256SUMS.sig
  printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$public_key" >"$tmp/release.pem"
  if ! openssl pkeyutl -verify -pubin -inkey "$tmp/release.pem" -rawin -in "$tmp/SHA256SUMS" \
    -sigfile "$tmp/SHA256SUMS.sig" </dev/null >"$tmp/verdict" 2>&1; then
    if openssl pkeyutl -help 2>&1 | grep -q -e -rawin; then
      fail "the signature of $url/install/SHA256SUMS is not by the release key; do not use this coordinator's files"
    fi
    fail "this openssl is too old to check Ed25519 signatures; 3.0 or newer is needed ($(openssl version))"
  fi
  grep -E '^[0-9a-f]{64}  [A-Za-z0-9][A-Za-z0-9._+-]*$' "$tmp/SHA256SUMS" >"$tmp/sums" || fail "SHA256SUMS names no file"
  while read -r _ name; do fetch "$name"; done <"$tmp/sums"
  (cd "$tmp" && sha256sum -c sums >/dev/null 2>&1) || fail "a file from $url is not the one that was signed; try again, and tell its operator if it happens twice"
  contract_wheel=$(echo "$tmp"/shrk_contract-*.whl)
  [ -f "$contract_wheel" ] || fail "the release has no wheel of shrk-contract"
  say "      signature and checksums are right"
}

# --- installing ------------------------------------------------------------------------------------------------------

# point LINK TARGET: switch a symbolic link in one step.
point() { "$python" -c 'import os, sys
link, target = sys.argv[1:]
if os.path.lexists(link + ".new"):
    os.unlink(link + ".new")
os.symlink(target, link + ".new")
os.replace(link + ".new", link)' "$1" "$2" </dev/null; }

add_user() {
  [ -n "$account" ] || return 0
  if ! id "$account" >/dev/null 2>&1; then
    if has useradd; then
      useradd --system --user-group --home-dir "$var" --no-create-home --shell /usr/sbin/nologin "$account"
    elif has adduser; then
      adduser -S -D -H -h "$var" -s /sbin/nologin "$account"
    else
      fail "neither useradd nor adduser is here to make the user $account"
    fi || fail "the user $account could not be made"
    made user "$account"
  fi
  for group in render video; do
    if grep -q "^$group:" /etc/group && has usermod; then usermod -a -G "$group" "$account"; fi
  done
}

delete_user() {
  if has userdel; then userdel "$1" 2>/dev/null; elif has deluser; then deluser "$1" 2>/dev/null; fi
}

install_version() {
  place=$opt/versions/$release-$(sha256sum "$tmp/SHA256SUMS" | cut -c1-8)
  if [ -e "$place/complete" ]; then
    say "[2/5] shrk $release is here already"
    return 0
  fi
  say "[2/5] installing shrk $release into $place"
  make_dir "$opt/versions"
  rm -rf "$place"
  made tree "$place"
  "$python" -m venv "$place" </dev/null >"$tmp/log" 2>&1 || fail_with_log "no environment could be made in $place"
  "$place/bin/python" -m pip install -q --disable-pip-version-check --retries 2 -c "$tmp/constraints.txt" \
    "$tmp"/*.whl </dev/null >"$tmp/log" 2>&1 || fail_with_log "pip could not install shrk's packages"
  write_launcher
  write_service
  keep_script
  : >"$place/complete"
}

fail_with_log() {
  tail -n 15 "$tmp/log" | sed 's/^/  | /' >&2
  fail "$1"
}

# The command `shrk`, which knows where this installation keeps its settings.
write_launcher() {
  cat >"$place/shrk" <<END
#!/bin/sh
# The command shrk of the installation in $opt.
if [ -z "\${SHRK_CONFIG:-}" ] && [ -e '$etc/config.toml' ]; then export SHRK_CONFIG='$etc/config.toml'; fi
exec '$opt/current/bin/shrk' "\$@"
END
  chmod 755 "$place/shrk"
}

# The background service of machines without systemd; with it, the same words lead there.
write_service() {
  cat >"$place/service" <<END
#!/bin/sh
# The background service of the shrk node in $opt: start, stop, status (0: it runs, 3: it does not).
opt='$opt' etc='$etc' var='$var' account='$account' systemctl='$systemctl' init='$init'
END
  cat >>"$place/service" <<'END'
# In a folder where the service itself cannot write: who stops it believes this file.
pid_file=$opt/service.pid
runs() {
  pid=$(cat "$pid_file" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null &&
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q shrk_node_agent
}
case $init:${1:-} in
  systemd:start | systemd:stop) exec $systemctl "$1" shrk-node.service ;;
  systemd:status)
    # One that is being started, or started again, is none that ended.
    case $($systemctl show -p ActiveState shrk-node.service) in *=failed | *=inactive) exit 3 ;; esac
    ;;
  none:start)
    if runs; then exit 0; fi
    if [ -r "$etc/join.env" ]; then
      SHRK_JOIN_TOKEN=$(sed -n 's/^SHRK_JOIN_TOKEN=//p' "$etc/join.env")
      export SHRK_JOIN_TOKEN
    fi
    # A clean environment, a session of its own, and the service's user: in one process, whose id is kept.
    nohup "$opt/current/bin/python" -c 'import os, pwd, sys
account, home, config, *command = sys.argv[1:]
kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TZ", "SHRK_JOIN_TOKEN")}
kept |= {"HOME": home, "SHRK_CONFIG": config, "SHRK_LOG_FORMAT": "json"}
os.setsid()
if account:
    entry = pwd.getpwnam(account)
    os.initgroups(account, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
os.chdir(home)
os.umask(0o077)
log = os.open("service.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.dup2(log, 1)
os.dup2(log, 2)
os.execve(command[0], command, kept)' "$account" "$var" "$etc/config.toml" \
      "$opt/current/bin/python" -m shrk_node_agent run </dev/null >/dev/null 2>&1 &
    echo $! >"$pid_file"
    ;;
  none:stop)
    if runs; then
      kill "$pid"
      # The drain has 110 seconds, and what follows it ten.
      for _ in $(seq 150); do
        runs || break
        sleep 1
      done
      if runs; then kill -9 "$pid"; fi
    fi
    rm -f "$pid_file"
    ;;
  none:status) runs || exit 3 ;;
  *)
    echo "usage: service start|stop|status" >&2
    exit 2
    ;;
esac
END
  chmod 755 "$place/service"
}

# This very script, for `shrk uninstall`: one that knows whose installation it is in, and below which root.
keep_script() {
  sed -e "s|@SHRK_KEPT_ROOT@|$root|" -e "s|@SHRK_KEPT_MODE@|${user_mode:+--user}|" "$tmp/install.sh" >"$place/install.sh"
}

install_engine() {
  case $engine in
    sim | none) say "[3/5] engine: $engine, nothing to install"; return 0 ;;
    vllm) wanted='engine-cuda.txt' ;;
    cpu) wanted='engine-cpu.txt' ;;
  esac
  if [ -e "$opt/engine/complete" ] && cmp -s "$tmp/$wanted" "$opt/engine/complete"; then
    say "[3/5] the engine is here already"
    return 0
  fi
  say "[3/5] installing vLLM ($engine) into $opt/engine: several gigabytes, some minutes"
  # A new environment beside the one in use: where this fails, the old one still serves.
  fresh=$opt/engines/$(sha256sum "$tmp/$wanted" | cut -c1-8)
  make_dir "$opt/engines"
  rm -rf "$fresh"
  made tree "$fresh"
  "$python" -m venv "$fresh" </dev/null >"$tmp/log" 2>&1 || fail_with_log "no environment could be made in $fresh"
  # The CPU's list names every package there is to install; the other one leaves them to pip.
  complete_list='' remedy=''
  if [ "$engine" = cpu ]; then
    complete_list=--no-deps
    remedy='; where pip finds no torch: its CPU build is not on the usual index, and PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL says where it is'
  fi
  # shellcheck disable=SC2086  # an option or nothing
  "$fresh/bin/python" -m pip install -q --disable-pip-version-check $complete_list -r "$tmp/$wanted" \
    </dev/null >"$tmp/log" 2>&1 || fail_with_log "pip could not install the engine (free space: $(df -h "$opt" | awk 'END { print $4 }')$remedy)"
  # To pip a build for CPUs is as good as any, if it finds one.
  cuda=$("$fresh/bin/python" -c 'import torch; print(torch.version.cuda or "none")' </dev/null 2>"$tmp/log") || fail_with_log "the engine's torch cannot be used"
  if [ "$engine:$cuda" = vllm:none ]; then
    fail "pip found a torch that knows no GPUs, and took it: your PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL or pip.conf leads there. Run this again without them, such as with PIP_CONFIG_FILE=/dev/null"
  fi
  cp "$tmp/$wanted" "$fresh/complete"
  [ -L "$opt/engine" ] || made file "$opt/engine"
  point "$opt/engine" "$fresh"
}

# setting KEY VALUE: an active line, or one in a comment where this version's agent knows no such setting.
setting() {
  case " $known " in *" $1 "*) say "$1 = $2" ;; *) say "# $1 = $2  # (this version does not have it)" ;; esac
}

write_config() {
  config=$etc/config.toml
  if [ -e "$config" ]; then
    say "[4/5] $config is kept as it is"
    return 0
  fi
  say "[4/5] writing $config"
  known=$("$place/bin/python" -c 'from shrk_node_agent.settings import AgentSettings; print(*AgentSettings.model_fields)' </dev/null)
  made file "$config"
  (umask 077 && config_text >"$config")
  chmod 0640 "$config"
  [ -z "$account" ] || chgrp "$(id -gn "$account")" "$config"
}

config_text() {
  cat <<END
# The settings of this shrk node. A variable SHRK_NAME wins over the line NAME here.
# After a change: $restart_hint

# Where its coordinator is.
controller = "$link"

# Identity, logs and sockets.
state_dir = "$var/node"

# What it is called in lists; without this line: the host name.
# name = "rig-1"

# GPUs take no new work from 2 degrees Celsius below this, 40 to 95.
$(setting temp_max "$temp_max")

# When the GPUs may be used; empty: always. "22:00-08:00", "mon-fri 22:00-08:00, sat-sun 00:00-24:00".
$(setting schedule "\"$schedule\"")

# The time zone of those hours, such as "Europe/Berlin"; without this line: the machine's own.
# time_zone = ""

# "always", or "idle": only while nobody else uses the GPUs.
$(setting when "\"$when\"")

# Where earnings go, 0x and 40 digits with their capitals; empty: decide later, earnings are kept.
$(setting payout_address "\"$payout\"")

# GPUs to use, by index or UUID; without this line: all.
# visible_devices = ["0", "1"]

# "vllm", or "sim": pretends, and needs no GPU.
engine = "$config_engine"

# vLLM's own environment; an upgrade of the agent does not touch it.
engine_venv = "$opt/engine"

# Of the models below, those to serve, the most important first; without this line: all.
# models = ["$config_model"]

# What this node can serve: a name, and where its weights are (a Hugging Face id, or a folder).
[catalogue."$config_model"]
source = "$config_source"
# slots = 16              # answers at the same time
# context_tokens = 8192   # prompt and answer together; without this line: the model's own
# memory_gb = 20          # what it takes; needed where the node has a memory_gb
END
}

# The agent's own opinion of its settings, before anything is started.
check_config() {
  env -i PATH="$PATH" HOME="$var" SHRK_CONFIG="$etc/config.toml" "$place/bin/python" -c 'import sys
from shrk_contract.settings import load
from shrk_contract.trouble import Trouble
from shrk_node_agent.settings import AgentSettings
try:
    load(AgentSettings)
except Trouble as trouble:
    sys.exit(f"shrk: {trouble}")' </dev/null || fail "$etc/config.toml cannot be used: see above"
}

write_unit() {
  [ "$init" = systemd ] || return 0
  unit=$units/shrk-node.service
  make_dir "$units"
  [ -e "$unit" ] || made unit "$unit"
  groups=''
  for group in render video; do
    if grep -q "^$group:" /etc/group; then groups="$groups $group"; fi
  done
  if [ -n "$user_mode" ]; then
    # A user's manager can take nothing away that the user does not have.
    cat >"$unit" <<END
[Unit]
Description=shrk node agent

[Service]
Type=notify
NotifyAccess=main
Environment=SHRK_CONFIG=$etc/config.toml
EnvironmentFile=-$etc/join.env
ExecStart=$opt/current/bin/shrk node run
ExecReload=/bin/kill -HUP \$MAINPID
Restart=on-failure
RestartSec=5
TimeoutStartSec=120
TimeoutStopSec=150
WatchdogSec=30
KillMode=mixed
Delegate=yes
NoNewPrivileges=yes
LimitCORE=0
UMask=0077

[Install]
WantedBy=default.target
END
  else
    sed -e "s|^SupplementaryGroups=.*|SupplementaryGroups=${groups# }|" -e "s|/opt/shrk/|$opt/|g" \
      -e "s|/etc/shrk/|$etc/|g" -e "s|HOME=/var/lib/shrk|HOME=$var|" "$tmp/shrk-node.service" >"$unit"
    chmod 644 "$unit"
  fi
  $systemctl daemon-reload || fail "systemd did not take the unit $unit"
}

service_start() {
  if [ "$init" = systemd ]; then
    # One that runs goes on; one that was given up after too many failures is tried again.
    $systemctl reset-failed shrk-node.service 2>/dev/null
    $systemctl enable --quiet shrk-node.service && $systemctl start --no-block shrk-node.service
  else
    "$opt/current/service" start
  fi
}

service_stop() {
  if [ -x "$opt/current/service" ]; then "$opt/current/service" stop; fi
}

show_log() {
  if [ "$init" = systemd ]; then
    journalctl ${user_mode:+--user} -u shrk-node.service -n 15 --no-pager -o cat 2>/dev/null
  else
    tail -n 15 "$var/service.log" 2>/dev/null
  fi | sed 's/^/  | /' >&2
}

# Asks the agent itself, on its control socket: prints its state; 0: online, 4: linked, and about to be, 1: neither.
agent_state() {
  "$opt/current/bin/python" -c 'import http.client, json, socket, sys
asking = http.client.HTTPConnection("agent", timeout=5)
asking.sock = socket.socket(socket.AF_UNIX)
try:
    asking.sock.connect(sys.argv[1])
    asking.request("GET", "/status")
    told = json.load(asking.getresponse())
except (OSError, ValueError, http.client.HTTPException):
    print("it does not answer yet")
    sys.exit(1)
print(told["state"], told["reason"] or told["link_reason"], sep=": " if told["reason"] or told["link_reason"] else "")
linked = told["link"] == "connected"
sys.exit(0 if linked and told["state"] in ("online", "busy") else 4 if linked else 1)' "$var/node/control.sock" </dev/null
}

wait_for_online() {
  waited=0
  dead=0
  while :; do
    verdict=0
    state=$(agent_state) || verdict=$?
    [ "$verdict" -ne 0 ] || return 0
    # A service manager starts it again; only one that stays away is given up.
    if "$opt/current/service" status; then dead=0; else dead=$((dead + 1)); fi
    if [ "$dead" -ge 3 ]; then
      show_log
      fail "the agent ended by itself; its last words are above"
    fi
    # Weights take their time, and hours and heat are the owner's: linked is installed.
    [ "$verdict" -ne 4 ] || [ "$waited" -lt 20 ] || return 0
    if [ "$waited" -ge 90 ]; then
      show_log
      fail "the node did not reach $link within 90 seconds ($state)"
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

# --- the other way ---------------------------------------------------------------------------------------------------

uninstall() {
  if [ ! -e "$opt" ] && [ ! -e "$etc" ] && [ ! -e "$var" ]; then
    say "shrk is not here: nothing to remove"
    return 0
  fi
  say "Will be removed: $opt, $bin/shrk, $etc, $var${account:+, the user $account}, the service shrk-node."
  if [ -n "$keep_config" ]; then say "Will be kept:    $etc/config.toml, $var/node/identity${user_mode:+, and in $etc/dirs which folders were made for them}"; fi
  if [ -n "$dry_run" ]; then return 0; fi
  need_rights
  if [ -z "$yes" ]; then
    ask "Remove it?" n
    case $answer in y | Y | yes) ;; *) say "nothing was removed"; return 0 ;; esac
  fi
  service_stop || say "shrk: the service did not stop by itself" >&2
  if [ "$init" = systemd ] && [ -e "$units/shrk-node.service" ]; then
    $systemctl disable --quiet shrk-node.service
    rm -f "$units/shrk-node.service"
    $systemctl daemon-reload
  fi
  cat "$etc/dirs" "$opt/dirs" 2>/dev/null | sed '1!G;h;$!d' >"$tmp/dirs"
  rm -f "$bin/shrk" "$etc/join.env" "$etc/dirs"
  rm -rf "$opt"
  if [ -n "$keep_config" ]; then
    find "$var" -mindepth 1 -maxdepth 1 ! -name node -exec rm -rf {} +
    if [ -d "$var/node" ]; then find "$var/node" -mindepth 1 -maxdepth 1 ! -name identity -exec rm -rf {} +; fi
  else
    rm -rf "$var"
    rm -f "$etc/config.toml"
    if [ -n "$account" ]; then delete_user "$account"; fi
  fi
  rmdir "$etc" 2>/dev/null
  while read -r made_dir; do
    rmdir "$made_dir" 2>/dev/null
    # What holds the settings that stay: they tell the next uninstallation that it was made for them.
    case $made_dir in "$etc" | "$var") ;; *) if [ -d "$made_dir" ]; then say "$made_dir"; fi ;; esac
  done <"$tmp/dirs" | sed '1!G;h;$!d' >"$tmp/left"
  if [ -s "$tmp/left" ] && [ -d "$etc" ]; then cp "$tmp/left" "$etc/dirs"; fi
  say "shrk is uninstalled${keep_config:+; its settings and its identity are kept}"
}

# --- the order of things ---------------------------------------------------------------------------------------------

options() {
  token=${SHRK_JOIN_TOKEN:-} engine=${SHRK_ENGINE:-} temp_max=${SHRK_TEMP_MAX:-} schedule=${SHRK_SCHEDULE:-}
  when=${SHRK_WHEN:-} payout=${SHRK_PAYOUT_ADDRESS:-} only_version='' root=${SHRK_INSTALL_ROOT:-} yes=${SHRK_YES:-}
  user_mode='' dry_run='' no_service='' keep_config='' purge=''
  # Kept beside an installation, this script takes away that one.
  case $kept_root in @*) ;; *) root=$kept_root user_mode=${kept_mode:+1} ;; esac
  while [ $# -gt 0 ]; do
    case $1 in
      --token | --engine | --temp-max | --schedule | --when | --payout | --version)
        [ $# -ge 2 ] || wrong_usage "$1 needs a value"
        case $1 in
          --token) token=$2 ;;
          --engine) engine=$2 ;;
          --temp-max) temp_max=$2 ;;
          --schedule) schedule=$2 ;;
          --when) when=$2 ;;
          --payout) payout=$2 ;;
          --version) only_version=$2 ;;
        esac
        shift
        ;;
      --yes | -y) yes=1 ;;
      --user) user_mode=1 ;;
      --dry-run) dry_run=1 ;;
      --no-service) no_service=1 ;;
      --uninstall) do_uninstall=1 ;;
      --keep-config) keep_config=1 ;;
      --purge) purge=1 ;;
      --help | -h) usage; exit 0 ;;
      *) wrong_usage "$1 is not an option" ;;
    esac
    shift
  done
  if [ -n "$keep_config$purge" ] && [ -z "$do_uninstall" ]; then wrong_usage "--keep-config and --purge go with --uninstall"; fi
  if [ -n "$keep_config" ] && [ -n "$purge" ]; then wrong_usage "--keep-config keeps what --purge removes: choose one"; fi
  case $root in '') ;; /*[\ \'\"\|\&]*) wrong_usage "SHRK_INSTALL_ROOT has a character that a shell would read" ;; /*) ;; *) wrong_usage "SHRK_INSTALL_ROOT must be an absolute path" ;; esac
  root=${root%/}
  [ -z "$temp_max" ] || temp_max_ok "$temp_max" || wrong_usage "temp-max is $temp_max: 40 to 95, in whole degrees Celsius"
  schedule_ok "$schedule" || wrong_usage "schedule is $schedule: such as 22:00-08:00 or mon-fri 22:00-08:00"
  case $when in '' | always | idle) ;; *) wrong_usage "when is $when: always or idle" ;; esac
  case $token in *[!A-Za-z0-9_.-]*) wrong_usage "the join token is damaged: it has letters, digits and _ - . only" ;; esac
  if [ -z "$yes" ] && ! (: </dev/tty) 2>/dev/null; then yes=1; fi
}

# Where things go, and as whom they run.
places() {
  account='' systemctl=systemctl
  if [ -n "$user_mode" ]; then
    [ -n "${HOME:-}" ] || fail "HOME is not set, and --user installs below it"
    systemctl='systemctl --user'
    opt=$root$HOME/.local/share/shrk bin=$root$HOME/.local/bin etc=$root$HOME/.config/shrk
    var=$root$HOME/.local/state/shrk units=$root$HOME/.config/systemd/user
  else
    opt=$root/opt/shrk bin=$root/usr/local/bin etc=$root/etc/shrk var=$root/var/lib/shrk units=$root/etc/systemd/system
    [ -n "$root" ] || account=shrk
  fi
  for place in "$opt" "$etc" "$var"; do
    case $place in *[\ \'\"\|\&]*) fail "the path $place has a character that a shell would read" ;; esac
  done
  # As the agent has it in SOCKETS_FOLDER_BYTES_MAX: with more, no engine could be reached.
  sockets=$var/node/engines
  shorter='Use a shorter SHRK_INSTALL_ROOT'
  [ -z "$user_mode" ] || shorter='Use a HOME with a shorter path, or install without --user, as root'
  if [ -z "$do_uninstall" ] && [ "${#sockets}" -gt 56 ]; then
    fail "$sockets, the folder for engine sockets, would have a path of ${#sockets} bytes, and 56 is the most. Nothing was changed. $shorter"
  fi
}

need_rights() {
  if [ -z "$user_mode$root" ] && [ "$(id -u)" -ne 0 ]; then
    if [ -n "$do_uninstall" ]; then fail "this needs root: sudo $bin/shrk uninstall"; fi
    fail "this needs root. Run it again as root: curl -fsSL $url/install | sudo sh -s -- ...; or for yourself only, with --user"
  fi
}

check_token() {
  if [ -e "$var/node/identity/node.json" ] || [ -n "$no_service$dry_run" ]; then return 0; fi
  [ -n "$token" ] || fail "a join token is needed: --token TOKEN or SHRK_JOIN_TOKEN. The coordinator's operator makes one: shrk coordinator tokens create --owner YOU"
  # shrk_join_SECRET.PORT.PIN.CHECK
  pinned=${token#*.*.}
  pinned=${pinned%%.*}
  [ "$pinned" = "$ca_pin" ] || fail "this join token is another coordinator's than $url, or was cut in copying: it does not carry the digest of this one's CA"
}

choose_model() {
  config_engine=vllm
  case $engine in
    sim) config_engine=sim config_model=shark-sim config_source=simulated ;;
    *) config_model=qwen2.5-0.5b-instruct config_source=Qwen/Qwen2.5-0.5B-Instruct ;;
  esac
}

print_plan() {
  say "Plan     $opt: shrk $release and its own Python environment (about 150 MB)"
  case $engine in vllm | cpu) say "         $opt/engine: vLLM ($engine), several gigabytes" ;; esac
  say "         $bin/shrk: the command"
  if [ -e "$etc/config.toml" ]; then say "         $etc/config.toml: is here, and stays as it is"; else
    say "         $etc/config.toml: temp_max $temp_max, hours ${schedule:-all}, when $when, payout ${payout:-decided later}, engine $engine"
  fi
  say "         $var: identity, logs and weights${account:+; the user $account}"
  if [ -n "$no_service" ]; then say "         no service: you start it"; else
    case $init in
      systemd) say "         the service shrk-node, with systemd${user_mode:+; it ends when you log out, unless loginctl enable-linger}" ;;
      none) say "         no service manager here: a plain background service, started by \`shrk start\`; it does not start by itself after a reboot" ;;
    esac
  fi
}

install() {
  case $url in http://* | https://*) ;; *) fail "this copy of the script was not served by a coordinator: use curl -fsSL https://COORDINATOR/install | sh" ;; esac
  look_at_machine
  say ">>> shrk $release installer: $system $machine, ${distribution:-unknown distribution}, service manager: $init"
  if [ -n "$only_version" ] && [ "$only_version" != "$release" ]; then
    fail "version $only_version was asked for, and $url has $release only"
  fi
  look_for_gpus
  choose_engine
  find_python
  check_token
  download
  [ -z "$payout" ] || payout_ok "$payout" || fail "the payout address cannot be used: see above"
  if [ -n "$yes" ]; then say "Nobody is asked: what was not given gets its default."; fi
  if [ -z "$yes" ] && [ ! -e "$etc/config.toml" ]; then ask_terms; fi
  temp_max=${temp_max:-70} when=${when:-always}
  choose_model
  print_plan
  if [ -n "$dry_run" ]; then
    say "dry run: nothing was changed"
    finished=1
    return 0
  fi
  need_rights
  if [ -z "$yes" ]; then
    ask "Continue?" Y
    case $answer in y | Y | yes) ;; *) fail "you said no; nothing was changed" ;; esac
  fi
  make_everything
}

make_everything() {
  fresh_state=''
  restart_hint="kill -HUP the agent, or start it again"
  [ "$init" != systemd ] || restart_hint="$systemctl restart shrk-node"
  add_user
  for folder in "$opt" "$bin" "$etc"; do make_dir "$folder"; done
  # With all that the agent will have written there.
  [ -d "$var" ] || fresh_state=1
  make_dir "$var"
  if [ -n "$fresh_state" ]; then made tree "$var"; fi
  install_version
  install_engine
  write_config
  # Before anything that runs is stopped: a version that does not take the owner's settings must not cost a node.
  check_config
  own "$var"
  chmod 0700 "$var"
  if [ -L "$opt/current" ]; then previous=$(readlink "$opt/current"); else made file "$opt/current"; fi
  if [ "$previous" != "$place" ] && [ -n "$previous" ]; then service_stop; started=1; fi
  point "$opt/current" "$place"
  [ -L "$bin/shrk" ] || made file "$bin/shrk"
  point "$bin/shrk" "$opt/current/shrk"
  if [ -n "$no_service" ]; then
    say "[5/5] no service: start it with SHRK_JOIN_TOKEN=... $bin/shrk node run"
    settle
    say "shrk $release is installed; nothing was started."
    return 0
  fi
  write_unit
  if [ -n "$token" ] && [ ! -e "$var/node/identity/node.json" ]; then
    made file "$etc/join.env"
    (umask 077 && say "SHRK_JOIN_TOKEN=$token" >"$etc/join.env")
    # Whoever runs already without an identity has another token, or none.
    service_stop || say "shrk: the service that was here did not stop by itself" >&2
  fi
  say "[5/5] starting the node"
  started=1
  service_start || fail "the service could not be started"
  wait_for_online
  # Used, and so of no use to anybody.
  rm -f "$etc/join.env"
  settle
  if [ -n "$user_mode" ]; then
    case ":$PATH:" in *":$bin:"*) ;; *) say "$bin is not in your PATH: the command is $bin/shrk until it is" ;; esac
  fi
  case $verdict in
    0) say "This node is $state and takes requests for $(served). Its settings: $etc/config.toml" ;;
    *) say "This node is enrolled and linked, and takes requests as soon as it can; now it is $state" ;;
  esac
}

# The name of what is served, as callers ask for it.
served() { sed -n 's/^\[catalogue\."\{0,1\}\([^]"]*\)"\{0,1\}\]$/\1/p' "$etc/config.toml" | paste -s -d , - | sed 's/,/, /g'; }

own() { [ -z "$account" ] || chown -R "$account:$(id -gn "$account")" "$1"; }

# From here on it stays. Versions other than this one and the one before are of no use any more.
settle() {
  finished=1
  if [ -f "$tmp/dirs" ]; then cat "$tmp/dirs" >>"$opt/dirs"; fi
  for old in "$opt"/versions/*; do
    case $old in "$place" | "$previous") ;; *) rm -rf "$old" ;; esac
  done
  for old in "$opt"/engines/*; do
    case $old in "$(readlink "$opt/engine" 2>/dev/null)") ;; *) rm -rf "$old" ;; esac
  done
}

main() {
  set -eu
  # Filled in by `make release`, and by the coordinator.
  release='@SHRK_VERSION@' public_key='@SHRK_PUBLIC_KEY@'
  url='@SHRK_URL@' link='@SHRK_LINK@' ca_pin='@SHRK_CA_PIN@'
  # Filled in where an installation keeps it.
  kept_root='@SHRK_KEPT_ROOT@' kept_mode='@SHRK_KEPT_MODE@'
  tmp='' finished='' started='' told='' previous='' place='' verdict=0 do_uninstall=''
  options "$@"
  places
  trap leave EXIT
  trap stopped HUP INT TERM
  tmp=$(mktemp -d "${TMPDIR:-/tmp}/shrk-install.XXXXXX")
  if [ -n "$do_uninstall" ]; then
    look_at_machine
    finished=1
    set +e
    uninstall
  else
    install
  fi
}

main "$@"; }