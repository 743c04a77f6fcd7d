# Rate limits between sessions: who counts together and who does not, when a
# policy is in force, and what a restart, a crash, a standby, a copy and a dump
# make of it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use List::Util qw(sum);
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_node('primary', streaming => 1, conf => <<'CONF');
restart_after_crash = on
CONF
my $db = connect_to($primary);

sub set_policy
{
	my ($db, @policy) = @_;

	$db->do('SELECT poll.set_rate_policy(' . join(', ', ('?') x @policy) . ')', undef, @policy);
	return;
}

sub allowed
{
	my ($db, $client, $endpoint) = @_;

	return fetch_value($db, 'SELECT allowed FROM poll.rate_check(?, ?)', $client, $endpoint // 'default');
}

# How many of n checks are allowed.
sub count_allowed
{
	my ($db, $client, $endpoint, $n) = @_;

	return fetch_value($db, <<'SQL', $client, $endpoint, $n);
SELECT count(*) FILTER (WHERE (poll.rate_check($1, $2)).allowed) FROM generate_series(1, $3)
SQL
}

sub quota { return fetch_value($_[0], 'SELECT quota FROM poll.rate_peek(?, ?)', 'somebody', $_[1]); }

sub error_of
{
	my ($db, $sql) = @_;

	return eval { $db->do($sql); 1 } ? 'none' : $db->state . ' ' . $db->errstr;
}

# Results of as many children, each with a connection.
sub in_parallel
{
	my ($n, $function) = @_;

	return finish_children(
		map
		{
			start_child("client $_", sub { $function->(connect_to($primary)) })
		} 1 .. $n);
}

# Many at once spend exactly the quota of one client.
foreach my $algorithm (qw(window strict gcra))
{
	# gcra gives something back all the time
	set_policy($db, $algorithm, $algorithm eq 'gcra' ? (1, '1 day', 'gcra', 345_678) : (345_678, '1 day', $algorithm));
	is(sum(in_parallel(8, sub { count_allowed($_[0], 'crowd', $algorithm, 60_000) })),
		345_678, "$algorithm: exactly the quota");
	is( join(' ', $db->selectrow_array('SELECT checks, denials, entries FROM poll.stat_rate WHERE endpoint = ?', undef, $algorithm)),
		join(' ', 480_000, 480_000 - 345_678, 1), "$algorithm: all were counted");
}

# Many at once find, or make, the entries of many clients: each has one.
set_policy($db, 'once', 1, '1 day', 'strict');
my %times;
$times{$_}++ foreach map { @$_ } in_parallel(
	8,
	sub {
		return $_[0]->selectcol_arrayref(
			q{SELECT i FROM generate_series(1, 20000) AS i WHERE (poll.rate_check('client ' || i, 'once')).allowed});
	});
is(scalar(grep { $_ != 1 } values %times), 0, 'each client is allowed once');
is(scalar(keys %times), 20_000, 'every client is');
is($db->selectrow_array(q{SELECT evictions + overflows FROM poll.stat_rate WHERE endpoint = 'once'}), 0, 'with room for all');

# What a policy change does to other sessions: in force at commit, at once.
my $other = connect_to($primary);
set_policy($db, 'changing', 5, '1 day');
is(quota($other, 'changing'), 5, 'another session sees a new policy');
$other->begin_work;
$other->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
is(quota($other, 'changing'), 5, 'a transaction with an old snapshot');
set_policy($db, 'changing', 6, '1 day');
is(quota($other, 'changing'), 6, '... sees the new one as soon as it is committed');
$other->commit;
$db->begin_work;
set_policy($db, 'changing', 7, '1 day');
is(quota($other, 'changing'), 6, 'not before');
$db->do(q{PREPARE TRANSACTION 'policy'});
is(quota($other, 'changing'), 6, 'not when it is prepared');
$db->do(q{COMMIT PREPARED 'policy'});
is(quota($other, 'changing'), 7, 'but when that is committed');
$db->do(q{SELECT poll.drop_rate_policy('changing')});
is(quota($other, 'changing'), undef, 'a dropped policy is gone, and with it the limit');
ok(count_allowed($other, 'somebody', 'changing', 10) == 10, 'everything is allowed then');

# Two sessions set the same policy at once: the second waits and wins.
$db->begin_work;
set_policy($db, 'changing', 1, '1 day');
my $second = start_child('second', sub { set_policy(connect_to($primary), 'changing', 2, '1 day'); return 1; });
ok(wait_for($other, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}), 'the second waits');
$db->commit;
finish_children($second);
is(quota($other, 'changing'), 2, 'and wins');

