#!/bin/busybox sh
# A guest's first program: prints what it sees, and ends as the word "end=..." of its command line has it.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "cpus $(nproc)"
echo "memory $(grep MemTotal /proc/meminfo | tr -s ' ' | cut -d ' ' -f 2)"
echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "cmdline $(cat /proc/cmdline)"
for module in /modules/*.ko.xz; do
    unxz -c "$module" > /module && insmod /module
done
# An entropy source, if there is one, which drivers may find a little later.
if [ -e /sys/class/misc/hw_random ]; then
    echo "hwrng $(cat /sys/class/misc/hw_random/rng_current) $(dd if=/dev/hwrng bs=64 count=64 2>/dev/null | wc -c)"
fi
echo READY
case " $(cat /proc/cmdline) " in
*" end=off "*) poweroff -f ;;
*" end=reset "*) reboot -f ;;
*" end=panic "*) echo c > /proc/sysrq-trigger ;;
esac
exec sleep 1000000
