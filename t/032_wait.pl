# poll.wait() returns as soon as a poll would bring something, whoever wrote it and
# however; it is in nobody's way, and leaves nothing behind.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DBD::Pg ':async';
use List::Util qw(max);
use PollTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(sleep time);

my ($node, $db, %statement);

sub cursor_of { return fetch_value($_[0], q(SELECT poll.current_cursor('{items}'))); }

# Begins to wait in a session of its own; with $cursor 'now' unless it is given.
sub start_wait
{
	my ($server, %option) = @_;
	my $session = $option{session} // connect_to($server);

	$statement{ $session->{pg_pid} } = $session->prepare('SELECT poll.wait(?::text[], ?, ?::interval, ?::jsonb)',
		{ pg_async => PG_ASYNC, pg_server_prepare => 0 });
	$statement{ $session->{pg_pid} }->execute($option{feeds} // '{items}', $option{cursor} // 'now', $option{timeout} // '20 s', $option{scope});
	return $session if $option{at_once};
	wait_for(connect_to($server), q(SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = ?), $session->{pg_pid})
	  or die 'it does not wait';
	return $session;
}

# What poll.wait() has returned, or the SQLSTATE, and how many seconds that took from now.
sub finish_wait
{
	my ($session) = @_;
	my $start = time;
	my $result = eval { $session->pg_result; ($statement{ $session->{pg_pid} }->fetchrow_array)[0] };

	return ($session->state || $result, time - $start);
}

# The same by value: true, false or the SQLSTATE.
sub wait_now
{
	my ($session, @values) = @_;
	my $result = eval { fetch_value($session, 'SELECT poll.wait(?::text[], ?, ?::interval)', @values) };

	return $session->state || $result;
}

$node = new_node('wait', streaming => 1, conf => <<'CONF');
max_connections = 250
log_min_messages = fatal
CONF
$db = connect_to($node);
$db->do(<<'SQL');
CREATE TABLE items (id int PRIMARY KEY, room int);
CREATE TABLE other (id int PRIMARY KEY);
SELECT poll.track('items'), poll.track('other'), poll.track('items', 'rooms', scope => '{room}');
INSERT INTO items VALUES (1, 1);
SQL

# ---- what it returns ----

my $cursor = cursor_of($db);
is(wait_now($db, '{items}', undef, '20 s'), 1, 'a full sync has something to say');
my $start = time;
is(wait_now($db, '{items}', $cursor, '300 ms'), 0, 'nothing, for as long as it may take');
cmp_ok(time - $start, '>=', 0.3, 'which it takes');
is(wait_now($db, '{items}', $cursor, '0'), 0, 'or no time');
$db->do('INSERT INTO items VALUES (2, 1)');
is(wait_now($db, '{items}', $cursor, '20 s'), 1, 'what has happened before');
is(wait_now($db, '{items}', 'now', '100 ms'), 0, 'is not from now on');

# ---- who wakes it ----

# Does that wake it, at once and not by the next look?
sub wakes
{
	my ($what, $write, %option) = @_;
	my $session = start_wait($option{server} // $node, %option);
	my ($result, $seconds);

	$write->();
	($result, $seconds) = finish_wait($session);
	is($result, 1, "$what: it returns");
	cmp_ok($seconds, '<', $option{within} // 0.3, "$what: after " . int(1000 * $seconds) . ' ms');
	$session->disconnect;
	return;
}

my $n = 10;
foreach (1 .. 5)
{
	wakes('a commit', sub { $db->do('INSERT INTO items VALUES (?, 1)', undef, $n++) });
}
wakes('a savepoint', sub { $db->do("BEGIN; SAVEPOINT s; INSERT INTO items VALUES ($n, 1); RELEASE s; COMMIT"); $n++ });
wakes('many rows', sub { $db->do("INSERT INTO items SELECT g, 1 FROM generate_series(1000, 4000) AS g") });
wakes('TRUNCATE', sub { $db->do('TRUNCATE items') });
wakes('COMMIT PREPARED', sub {
	$db->do($_) foreach 'BEGIN', "INSERT INTO items VALUES ($n, 1)", q(PREPARE TRANSACTION 'p'), q(COMMIT PREPARED 'p');
	$n++;
});
wakes('one of several feeds', sub { $db->do("INSERT INTO other VALUES ($n)"); $n++ }, feeds => '{items,other}');
wakes('its scope', sub { $db->do("INSERT INTO items VALUES ($n, 7)"); $n++ }, feeds => '{rooms}', scope => '{"room": 7}');

# ---- who does not ----

sub does_not_wake
{
	my ($what, $write, %option) = @_;
	my $session = start_wait($node, timeout => '700 ms', %option);

	$write->();
	sleep 0.2;
	ok(!$session->pg_ready, "$what: it goes on waiting");
	$session->pg_result;
	$session->disconnect;
	return;
}

does_not_wake('another feed', sub { $db->do("INSERT INTO other VALUES ($n)"); $n++ });
does_not_wake('another scope', sub { $db->do("INSERT INTO items VALUES ($n, 8)"); $n++ }, feeds => '{rooms}', scope => '{"room": 7}');
does_not_wake('a rollback', sub { $db->do("BEGIN; INSERT INTO items VALUES ($n, 1); ROLLBACK") });
does_not_wake('a savepoint that is gone', sub { $db->do("BEGIN; SAVEPOINT s; INSERT INTO items VALUES ($n, 1); ROLLBACK TO s; COMMIT") });

# ---- in nobody's way ----

my $session = start_wait($node);
is(fetch_value($db, q(SELECT string_agg(relation::regclass || ' ' || mode, ', ') FROM pg_locks WHERE pid = ? AND relation IS NOT NULL), $session->{pg_pid}),
	undef, 'it has no lock on any table');
$db->do(q(SELECT poll.trim('0'))) foreach 1 .. 5;
is(fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE state = 'empty')), 2, 'the log is trimmed meanwhile');
is((finish_wait($session))[0], 'PT410', 'beyond what it has not seen, and so it is told');
foreach my $begin ('BEGIN ISOLATION LEVEL REPEATABLE READ', 'BEGIN ISOLATION LEVEL SERIALIZABLE', 'BEGIN; CREATE TABLE x ()')
{
	$session->do($begin);
	is(wait_now($session, '{items}', $cursor, '1 s'), '25001', "not in $begin");
	$session->do('ROLLBACK');
}
is(wait_now($session, '{nothing}', 'now', '1 s'), 'PT404', 'no such feed');
is(wait_now($session, '{other}', $cursor, '1 s'), 'PT400', 'a cursor of another feed');
is(wait_now($session, '{items}', 'now', $_), '22023', "a timeout of $_") foreach '-1 s', '61 min';
is(wait_now($session, '{items}', 'now', undef), '22004', 'none');

# who may not look any more hears of it
$db->do('CREATE ROLE reader; GRANT SELECT ON items TO reader');
$session->do('SET ROLE reader');
start_wait($node, session => $session);
$db->do('REVOKE SELECT ON items FROM reader');
is((finish_wait($session))[0], 'PT404', 'a privilege that is revoked');
$session->do('RESET ROLE');
start_wait($node, session => $session, feeds => '{other}');
$db->do(q(SELECT poll.untrack('other')));
is((finish_wait($session))[0], 'PT404', 'a feed that is gone');

# ---- how it ends ----

# each leaves its place to the next: there are 128
foreach my $i (1 .. 150)
{
	start_wait($node, session => $session, at_once => 1);
	$session->pg_cancel;
}
wakes('after 150 that were canceled', sub { $db->do("INSERT INTO items VALUES ($n, 1)"); $n++ });
foreach my $i (1 .. 10)
{
	my $gone = start_wait($node);
	$db->do('SELECT pg_terminate_backend(?)', undef, $gone->{pg_pid});
	is((finish_wait($gone))[0] ne '1', 1, 'terminated') if $i == 1;
}
$session->do(q(SET statement_timeout = '200ms'));
is(wait_now($session, '{items}', 'now', '20 s'), '57014', 'statement_timeout');
$session->do(q(RESET statement_timeout));
my $leaving = start_wait($node);
my $pid = $leaving->{pg_pid};
close_socket($leaving);
ok(wait_for($db, 'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ?', $pid), 'a client that goes away');

# Closes the connection without a word.
sub close_socket
{
	my ($handle) = @_;

	open my $socket, '>&=', $handle->{pg_socket} or die;
	shutdown $socket, 2;
	return;
}

# more than there are places
my @many = map { start_wait($node, at_once => 1) } 1 .. 150;
ok(wait_for($db, q(SELECT count(*) = 150 FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE '%poll.wait%' AND pid <> pg_backend_pid())), '150 wait');
$start = time;
$db->do("INSERT INTO items VALUES ($n, 1)"); $n++;
$_->pg_result foreach @many;
cmp_ok(time - $start, '<', 2, 'and all are woken');
$_->disconnect foreach @many;

# ---- a replica ----

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
wakes('on a standby', sub { $db->do("INSERT INTO items VALUES ($n, 1)"); $n++ }, server => $standby, within => 2);
my $waiting = start_wait($standby);
$start = time;
$standby->stop('fast');
cmp_ok(time - $start, '<', 5, 'a server that stops does not wait for it');
$waiting = start_wait($node);
$start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 5, 'nor does a primary');

# ---- without preloading ----

my $plain = new_node('plain', preload => 0);
my $on_plain = connect_to($plain);
$on_plain->do(q(CREATE TABLE items (id int PRIMARY KEY); SELECT poll.track('items')));
wakes('without shared memory', sub { $on_plain->do('INSERT INTO items VALUES (1)') }, server => $plain);

done_testing();
