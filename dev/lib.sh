# shellcheck shell=bash
#
# What the scripts in this folder share. Sourced, not run: it goes to the top of
# the source tree ("root") and picks the server to work with.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit

pg_major=15
pg_config=${PG_CONFIG:-/usr/lib/postgresql/$pg_major/bin/pg_config}

# use_server MAJOR: this one instead
use_server() { pg_major=$1 pg_config=/usr/lib/postgresql/$1/bin/pg_config; }

# debian_with MAJOR: the release of Debian that has this server
debian_with() {
	case $1 in
	15) echo bookworm ;;
	17) echo trixie ;;
	18) echo forky ;;
	*) die "no Debian has PostgreSQL $1" ;;
	esac
}

# shellcheck source=/dev/null
debian_here() { (source /etc/os-release && echo "${VERSION_CODENAME:-}"); }

# Stricter than the server's own flags, with which users build. The last three
# would complain about the server's headers.
# shellcheck disable=SC2034
warnings='-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers'

say() { printf '== %s\n' "$*"; }
die() { printf 'dev/%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# The comment at the top of the script that calls is its help text.
help() { sed -n '3,/^[^#]*$/s/^# \{0,1\}//p' "$0"; }

# need COMMAND PACKAGE
need() { command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2"; }
need_server() { need "$pg_config" "postgresql-server-dev-$pg_major"; }

# The files of the source tree: known to git, or new and not ignored; all, where
# it was copied without git's folder
list_files() {
	local file
	if [[ -e .git ]]; then
		git -c safe.directory="$root" ls-files --cached --others --exclude-standard
	else
		find . -type f -printf '%P\n'
	fi | sort -u |
		while IFS= read -r file; do
			if [[ -f $file ]]; then printf '%s\n' "$file"; fi
		done
}

# list_c [FOLDER/]: the C files among them
list_c() { list_files | sed -n "\\|^${1:-}.*\\.[ch]\$|p"; }

# copy_tree FOLDER: copies the files there, to build and test without leaving
# anything in the source tree
copy_tree() { list_files | tar -cf - --verbatim-files-from -T - | tar -xf - -C "$1"; }

# For scripts that install and run the extension: they are root, work in the
# temporary folder $work, and run everything but the installation as $user.
#
#   begin_work; install_packages [PACKAGE...]; copy_tree "$work/tree"; build_tree

# shellcheck disable=SC2034
user=postgres			# comes with Debian's packages
keep=					# leave the folder
uninstall=				# the extension was not there before
environment=()			# assignments, for make_tree_as_user
createcluster=/etc/postgresql-common/createcluster.d/poll_ext.conf
policy=/usr/sbin/policy-rc.d
own_policy=				# it is ours

# become_root ARGUMENT...: starts the script again by sudo if need be
become_root() {
	((EUID)) || return 0
	command -v sudo >/dev/null || die 'run it as root: it installs packages and the extension'
	exec sudo -- "$root/dev/${0##*/}" "$@"
}

begin_work() {
	work=$(mktemp -d)
	trap end_work EXIT
	trap 'exit 130' INT TERM HUP
}

# Whatever happened: no server, no extension, no folder stays.
end_work() {
	local pid
	remove_policies
	find "$work" -name postmaster.pid -exec head -qn 1 {} + | while read -r pid; do
		kill -QUIT "$pid" 2>/dev/null || true
	done
	[[ ! $uninstall ]] || make_tree uninstall >/dev/null || true
	# a server that is just going down may still write
	[[ $keep ]] || rm -rf "$work" 2>/dev/null || { sleep 2 && rm -rf "$work"; }
}

# Installs what building and running needs, and these packages, if missing.
install_packages() {
	local package missing=()
	for package in build-essential perl libdbd-pg-perl \
		"postgresql-$pg_major" "postgresql-server-dev-$pg_major" "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>&1) == installed ]] ||
			missing+=("$package")
	done
	if ((${#missing[@]})); then
		say "installing ${missing[*]}"
		# Debian would create a server, and start it and others at once. We need none.
		mkdir -p "${createcluster%/*}"
		echo 'create_main_cluster = false' >"$createcluster"
		[[ -e $policy ]] || { own_policy=1 && install -m 755 /dev/stdin "$policy" <<<$'#!/bin/sh\nexit 101'; }
		{
			apt-get update -qq
			DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
		} >"$work/apt.log" 2>&1 || { tail -n 30 "$work/apt.log"; die 'cannot install the packages'; }
		for package in pgbouncer nginx; do
			[[ " ${missing[*]} " != *" $package"* ]] ||
				deb-systemd-helper disable "$package.service" >/dev/null 2>&1 || true
		done
		remove_policies
	fi
	need_server
}

remove_policies() {
	[[ ! $own_policy ]] || rm -f "$policy"
	own_policy=
	if [[ -f $createcluster ]]; then
		rm "$createcluster"
		rmdir --ignore-fail-on-non-empty "${createcluster%/*}"
	fi
}

# as_user COMMAND...: in $work and in an environment that is always the same
as_user() {
	setpriv --reuid="$user" --regid="$user" --init-groups --reset-env \
		env -C "$work" HOME="$work" LANG=C.UTF-8 "$@"
}

make_tree() { make -s -C "$work/tree" PG_CONFIG="$pg_config" "$@"; }
make_tree_as_user() { as_user "${environment[@]}" make -s -C "$work/tree" PG_CONFIG="$pg_config" "$@"; }

# build_tree [ASSIGNMENT...]: builds the copy of the tree and installs it
build_tree() {
	chown -R "$user": "$work"
	make_tree_as_user -j "$(nproc)" "$@" all || return
	[[ -e $("$pg_config" --pkglibdir)/poll_ext.so ]] || uninstall=1
	make_tree install >/dev/null
}

# What the gateway is built with
# shellcheck disable=SC2034
gateway_packages='libpq-dev libmicrohttpd-dev libjansson-dev pkg-config'

# build_gateway, build_polltail [ASSIGNMENT...]: builds it in the copy of the tree
build_gateway() { make_tree_as_user -C gateway "$@"; }
build_polltail() { make_tree_as_user -C bin "$@"; }