# Databases do not share clients, and a copy of one has its policies.
set_policy($db, 'shared', 1, '1 day');
ok(allowed($db, 'ann', 'shared'), 'allowed');
ok(!allowed($db, 'ann', 'shared'), 'refused');
$db->disconnect;
$other->disconnect;
$primary->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
$primary->safe_psql('template1', 'CREATE DATABASE empty');
$primary->safe_psql('empty', 'CREATE EXTENSION poll_ext');
$db = connect_to($primary);
my $copy = connect_to($primary, 'copy');
my $empty = connect_to($primary, 'empty');
ok(allowed($copy, 'ann', 'shared'), 'another database: allowed');
ok(!allowed($db, 'ann', 'shared'), 'still refused here');
is(fetch_value($copy, q{SELECT checks FROM poll.stat_rate WHERE endpoint = 'shared'}), 1, 'statistics are per database');
is(fetch_value($db, q{SELECT checks FROM poll.stat_rate WHERE endpoint = 'shared'}), 3, 'here, too');
is(quota($empty, 'shared'), undef, 'and policies');

# A dump has the policies.
my $dump = $primary->backup_dir . '/policies.sql';
$primary->command_ok([ 'pg_dump', '-f', $dump, $primary->connstr('postgres') ], 'pg_dump');
$primary->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$primary->safe_psql('restored', "\\i $dump");
$empty->disconnect;
$empty = connect_to($primary, 'restored');
my $policies = 'SELECT string_agg(p::text, chr(10) ORDER BY endpoint) FROM poll.rate_policies AS p';
is(fetch_value($empty, $policies), fetch_value($db, $policies), 'policies are restored');
ok(allowed($empty, 'ann', 'shared') && !allowed($empty, 'ann', 'shared'), 'and in force');

# A session survives that the extension goes and comes.
$empty->do('DROP EXTENSION poll_ext');
$empty->do('CREATE EXTENSION poll_ext');
is(quota($empty, 'shared'), undef, 'a new extension has no policies');
set_policy($empty, 'shared', 3, '1 day');
is(quota($empty, 'shared'), 3, 'but may get some');

# A standby has the policies, and counts for itself.
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
my $there = connect_to($standby);
$there->do('SET default_transaction_isolation = "repeatable read"');
ok(allowed($there, 'ann', 'shared'), 'standby: allowed');
ok(!allowed($there, 'ann', 'shared'), 'standby: and counted');
set_policy($db, 'late', 4, '1 day');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(quota($there, 'late'), 4, 'standby: a policy is in force when it is replayed');
$there->begin_work;
is(quota($there, 'late'), 4, 'standby: a transaction with an old snapshot');
set_policy($db, 'late', 5, '1 day');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(quota($there, 'late'), 5, 'standby: ... sees the new one');
$there->commit;
like(error_of($there, q{SELECT poll.set_rate_policy('here', 1, '1 s')}), qr/^25006 /, 'standby: read-only');
is(fetch_value($there, q{SELECT checks FROM poll.stat_rate WHERE endpoint = 'shared'}), 2, 'standby: statistics');
$there->disconnect;
$standby->stop;

# There is room for so many endpoints, of those in use.
$empty->do(q{SELECT poll.set_rate_policy('endpoint ' || i, i, '1 day') FROM generate_series(1, 1100) AS i});
like(
	error_of($empty, q{SELECT poll.rate_check('ann', 'endpoint ' || i) FROM generate_series(1, 1100) AS i}),
	qr/^53400 .*too many rate policies/,
	'too many policies');
$empty->do(q{SELECT poll.drop_rate_policy('endpoint ' || i) FROM generate_series(1, 1000) AS i});
is(error_of($empty, q{SELECT poll.rate_check('ann', 'endpoint ' || i) FROM generate_series(1001, 1100) AS i}),
	'none', 'dropped ones make room');
ok(!allowed($db, 'ann', 'shared'), 'others were left alone');
is(fetch_value($db, q{SELECT checks FROM poll.stat_rate WHERE endpoint = 'once'}), 160000, 'with their figures');
is( $empty->selectrow_array(q{SELECT count(*) FROM poll.rate_counters() WHERE endpoint LIKE 'endpoint %'}), 100,
	'the dropped ones are gone');
