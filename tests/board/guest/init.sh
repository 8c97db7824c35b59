#!/bin/busybox sh
# Of the first file system, in memory: loads what the card is read by, and hands over to the card.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "$module"; done < /modules.txt
while [ ! -b /dev/vda ]; do $b sleep 0.1; done
# As on a Raspberry Pi: data first, then what points to it; a card that cannot be mended is not used.
$b mount -t ext4 -o noatime,data=ordered /dev/vda /card || $b poweroff -f
for each in proc sys dev; do $b mount --move /$each /card/$each; done
exec $b switch_root /card /sbin/board
