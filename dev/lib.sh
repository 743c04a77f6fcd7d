# shellcheck shell=bash
#
# What the scripts in this folder share. Sourced, not run: it goes to the top of
# the source tree ("root") and picks the server to work with.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit

pg_major=15
pg_config=${PG_CONFIG:-/usr/lib/postgresql/$pg_major/bin/pg_config}

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

# The files of the source tree: known to git, or new and not ignored
list_files() {
	local file
	git -c safe.directory="$root" ls-files --cached --others --exclude-standard | sort -u |
		while IFS= read -r file; do
			if [[ -f $file ]]; then printf '%s\n' "$file"; fi
		done
}

# list_c [FOLDER/]: the C files among them
list_c() { list_files | sed -n "\\|^${1:-}.*\\.[ch]\$|p"; }

# copy_tree FOLDER: copies the files there, to build and test without leaving
# anything in the source tree
copy_tree() { list_files | tar -cf - --verbatim-files-from -T - | tar -xf - -C "$1"; }
