# Answers that are shared are right: mirrors that poll through the cache, with a time to
# live and without, end as the table; roles and claims get what is theirs; who makes an
# answer may die, and the others go on; memory is bounded.
#
# POLL_TEST_DURATION	seconds of each stress, 8 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DBD::Pg ':async';
use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = random_seed();
my $duration = $ENV{POLL_TEST_DURATION} // 8;
srand($seed);

my $node = new_node('cache', conf => "wal_level = 'logical'\n");
my $db = connect_to($node);

# ---- helpers ----

sub counters { return $db->selectrow_hashref('SELECT * FROM poll.stat_cache'); }

# What the function adds to the counters.
sub counted
{
	my ($function) = @_;
	my $before = counters();

	$function->();
	my $after = counters();
	return { map { $_ => $after->{$_} - $before->{$_} } keys %$after };
}

sub respond
{
	my ($session, $query) = @_;
	my $row = $session->selectrow_hashref(q(SELECT * FROM poll.respond(jsonb_build_object('query', ?::text))), undef, $query);

	return { status => $row->{status}, page => $row->{body} ? decode_json($row->{body}) : undef };
}

sub query_of
{
	my ($mirror, $max_rows) = @_;

	return "feeds=items&max_rows=$max_rows" . (defined $mirror->{cursor} ? "&cursor=$mirror->{cursor}" : '');
}

sub take_answer
{
	my ($mirror, $session, $max_rows) = @_;
	my $answer = respond($session, query_of($mirror, $max_rows));

	return 1 if $answer->{status} == 503;
	if ($answer->{status} != 200)
	{
		$mirror->fault("status $answer->{status}");
		return 0;
	}
	$mirror->take_page($answer->{page}, $max_rows);
	return $answer->{page}{has_more};
}

# What was begun before a change of the catalogs is not used any more: a new horizon.
sub begin_period { return $db->do(q(COMMENT ON TABLE items IS 'a period')); }

