#!/bin/busybox sh
# The host's first program: loads KVM, and has the agent run tests that come over the second serial port.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp PAGEFOLD_COMMAND=/bin/pagefold PAGEFOLD_GUEST=/guest
# Emulated, guests do in half a minute what takes them a second otherwise.
export PAGEFOLD_CHURN_SECONDS=30
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/net
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
for module in /modules/*.ko.xz; do
    unxz -c "$module" > /tmp/module && insmod /tmp/module || echo "init: $module does not load"
done
rm /tmp/module
ip link set lo up
cd /root
stty -F /dev/ttyS1 raw -echo
host-agent < /dev/ttyS1 > /dev/ttyS1
poweroff -f
