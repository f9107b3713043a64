#!/usr/bin/busybox sh
# The guest's first process: mounts, modules, then the tests, whose output goes to the host through ports of their own.
# Arguments: which share of the tests (or `shell`), then the words for the guest program.
export PATH=/usr/sbin:/usr/bin:/lab HOME=/ TMPDIR=/tmp TERM=linux RUST_BACKTRACE=1 RUST_LIB_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t debugfs debugfs /sys/kernel/debug
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/netns /tmp/cygnet-lab /lab/out
ip link set lo up

port() {
    for entry in /sys/class/virtio-ports/*; do
        [ "$(cat "$entry/name" 2>/dev/null)" = "$1" ] && echo "/dev/${entry##*/}" && return
    done
    echo /dev/console
}

failed=
while read -r module parameters; do
    # The parameters are words.
    insmod "/lab/modules.d/$module" $parameters || failed="$failed $module"
done </lab/modules

share=$1
shift
if [ "$share" = shell ]; then
    setsid cttyhack sh
    poweroff -f
fi

tests=$(port tests)
if [ -n "$failed" ]; then
    echo "guest: the kernel refuses the modules$failed" >"$tests"
    poweroff -f
fi
# How our own labs know that they may make namespaces here.
export CYGNET_LAB_INSIDE="in a virtual machine" CYGNET_GUEST_SHARE="$share"
/lab/guest "$@" >"$tests" 2>&1
code=$?
tar -c -C /lab/out . >"$(port files)" 2>/dev/null
echo "guest: ended with $code" >"$tests"
poweroff -f