# also those of a database that has no policies any more, when all in them is forgotten
$empty->do(q{SELECT poll.set_rate_policy('short ' || i, i, '1 s') FROM generate_series(1, 1100) AS i});
error_of($empty, q{SELECT poll.rate_check('ann', 'short ' || i) FROM generate_series(1, 1100) AS i});
$empty->do(q{DROP EXTENSION poll_ext});
$empty->do(q{CREATE EXTENSION poll_ext});
$copy->do(q{SELECT poll.set_rate_policy('new', 1, '1 day')});
ok(wait_for($copy, q{SELECT true FROM poll.stat_rate}) && do {
	my $done;
	foreach (1 .. 100)
	{
		last if $done = eval { allowed($copy, 'ann', 'new') };
		select undef, undef, undef, 0.05;
	}
	$done;
}, 'those of another database make room');
# a policy that is rolled back has changed nothing
ok(!allowed($db, 'ann', 'shared'), 'refused');
$db->begin_work;
$db->do(q{SELECT poll.drop_rate_policy('shared')});
set_policy($db, 'other', 1, '1 day');
allowed($db, 'ann', 'other');
$db->rollback;
ok(!allowed($db, 'ann', 'shared'), 'still refused');
# one that is dropped takes its counters along
$db->do(q{SELECT poll.drop_rate_policy('shared')});
is(quota($db, 'shared'), undef, 'dropped');
set_policy($db, 'shared', 1, '1 day');
ok(allowed($db, 'ann', 'shared'), 'allowed by a new one');
# intervals that change again and again need no more room
$empty->do(<<'SQL');
DO $$
BEGIN
	FOR i IN 1..2000 LOOP
		PERFORM poll.set_rate_policy('changing', 10, i * interval '1 ms' + interval '1 hour');
		COMMIT;
		PERFORM poll.rate_check('ann', 'changing');
	END LOOP;
END
$$
SQL
is(fetch_value($empty, q{SELECT remaining FROM poll.rate_peek('ann', 'changing')}), 9, 'policies may change often');

# A crash empties the counters, and nothing else.
$db->do('CREATE TABLE items (id int PRIMARY KEY)');
$db->do(q{SELECT poll.track('items')});
my $cursor = fetch_value($db, q{SELECT poll.current_cursor('{items}')});
$db->do('INSERT INTO items VALUES (1)');
ok(!allowed($db, 'ann', 'shared'), 'refused before the crash');
$_->disconnect foreach $copy, $empty;
my $victim = connect_to($primary);
$victim->{PrintError} = 0;
kill 'KILL', $victim->{pg_pid};
foreach (1 .. 200)
{
	# a crash ends all sessions
	last if !eval { $db->do('SELECT 1'); 1 };
	select undef, undef, undef, 0.05;
}
ok($primary->poll_query_until('postgres', 'SELECT true', 't'), 'it comes back');
$db = connect_to($primary);
ok(allowed($db, 'ann', 'shared'), 'allowed after the crash');
is(quota($db, 'late'), 5, 'the policies are there');
is(fetch_value($db, q{SELECT checks FROM poll.stat_rate WHERE endpoint = 'once'}), 0, 'statistics start anew');
is(fetch_value($db, q{SELECT key->>'id' FROM poll.changes('items', ?)}, $cursor), 1, 'changes are there');

ok(!allowed($db, 'ann', 'shared'), 'refused before a restart');
$db->disconnect;
$primary->restart;
$db = connect_to($primary);
ok(allowed($db, 'ann', 'shared'), 'allowed after a restart');
is(quota($db, 'late'), 5, 'the policies are still there');

# Switched off
$db->disconnect;
$primary->append_conf('postgresql.conf', 'poll_ext.rate_entries = 0');
$primary->restart;
$db = connect_to($primary);
foreach my $call (qw(rate_check('ann') rate_peek('ann') rate_reset('ann') rate_counters()))
{
	like(error_of($db, "SELECT poll.$call"), qr/^55000 .*switched off.*HINT:.*poll_ext\.rate_entries/s, "$call when switched off");
}
is(error_of($db, q{SELECT poll.set_rate_policy('off', 1, '1 s')}), 'none', 'policies may be set');
is(fetch_value($db, q{SELECT key->>'id' FROM poll.changes('items', ?)}, $cursor), 1, 'changes are there');

done_testing();
