# shellcheck shell=bash
#
# What the scripts in this folder share, on top of dev/lib.sh. Sourced, not run.
#
# A benchmark works in a temporary folder, with a server of its own that no other
# can disturb: a copy of the installed server, into which the extension of this
# source tree is installed. The system's own server stays as it is.
#
# Figures come from alternating runs (A B A B ...) and are medians. A ratio is the
# median of the ratios of each round, so that a machine that becomes slower or
# faster meanwhile does not matter; behind it stand its quartiles.

# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../dev/lib.sh"

die() { printf 'bench/%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

unset "${!PG@}"
export LC_ALL=C.UTF-8

quick='' target=''
met=0 missed=0

# shellcheck disable=SC2034
parse_options() {
	local arguments=("$@") release
	while (($#)); do
		case $1 in
		--help | -h) help; exit ;;
		--quick) quick=1 ;;
		--keep) keep=1 ;;
		--pg) use_server "${2:?--pg needs a version}"; shift ;;
		*) die "unknown option $1, see --help" ;;
		esac
		shift
	done
	if ((EUID)); then
		command -v sudo >/dev/null || die 'run it as root: it installs packages'
		exec sudo -- "$root/bench/${0##*/}" "${arguments[@]}"
	fi
	release=$(debian_with "$pg_major")
	[[ -x $pg_config || $release == "$(debian_here)" ]] ||
		exec dev/debian "$release" "bench/${0##*/}" "${arguments[@]}"
}

# ---- the server ----

# A benchmark may redefine this, to add files to the copy of the tree.
extend_tree() { :; }

# Copies the installed server, its programs, modules and extensions, and installs
# the extension of this tree into the copy. A server finds its files from where it
# is itself.
install_server() {
	local folder
	mkdir "$work/tree"
	copy_tree "$work/tree"
	extend_tree
	for folder in "$bindir" "$pkglibdir" "$sharedir"; do
		mkdir -p "$work/server$folder"
		cp -a "$folder/." "$work/server$folder"
	done
	# without LLVM bitcode: it is for inlining into compiled queries, none here
	make_tree -j "$(nproc)" with_llvm=no DESTDIR="$work/server" all install \
		>"$work/make.log" 2>&1 ||
		{ tail -n 30 "$work/make.log"; die 'the extension does not build'; }
	chown -R "$user": "$work"
}

start_server() {
	as_user "$work/server$bindir/initdb" -D "$work/data" -A trust -E UTF8 --locale=C.UTF-8 \
		--no-sync >"$work/initdb.log"
	cat >>"$work/data/postgresql.conf" <<-END
		shared_preload_libraries = 'poll_ext'
		listen_addresses = ''
		unix_socket_directories = '$work'
		# The disk is not what we measure
		fsync = off
		full_page_writes = off
		shared_buffers = 1GB
		# Nothing goes on beside a run
		autovacuum = off
		checkpoint_timeout = 1h
		max_wal_size = 4GB
		min_wal_size = 1GB
	END
	as_user "$work/server$bindir/pg_ctl" -D "$work/data" -l "$work/server.log" -w start \
		>"$work/start.log" || { tail -n 30 "$work/server.log"; die 'the server does not start'; }
	export PGHOST=$work PGUSER=postgres PGDATABASE=postgres
}

restart_server() {
	as_user "$work/server$bindir/pg_ctl" -D "$work/data" -l "$work/server.log" -w -m fast restart \
		>"$work/start.log" || { tail -n 30 "$work/server.log"; die 'the server does not start'; }
}

end_bench() {
	stop_servers
	if [[ $keep && -f $work/data/postmaster.pid ]]; then
		say "process $(head -n 1 "$work/data/postmaster.pid") still serves: psql -h $work -U postgres"
	else
		end_work
	fi
}

# begin_bench [PACKAGE...]: everything up to a running server
begin_bench() {
	begin_work
	trap end_bench EXIT
	install_packages "$@"
	bindir=$("$pg_config" --bindir)
	pkglibdir=$("$pg_config" --pkglibdir)
	sharedir=$("$pg_config" --sharedir)
	install_server
	start_server
	describe
}

describe() {
	printf '%s, %d cores, %d GiB, Linux %s\n' \
		"$(sed -n 's/^model name[ \t]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
		"$(awk '/^MemTotal/ { print ($2 + 524288) / 1048576 }' /proc/meminfo | cut -d. -f1)" \
		"$(uname -r)"
	sql -c 'SHOW server_version' | sed 's/^/PostgreSQL /'
	echo 'fsync, full_page_writes and autovacuum are off, shared_buffers is 1 GB'
}

