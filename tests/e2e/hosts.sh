#!/bin/bash
# Machines for tests: network namespaces with names of their own, joined by a switch in another one.
# Needs root, iproute2 and Open MPI. Their files are this machine's.
#
#   hosts.sh up NAME COUNT RATE DELAY   hosts 10.77.0.1, 10.77.0.2, … with so much bandwidth (100mbit) and
#                                       delay (0 = none; 5ms needs the kernel's netem)
#   hosts.sh run NAME COUNT PROGRAM …   mpirun on the first host, with one rank on each
#   hosts.sh cut NAME NUMBER            takes the cable out of host NUMBER (0 = the first)
#   hosts.sh down NAME                  removes all of them, with what still runs there
set -euo pipefail

self=$(realpath "${BASH_SOURCE[0]}")
verb=$1 name=$2
shift 2

# A program on host NUMBER, which has a name of its own.
on_host() {
  local number=$1
  shift
  exec ip netns exec "$name-h$number" unshare --uts \
    sh -c 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"' "$name-h$number" "$@"
}

up() {
  local count=$1 rate=$2 delay=$3 i shape
  ip netns add "$name-sw"
  ip -n "$name-sw" link add bridge type bridge
  ip -n "$name-sw" link set bridge up
  for ((i = 0; i < count; ++i)); do
    ip netns add "$name-h$i"
    ip -n "$name-sw" link add "h$i" type veth peer name eth0 netns "$name-h$i"
    ip -n "$name-sw" link set "h$i" master bridge up
    ip -n "$name-h$i" addr add "10.77.0.$((i + 1))/24" dev eth0
    ip -n "$name-h$i" link set eth0 up
    ip -n "$name-h$i" link set lo up
    # mpirun goes on until TCP gives up a lost host: after 15 minutes, or here some 13 seconds.
    ip netns exec "$name-h$i" sh -c 'echo 5 >/proc/sys/net/ipv4/tcp_retries2'
    shape=(root)
    if [ "$delay" != 0 ]; then
      ip netns exec "$name-h$i" tc qdisc add dev eth0 root handle 1: netem delay "$delay"
      shape=(parent 1:)
    fi
    ip netns exec "$name-h$i" tc qdisc add dev eth0 "${shape[@]}" tbf rate "$rate" burst 128kb latency 200ms
  done
}

run() {
  local count=$1 hosts i
  shift
  for ((i = 1; i <= count; ++i)); do hosts+=${hosts:+,}10.77.0.$i:1; done
  # Between hosts there is TCP alone; mpirun starts its daemons by this script instead of ssh.
  on_host 0 mpirun --allow-run-as-root --bind-to none --mca plm rsh --mca plm_rsh_agent "$self agent $name" \
    --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 \
    --mca oob_tcp_if_include 10.77.0.0/24 -host "$hosts" -n "$count" "$@"
}

# What mpirun calls as it would call ssh: an address, and words for a shell.
agent() {
  local address=$1
  shift
  on_host $((${address##*.} - 1)) sh -c "$*"
}

cut() { ip -n "$name-sw" link set "h$1" down; }

down() {
  local space
  for space in $(ip netns list | awk '{print $1}' | grep "^$name-"); do
    ip netns pids "$space" | xargs -r kill -9
    ip netns del "$space"
  done
}

"$verb" "$@"
