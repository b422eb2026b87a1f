#!/bin/sh
# Becomes the first process of the namespaces that `xtask service` makes. What is done to
# files here is seen by nobody outside: /etc, /usr and /var are overlaid, /run and /srv empty.
# $1: what `make install` made. Further arguments: the service manager.
set -e
installed=$1
shift
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 none /run
for dir in etc usr var; do
	mkdir -p /run/overlay/$dir/upper /run/overlay/$dir/work
	mount -t overlay -o "lowerdir=/$dir,upperdir=/run/overlay/$dir/upper,workdir=/run/overlay/$dir/work" none /$dir
done
mount -t tmpfs -o mode=755 none /srv
cp -a "$installed/." /
# As at boot: the folder of Debian's sockets.
systemd-tmpfiles --create /usr/lib/tmpfiles.d/php*-fpm.conf
cat >/srv/service.php <<'PHP'
<?php echo 'service answers as ', posix_getpwuid(posix_geteuid())['name'], ".\n";
PHP
# What every unit depends on, without the machine's own services.
units=/run/units
mkdir $units
for target in basic sysinit shutdown network multi-user; do
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $target >$units/$target.target
done
find "$installed" -name '*.service' -exec cp {} $units ';'
cp /lib/systemd/system/php*-fpm.service $units
export container=other SYSTEMD_UNIT_PATH=$units
exec "$@"
