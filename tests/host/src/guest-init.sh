#!/bin/busybox sh
# A guest's first program: prints what it sees, uses its disks as the word "disk=..." of its command line has it, and
# ends as "end=..." has it.
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
case " $(cat /proc/cmdline) " in
*" disk=hash "*)
    # Twice, so that what is read lands on pages that were folded meanwhile: several guests have them cached.
    echo "first $(sha256sum < /dev/vda)"
    sleep 8
    echo 3 > /proc/sys/vm/drop_caches
    echo "second $(sha256sum < /dev/vda)"
    ;;
*" disk=write "*)
    seq 50000 | dd of=/dev/vda bs=64k conv=fsync 2>/dev/null && echo "written $(cat /sys/block/vda/size)"
    blkdiscard -o 4194304 -l 1048576 /dev/vda && echo "discarded 1048576"
    blkdiscard -z -o 6291456 -l 1048576 /dev/vda 2>/dev/null
    echo "readonly $(cat /sys/block/vda/ro) $(cat /sys/block/vdb/ro) $(cat /sys/block/vdb/serial)"
    dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync 2>/dev/null || echo "refused a write"
    ;;
*" disk=all "*)
    echo "disks $(cat /dev/vd? | wc -c) $(ls /dev/vd? | wc -l)"
    ;;
*" disk=broken "*)
    dd if=/dev/vda of=/dev/null bs=64k count=16 2>/dev/null && echo "read the beginning"
    dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null || echo "failed to read the rest"
    ;;
esac
echo READY
case " $(cat /proc/cmdline) " in
*" end=off "*) poweroff -f ;;
*" end=reset "*) reboot -f ;;
*" end=panic "*) echo c > /proc/sysrq-trigger ;;
esac
exec sleep 1000000
