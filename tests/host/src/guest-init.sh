#!/bin/busybox sh
# A guest's first program: prints what it sees, and turns the machine off if its command line has end=off.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "cpus $(nproc)"
echo "memory $(grep MemTotal /proc/meminfo | tr -s ' ' | cut -d ' ' -f 2)"
echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "cmdline $(cat /proc/cmdline)"
echo READY
case " $(cat /proc/cmdline) " in
*" end=off "*) poweroff -f ;;
esac
exec sleep 1000000
