#!/usr/bin/env bash
# A real Slurm of one node on this machine, to try `hydra/launcher=slurm` and to run its tests. Run as root:
#
#   eval "$(scripts/local_slurm.sh start)"   # starts it, and tells this shell where it is
#   scripts/local_slurm.sh status
#   scripts/local_slurm.sh stop
#
# It needs Debian's packages slurm-wlm and munge, but neither systemd nor cgroups, so that it runs in a container.
# Its config, state and logs lie in $PEFTBENCH_SLURM (a folder in the temporary one), which `stop` removes.
set -euo pipefail

folder=${PEFTBENCH_SLURM:-${TMPDIR:-/tmp}/peftbench-slurm}
host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf
PATH=$PATH:/usr/sbin

die() {
  echo "local_slurm.sh: $*" >&2
  exit 1
}

check() {
  for program in munged slurmctld slurmd sbatch; do
    command -v $program >/dev/null || die "there is no $program: apt-get install -y slurm-wlm munge"
  done
  [ "$(id -u)" = 0 ] || die "slurmd starts jobs as their users: run this as root"
}

write_config() {
  mkdir -p "$folder"/{bin,state,spool,log}
  chmod 755 "$folder"
  dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
  chmod 600 "$folder/munge.key"
  cat >"$SLURM_CONF" <<CONF
ClusterName=peftbench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
# cred_expire: a job queued again starts as many seconds later
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
# a job killed or preempted runs again, a moment after its SIGTERM
JobRequeue=1
KillWait=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# what has ended stays known for an hour, see bin/sacct
MinJobAge=3600
ReturnToService=2
SlurmdTimeout=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(($(awk "/^MemTotal/ {print \$2}" /proc/meminfo) / 1024)) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2
CONF
  # submitit asks sacct for the states of its jobs; sacct needs a database server, squeue knows them too
  cat >"$folder/bin/sacct" <<'SACCT'
#!/bin/sh
echo "JobID|State|NodeList"
exec squeue --noheader --states=all --format="%i|%T|%N"
SACCT
  chmod 755 "$folder/bin/sacct"
}

start() {
  check
  if ! running; then
    stop
    write_config
    # --force: it does not mind that anyone may write to the temporary folder
    munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
      --seed-file="$folder/munge.seed" --log-file="$folder/log/munged.log" 2>"$folder/log/munged.err" >&2 ||
      die "munged does not start: $(tail -n 1 "$folder/log/munged.err")"
    slurmctld -c >&2 || die "slurmctld does not start, see $folder/log"
    slurmd >&2 || die "slurmd does not start, see $folder/log"
    for _ in $(seq 60); do
      [ "$(sinfo --noheader --format=%T --partition=main 2>/dev/null)" = idle ] && break
      sleep 0.5
    done
    running || die "the node is not ready after 30 s, see $folder/log"
  fi
  echo "export SLURM_CONF=$SLURM_CONF"
  echo "export PATH=$folder/bin:\$PATH"
}

running() {
  [ -f "$SLURM_CONF" ] && timeout 10 sinfo --noheader --format=%T --partition=main 2>/dev/null | grep -qE 'idle|mix|alloc|comp'
}

stop() {
  if [ -f "$folder/slurmctld.pid" ]; then
    timeout 10 scancel --quiet --user="$(id -un)" || true
    sleep 1
  fi
  for daemon in slurmd slurmctld munged; do
    [ -f "$folder/$daemon.pid" ] || continue
    pid=$(cat "$folder/$daemon.pid")
    # the number may be another's by now
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = $daemon ] || continue
    kill "$pid"
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
  done
  rm -rf "$folder"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status)
    running || die "no Slurm runs from $folder"
    sinfo
    squeue
    ;;
  *) die "usage: $0 start|stop|status" ;;
esac
