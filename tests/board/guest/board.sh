#!/bin/sh
# The board's first program: runs each line that comes over the serial port, and says how it ended.
mount -t tmpfs tmp /tmp
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
exec </dev/ttyAMA0 >/dev/ttyAMA0 2>&1
stty -echo -onlcr
export HOME=/tmp PYTHONPATH=/opt/mekt OMP_NUM_THREADS=1
cd /etc/mekt
echo "up $(cut -d ' ' -f 1 /proc/uptime)"
while read -r line; do
    eval "$line"
    echo "done $?"
done
