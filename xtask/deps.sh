#!/bin/sh
# Installs what Glasspool's build, tests and demo need from Debian's packages, and says
# what it did. Without root and without sudo it lists what is missing and stops.
set -eu
cd "$(dirname "$0")/.."

packages="php8.2-fpm php8.2-cli php8.2-cgi php8.2-opcache php8.2-dev nginx-light wrk strace clang libbpf-dev
libclang-rt-14-dev gcc g++ make pkg-config python3 python3-venv procps
acl lsof dpkg-dev libxml2-dev mariadb-server-core php8.2-mysql prometheus"

missing=
for package in $packages; do
	# nginx-light may be stood in for by another flavour of nginx.
	if [ "$package" = nginx-light ] && command -v nginx >/dev/null 2>&1; then continue; fi
	state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
	if [ "$(id -u)" = 0 ]; then
		as_root=
	elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		as_root=sudo
	else
		echo "deps: missing Debian packages:$missing" >&2
		echo "deps: install them (apt-get install$missing), or run make deps as root" >&2
		exit 1
	fi
	echo "deps: installing$missing"
	# A distribution's nginx and php-fpm start services of their own on installation;
	# here only the programs are wanted.
	policy=/usr/sbin/policy-rc.d
	made_policy=
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
		$as_root chmod 755 "$policy"
		made_policy=1
	fi
	get="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600"
	log=$(mktemp)
	# shellcheck disable=SC2086
	if ! $get install --no-install-recommends $missing >"$log" 2>&1; then
		$get update >>"$log" 2>&1 || true
		$get install --no-install-recommends $missing >>"$log" 2>&1 || status=$?
	fi
	[ -z "$made_policy" ] || $as_root rm -f "$policy"
	if [ "${status:-0}" != 0 ]; then
		tail -20 "$log" >&2
		echo "deps: apt-get failed with status $status (whole log: $log)" >&2
		exit 1
	fi
	rm -f "$log"
	echo "deps: installed$missing"
fi

if ! command -v cargo >/dev/null 2>&1; then
	echo "deps: cargo is missing: install Rust 1.88 or later (with rustup, or Debian's rustc and cargo of that version)" >&2
	exit 1
fi

venv=target/venv
if ! "$venv/bin/python" -c 'import grpc, opentelemetry.proto.collector.trace.v1.trace_service_pb2' 2>/dev/null; then
	echo "deps: making $venv for the tests' OTLP receiver"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-proto grpcio protobuf
fi