# All at once, in sessions of their own, the same statement; the first column of the first
# row of each, or the error.
sub all_at_once
{
	my ($sessions, $sql, @values) = @_;
	my @statements = map { $_->prepare($sql, { pg_async => PG_ASYNC }) } @$sessions;

	$_->execute(@values) foreach @statements;
	return map { eval { $_->pg_result; ($_->fetchrow_array)[0] } // "error: $@" } @statements;
}

# ---- mirrors ----

# Clients that mostly ask the same.
sub stress_poller
{
	my ($number, $ttl, $stop_file) = @_;
	my $session = connect_to($node);
	my $mirror = PollMirror->new('items');

	srand($seed + 1000 + $number);
	$session->do("SET poll_ext.cache_ttl = '$ttl'");
	while (!-e $stop_file)
	{
		take_answer($mirror, $session, rand() < 0.9 ? 1000 : log_uniform(1000));
		$mirror->restart if rand() < 0.005;
		sleep rand(0.01);
	}
	# who is content with what is old has it after that time
	foreach (1 .. 5000)
	{
		next if take_answer($mirror, $session, 1000);
		last if fetch_value($session, 'SELECT NOT poll.has_changes(?::text[], ?::text)', ['items'], $mirror->{cursor});
		sleep 0.01;
	}
	# it may still list a transaction that has brought nothing in the end
	$session->do('SET poll_ext.cache_ttl = 0');
	take_answer($mirror, $session, 1000);
	return $mirror->report;
}

create_items($db);
foreach my $ttl ('0', '1 s', '100 ms')
{
	my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';
	my @reports;
	my $counted = counted(sub {
		my @writers = start_writers($node, 4, $seed + 10 * length $ttl, $duration);
		my @pollers = map { my $number = $_; start_child("poller $number", sub { stress_poller($number, $ttl, $stop_file) }) } 1 .. 6;
		note "ttl $ttl: " . writer_summary(finish_children(@writers));
		append_to_file($stop_file, '');
		@reports = finish_children(@pollers);
	});
	check_mirrors($db, @reports);
	note join ', ', map { "$counted->{$_} $_" } sort keys %$counted;
	cmp_ok($counted->{hits}, '>', 100, "ttl $ttl: answers are shared");
	cmp_ok($counted->{hits}, '>', 2 * $counted->{misses}, "ttl $ttl: and most of them") if $ttl eq '1 s';
}

# ---- one horizon ----

$db->do('TRUNCATE items');
$db->do("INSERT INTO items SELECT i, 0, 'a' FROM generate_series(1, 50) AS i");
my @clients = map { { mirror => PollMirror->new('items'), db => connect_to($node) } } 1 .. 3;
foreach my $client (@clients)
{
	$client->{mirror}->drain($client->{db}, 1000);
	$db->do('UPDATE items SET v = v + 1 WHERE id < 10');
	$client->{db}->do(q(SET poll_ext.cache_ttl = '60 s'));
}
begin_period();
isnt($clients[0]{mirror}{cursor}, $clients[1]{mirror}{cursor}, 'clients that have seen different changes');
my $open = connect_to($node);
$open->begin_work;
$open->do('UPDATE items SET v = -1 WHERE id IN (20, 21)');
take_answer($clients[0]{mirror}, $clients[0]{db}, 1000);
$db->do('UPDATE items SET v = 100 WHERE id IN (1, 30)');
$db->do('DELETE FROM items WHERE id = 2');
$open->commit;
take_answer($_->{mirror}, $_->{db}, 1000) foreach @clients[ 1, 2 ];
is($clients[$_]{mirror}{cursor}, $clients[0]{mirror}{cursor}, 'leave with one cursor, whatever has come since') foreach 1, 2;
is(join(' ', map { $_ // '-' } map { ($_->{mirror}{rows}{20}, $_->{mirror}{rows}{30}) } @clients),
	join(' ', map { $_ // '-' } map { ($_->{mirror}{rows}{20}, $_->{mirror}{rows}{30}) } @clients[ 0, 0, 0 ]), 'without that');
foreach my $client (@clients[ 1, 2 ])
{
	unlike($client->{mirror}{rows}{1}, qr/"v":100/, 'what has changed since is not shown as it is now');
	ok($client->{mirror}{rows}{2}, 'nor as deleted');
}
my $counted = counted(sub { take_answer($_->{mirror}, $_->{db}, 1000) foreach @clients });
is("$counted->{misses} $counted->{hits}", '1 5', 'and ask the same: one look at the horizon each, and one answer for all');
$_->{db}->do('SET poll_ext.cache_ttl = 0') foreach @clients;
take_answer($_->{mirror}, $_->{db}, 1000) foreach @clients;
check_mirrors($db, map { $_->{mirror}->report } @clients);

# TRUNCATE is no change of a key: then it is as of now
$_->{db}->do(q(SET poll_ext.cache_ttl = '60 s')) foreach @clients;
begin_period();
$db->do('UPDATE items SET v = 7 WHERE id = 3');
take_answer($clients[0]{mirror}, $clients[0]{db}, 1000);
$db->do('UPDATE items SET v = 8 WHERE id = 4');
$db->do('TRUNCATE items');
take_answer($clients[1]{mirror}, $clients[1]{db}, 999);
is(scalar keys %{ $clients[1]{mirror}{rows} }, 0, 'a TRUNCATE is seen at once');
$_->{db}->do('SET poll_ext.cache_ttl = 0') foreach @clients;
take_answer($_->{mirror}, $_->{db}, 1000) foreach @clients;
check_mirrors($db, map { $_->{mirror}->report } @clients);

# ---- what was open ----

$db->do("INSERT INTO items SELECT i, 0, 'a' FROM generate_series(1, 50) AS i");
my $cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$open->begin_work;
$open->do('UPDATE items SET v = 1 WHERE id = 7');
$db->do('UPDATE items SET v = 1 WHERE id = 8');
is(join(' ', map { $_->{key}{id} } @{ respond($db, "feeds=items&cursor=$cursor")->{page}{changes}{items} }), 8, 'an answer while somebody has not committed');
$open->commit;
is(join(' ', sort map { $_->{key}{id} } @{ respond($db, "feeds=items&cursor=$cursor")->{page}{changes}{items} }), '7 8', 'is not shared when he has');

# ---- times ----

my $since = fetch_value($db, q(SELECT to_json(clock_timestamp())#>>'{}'));
sleep 1.2;
$db->do('UPDATE items SET v = 1 WHERE id = 5');
$since =~ s/\+/%2B/;
$counted = counted(sub { respond($_->{db}, "feeds=items&since=$since") foreach @clients });
is("$counted->{misses} $counted->{hits}", '1 2', 'a time of the same second is the same question');
my $session = $clients[0]{db};
$session->do(q(SET poll_ext.cache_ttl = '60 s'));
begin_period();
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('UPDATE items SET v = 2 WHERE id = 5');
my $answer = respond($session, "feeds=items&cursor=$cursor");
$db->do('UPDATE items SET v = 3 WHERE id = 6');
my $again = respond($session, "feeds=items&cursor=$cursor");
is($again->{page}{timestamp}, $answer->{page}{timestamp}, 'an answer of a moment ago has its time');
($since = $again->{page}{timestamp}) =~ s/\+/%2B/;
$session->do('SET poll_ext.cache_ttl = 0');
ok((grep { $_->{key}{id} == 6 } @{ respond($session, "feeds=items&since=$since")->{page}{changes}{items} }),
	'since that, what it did not have comes');

# ---- whose answer it is ----

$db->do(<<'SQL');
CREATE ROLE a; CREATE ROLE b;
GRANT EXECUTE ON FUNCTION poll.respond, poll.cached TO a, b;
CREATE TABLE notes (id int PRIMARY KEY, owner text, at timestamptz DEFAULT '2000-01-01 00:00+00');
INSERT INTO notes SELECT i, (ARRAY['x', 'y'])[i % 2 + 1] FROM generate_series(1, 10) AS i;
CREATE TABLE plain (id int PRIMARY KEY, at timestamptz);
INSERT INTO plain VALUES (1, '2000-01-01 00:00+00');
GRANT SELECT ON notes, plain TO a, b;
CREATE POLICY own ON notes USING (owner = current_setting('app.login', true) OR current_user = 'b');
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
SELECT poll.track('notes'), poll.track('plain');
SQL

# How many rows of notes somebody sees, by a full sync.
sub sees
{
	my ($who, $login, $claims) = @_;

	$session->do("RESET ROLE; SET poll_ext.cache_claims = '$claims'; SET app.login = '$login'; SET ROLE $who");
	my $rows = respond($session, 'feeds=notes')->{page}{changes}{notes};
	$session->do('RESET ROLE');
	return scalar @$rows;
}

foreach my $claims ('', 'app.login', 'app.login, app.other')
{
	$counted = counted(sub {
		is(join(' ', map { sees(@$_, $claims) } ['a', 'x'], ['a', 'y'], ['a', 'z'], ['b', 'z'], ['a', 'x'], ['b', 'z']),
			'5 5 0 10 5 10', "claims '$claims': everybody gets their own")
	});
	is("$counted->{misses} $counted->{hits}", $claims ? '4 2' : '0 0', 'which is shared with their like, if it is told who that is');
}
foreach my $setting ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'German'", "ROLE a")
{
	my $get = sub { my $page = respond($session, 'feeds=plain')->{page}; return $page->{changes}{plain}[0]{data}{at}; };
	my $before = $get->();
	my $during;
	my $printed = counted(sub {
		$session->do("SET $setting");
		$during = $get->();
		$session->do('RESET ALL; RESET ROLE');
	});
	is($printed->{misses}, 1, "$setting: another answer");
	isnt($during, $before, 'which says something else') if $setting =~ /TimeZone/;
	is($get->(), $before, 'and back');
}
$session->do('SET ROLE a');
respond($session, 'feeds=plain');
$session->do('RESET ROLE');
$db->do('REVOKE SELECT ON plain FROM a');
$session->do('SET ROLE a');
is(respond($session, 'feeds=plain')->{status}, 404, 'who may not read any more gets nothing');
$session->do('RESET ROLE');
is(sees('b', 'z', 'app.login'), 10, 'what is in the cache');
$db->do('ALTER POLICY own ON notes USING (false)');
is(sees('b', 'z', 'app.login'), 0, 'does not count when a policy has changed');
$db->do('BEGIN');
$db->do('ALTER POLICY own ON notes USING (true)');
$db->do(q(PREPARE TRANSACTION 'policy'));
is(sees('b', 'z', 'app.login'), 0, 'nor before it has');
$db->do(q(COMMIT PREPARED 'policy'));
is(sees('b', 'z', 'app.login'), 10, 'also if that was prepared');
$session->do("RESET ALL");

# what a transaction has written, or sees by an older snapshot, is its own
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('UPDATE items SET v = 10 WHERE id = 1');
respond($db, "feeds=items&cursor=$cursor");
foreach my $begin ('BEGIN; CREATE TEMP TABLE written ()', 'BEGIN ISOLATION LEVEL REPEATABLE READ')
{
	$session->do($begin);
	$counted = counted(sub { is(respond($session, "feeds=items&cursor=$cursor")->{status}, 200, $begin) });
	is("$counted->{misses} $counted->{hits}", '0 0', 'does not share');
	$session->do('ROLLBACK');
}

# ---- many at once ----

$db->do(<<'SQL');
CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN true; END $$;
CREATE TABLE hot (id int PRIMARY KEY);
INSERT INTO hot VALUES (1);
GRANT SELECT ON hot TO a;
ALTER TABLE hot ENABLE ROW LEVEL SECURITY;
CREATE POLICY slow ON hot USING (slow());
SELECT poll.track('hot');
SQL
my @sessions = map { connect_to($node) } 1 .. 50;
$_->do("SET poll_ext.cache_claims = 'app.login'; SET ROLE a") foreach @sessions;
respond($_, 'feeds=items&cursor=now') foreach @sessions;
$counted = counted(sub {
	my @answers = all_at_once(\@sessions,
		q(SELECT string_agg(DISTINCT r.status || ' ' || (r.body::jsonb #>> '{changes,hot}'), ',')
			FROM generate_series(1, 20) AS i, poll.respond(jsonb_build_object('query', 'feeds=hot&max_rows=' || (100 + 0 * i))) AS r));
	is(join("\n", do { my %h = map { $_ => 1 } @answers; keys %h }),
		'200 [{"op": "upsert", "key": {"id": 1}, "data": {"id": 1}, "version": null}]', 'a thousand polls, 50 at a time: all get the answer');
});
is($counted->{misses}, 1, 'which was made once');
is($counted->{hits}, 999, 'for all');
is($counted->{timeouts}, 0, 'and nobody has waited in vain');

# ---- who makes it goes away ----

# where there are policies, and no claims, nothing is kept
$db->do('DROP POLICY own ON notes');
$db->do('DROP POLICY slow ON hot');

$db->do(<<'SQL');
CREATE FUNCTION made() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('app.victim', true) = 'sleep' THEN PERFORM pg_sleep(30);
	ELSIF current_setting('app.victim', true) = 'fail' THEN PERFORM pg_sleep(0.1); RAISE 'no memory' USING ERRCODE = '53200';
	END IF;
	RETURN current_setting('application_name');
END $$;
SQL
my $n = 0;

# A session begins to make an answer, others wait for it; then something happens.
sub maker_ends
{
	my ($name, $victim, $end) = @_;
	my $maker = connect_to($node);
	my $key = 'maker ' . $n++;
	my $call = q(SELECT poll.cached(?, '1 hour', 'SELECT made()'));
	my @waiters = map { connect_to($node) } 1 .. 3;

	$maker->do("SET application_name = 'maker'; SET app.victim = '$victim'");
	$_->do("SET application_name = 'waiter'") foreach @waiters;
	$counted = counted(sub {
		my $statement = $maker->prepare($call, { pg_async => PG_ASYNC });
		$statement->execute($key);
		wait_for($db, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'maker' AND wait_event = 'PgSleep'));
		my @statements = map { $_->prepare($call, { pg_async => PG_ASYNC }) } @waiters;
		$_->execute($key) foreach @statements;
		$end->($maker);
		my @results = map { $_->pg_result; ($_->fetchrow_array)[0] } @statements;
		is("@results", '"waiter" "waiter" "waiter"', "$name: the others go on");
		eval { $statement->pg_result } if $victim ne 'sleep';
		eval { $maker->pg_cancel } if $maker->{pg_async_status};
		$maker->disconnect;
	});
	return $counted;
}

foreach my $case (
	['canceled', 'sleep', sub { $db->do('SELECT pg_cancel_backend(?)', undef, $_[0]{pg_pid}) }],
	['terminated', 'sleep', sub { $db->do('SELECT pg_terminate_backend(?)', undef, $_[0]{pg_pid}) }],
	['out of memory', 'fail', sub { }])
{
	$counted = maker_ends(@$case);
	is("$counted->{misses} $counted->{timeouts}", '2 0', 'at once, one of them for all');
}
$counted = maker_ends('one that takes long', 'sleep', sub { sleep 0.3 });
cmp_ok($counted->{timeouts}, '>=', 1, 'but not for ever: then they make it themselves');

# ---- memory ----

$node->append_conf('postgresql.conf', "poll_ext.cache_size = '1MB'");
$_->disconnect foreach @sessions, map { $_->{db} } @clients;
$db->disconnect;
$node->restart;
$db = connect_to($node);
is(counters()->{entries}, 0, 'a restart forgets');

sub fill_cache
{
	my ($number) = @_;
	my $filler = connect_to($node);
	my $wrong = 0;
	my $end = time + $duration / 3;

	srand($seed + $number);
	while (time < $end)
	{
		my ($letter, $size) = (chr(97 + int rand 26), log_uniform(40000));
		my $value = fetch_value($filler, 'SELECT poll.cached(?, ?, ?)', "$letter$size", '1 hour', "SELECT repeat('$letter', $size)");
		$wrong++ if $value ne '"' . $letter x $size . '"';
	}
	return { wrong => $wrong };
}

my @wrong = map { $_->{wrong} } finish_children(map { my $number = $_; start_child("filler $number", sub { fill_cache($number) }) } 1 .. 4);
is("@wrong", '0 0 0 0', 'in little memory, nobody gets anything wrong');
my $now = counters();
note join ', ', map { "$now->{$_} $_" } sort keys %$now;
cmp_ok($now->{evictions}, '>', 100, 'answers make room');
cmp_ok($now->{bytes}, '<=', $now->{max_bytes}, 'and take no more than there is');
cmp_ok($now->{bytes}, '>', 50_000, 'but that');
$db->do(q(SELECT poll.cached(i::text, '1 hour', 'SELECT 1') FROM generate_series(1, 3000) AS i));
cmp_ok(counters()->{entries}, '<=', 512, 'small ones, too');

$node->append_conf('postgresql.conf', 'poll_ext.cache_size = 0');
$db->disconnect;
$node->restart;
$db = connect_to($node);
is(respond($db, 'feeds=items')->{status}, 200, 'without a cache, polls are answered');
is(fetch_value($db, q(SELECT poll.cached('x', '1 hour', 'SELECT 1'))), 1, 'and queries');
ok(!eval { counters(); 1 } && $db->state eq '55000', 'which the view says');
$db->disconnect;

done_testing();