# ---- servers beside that ----

pids=''

# start LOG COMMAND...: in the background; it ends with the benchmark
start() { pids+=" $(as_user sh -c 'log=$1; shift; "$@" >"$log" 2>&1 & echo $!' sh "$@")"; }

stop_servers() {
	# shellcheck disable=SC2086
	[[ ! $pids ]] || kill $pids 2>/dev/null || true
	pids=''
}

free_port() { perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'; }

# start_gateway CONNECTION [OPTION...]: sets gateway, its address
start_gateway() {
	build_gateway >"$work/gateway.make" 2>&1 || { cat "$work/gateway.make"; die 'the gateway does not build'; }
	start "$work/gateway.log" "$work/tree/gateway/poll-gateway" -d "host=$work $1" -l 127.0.0.1:0 "${@:2}"
	for _ in {1..100}; do
		gateway=$(sed -n 's/.*listening on //p' "$work/gateway.log")
		[[ ! $gateway ]] || return 0
		sleep 0.05
	done
	die 'the gateway does not start'
}

# polls_answered: by the gateway, so far
polls_answered() {
	curl -s "$gateway/metrics" | awk '/^poll_gateway_requests_total{route="poll"/ { n += $2 } END { print n + 0 }'
}

# run_nginx URL: with one worker and what standard input says of http, until that
# address answers
run_nginx() {
	mkdir "$work/nginx"
	cat >"$work/nginx.conf" <<-END
		daemon off;
		worker_processes 1;
		pid $work/nginx/pid;
		error_log $work/nginx/error.log;
		events { worker_connections 4096; }
		http {
			access_log off;
			keepalive_requests 1000000000;
			client_body_temp_path $work/nginx/body;
			proxy_temp_path $work/nginx/proxy;
			fastcgi_temp_path $work/nginx/fastcgi;
			uwsgi_temp_path $work/nginx/uwsgi;
			scgi_temp_path $work/nginx/scgi;
			$(cat)
		}
	END
	chown -R "$user": "$work/nginx"
	start "$work/nginx.log" /usr/sbin/nginx -p "$work/nginx" -c "$work/nginx.conf"
	curl -s --retry 20 --retry-delay 1 --retry-connrefused -o /dev/null "$1" || die 'nginx does not start'
}

# run_wrk CONNECTIONS SECONDS [OPTION...] URL: prints requests a second
run_wrk() {
	wrk -t 1 -c "$1" -d "$2s" "${@:3}" >"$work/wrk.log" || die 'wrk failed'
	! grep -q 'Socket errors' "$work/wrk.log" || die "$(grep 'Socket errors' "$work/wrk.log")"
	sed -n 's/^Requests\/sec: *//p' "$work/wrk.log"
}

# header URL NAME [OPTION...]: its value in an answer
header() { curl -s -D - -o /dev/null "${@:3}" "$1" | tr -d '\r' | sed -n "s/^$2: //ip"; }

# sql [OPTION...]: runs -c's command or standard input
sql() { "$bindir/psql" -XqAt -v ON_ERROR_STOP=1 "$@"; }

# Transactions of a run, for each series
declare -A transactions

# pgbench_run CLIENTS SCRIPT [OPTION...]: prints transactions a second. Statements
# are prepared, and their variables are parameters.
pgbench_run() {
	"$bindir/pgbench" -n -M prepared -c "$1" -j "$1" -f "$2" "${@:3}" >"$work/pgbench.log" 2>&1 ||
		{ cat "$work/pgbench.log" >&2; die 'pgbench failed'; }
	sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$work/pgbench.log"
}

# measure SERIES CLIENTS SCRIPT [OPTION...]: adds a run to the series. The first
# call warms up for a second and finds how many transactions half a second takes:
# short runs, and many of them, so that all of a round see the same machine.
measure() {
	local figure
	if [[ ${transactions[$1]:-} ]]; then
		figure=$(pgbench_run "${@:2}" -t "${transactions[$1]}")
		add "$1" "$figure"
	else
		figure=$(pgbench_run "${@:2}" -T 1)
		transactions[$1]=$(awk -v tps="$figure" -v clients="$2" \
			'BEGIN { print int(tps / clients / 2) + 1 }')
	fi
}

# The tables of the change log
log_tables="SELECT oid::regclass AS log FROM pg_catalog.pg_class
	WHERE relnamespace = 'poll'::regnamespace AND relkind = 'r' AND relname ~ '^change'"

truncate_log() {
	sql "$@" <<-END
		SELECT 'TRUNCATE ' || string_agg(log::text, ', ') FROM ($log_tables) t \gexec
	END
}

# log_sum EXPRESSION [OPTION...]: its sum over the rows of all tables of the log
log_sum() {
	local expression=$1
	shift
	sql "$@" <<-END
		SELECT 'SELECT sum(n) FROM (' || string_agg('SELECT $expression AS n FROM ' || log::text, ' UNION ALL ') || ') t'
			FROM ($log_tables) t \gexec
	END
}

log_size() { sql "$@" -c "SELECT sum(pg_total_relation_size(log)) FROM ($log_tables) t"; }

# ---- figures ----

# The figures of each series, one for each round
declare -A series

add() { series[$1]+="$2 "; }
forget() { series=() transactions=(); }

# quartiles NUMBER...: the median and the quartiles
quartiles() {
	printf '%s\n' "$@" | sort -g | awk '
		{ v[NR] = $1 }
		function at(q,    r, i) { r = 1 + (NR - 1) * q; i = int(r); return v[i] + (r - i) * (v[i < NR ? i + 1 : i] - v[i]) }
		END { print at(0.5), at(0.25), at(0.75) }'
}

# shellcheck disable=SC2086
median() { quartiles ${series[$1]} | cut -d ' ' -f 1; }

# ratio A B: A's figures by B's, round by round; fewer rounds of A are fine
ratio() {
	local a b i ratios=()
	read -ra a <<<"${series[$1]}"
	read -ra b <<<"${series[$2]}"
	for i in "${!a[@]}"; do
		ratios+=("$(awk -v a="${a[i]}" -v b="${b[i]}" 'BEGIN { print a / b }')")
	done
	quartiles "${ratios[@]}"
}

# verdict NUMBER COMPARISON TARGET [UNIT]: the target and whether it is met; also
# sets missed or met. COMPARISON is <= or >=.
verdict() {
	local result=MISS
	if awk "BEGIN { exit !($1 $2 $3) }"; then
		result=ok
		met=$((met + 1))
	else
		missed=$((missed + 1))
	fi
	target=$(printf 'target %s %s%s  %s' "$2" "$3" "${4:-}" "$result")
}

# line NAME FIGURE [RATIO [TARGET]]
line() { printf '  %-46s %14s  %-22s %s\n' "$1" "$2" "${3:-}" "${4:-}" | sed 's/ *$//'; }

# compare SERIES PEER FORMAT [COMPARISON TARGET [NAME]]: a line with the median, in
# printf's FORMAT, and the ratio to the peer
compare() {
	local m low high target=''
	read -r m low high < <(ratio "$1" "$2")
	m=$(printf '%.3f' "$m")
	[[ ! ${4:-} ]] || verdict "$m" "$4" "$5"
	line "${6:-$1}" "$(printf "$3" "$(median "$1")")" "$(printf '%.3f x (%.2f-%.2f)' "$m" "$low" "$high")" "$target"
}

# value NAME NUMBER FORMAT COMPARISON TARGET UNIT: a line with a figure that has a
# target itself
value() {
	local target=''
	verdict "$2" "$4" "$5" "$6"
	line "$1" "$(printf "$3" "$2")" '' "$target"
}

# The last line, and the exit code
finish() {
	printf '%d targets met, %d missed\n' "$met" "$missed"
	((missed == 0))
}

# ---- alternating runs over one connection ----

# What is run: a statement in a database, with values for its variables. pgbench
# sends those as the parameters of a prepared statement.
declare -A statement database values
order=()

# define NAME DATABASE STATEMENT [-D VARIABLE=VALUE...]
define() {
	order+=("$1")
	statement[$1]=$3
	database[$1]=$2
	shift 3
	values[${order[-1]}]=${*:+$(printf '%q ' "$@")}
}

# run_all ROUNDS: all that was defined, alternating
run_all() {
	local round i options
	forget
	for ((round = 0; round <= $1; round++)); do
		for i in "${!order[@]}"; do
			printf '%s;\n' "${statement[${order[i]}]}" >"$work/$i.sql"
			eval "options=(${values[${order[i]}]})"
			PGDATABASE=${database[${order[i]}]} measure "${order[i]}" 1 "$work/$i.sql" "${options[@]}"
		done
	done
	order=()
}

# peer NAME: its line, without a ratio
peer() { line "$1" "$(printf '%.0f/s' "$(median "$1")")"; }
# against PEER SERIES [COMPARISON TARGET [NAME]]
against() { compare "$2" "$1" '%.0f/s' "${@:3}"; }
