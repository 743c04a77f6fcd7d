# The log is trimmed on a primary, and cursors move between it and two standbys,
# one of which lags: who polls in time misses nothing and never expires; who does
# not, or is in the way of recovery, is told so.
#
# POLL_TEST_DURATION	seconds, 25 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $primary = new_node('primary', streaming => 1, preload => 0);
my $db = connect_to($primary);
create_items($db);
$primary->backup('backup');

sub new_standby
{
	my ($name, $conf) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$standby->init_from_backup($primary, 'backup', has_streaming => 1);
	$standby->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'poll_ext'
hot_standby_feedback = off
wal_retrieve_retry_interval = '200ms'
$conf
CONF
	$standby->start;
	return $standby;
}

# On near, queries that are in the way of recovery are canceled at once; far will
# lag.
my $near = new_standby('near', "max_standby_streaming_delay = '20ms'");
my $far = new_standby('far', "max_standby_streaming_delay = '3s'");
my ($at_near, $at_far) = map { connect_to($_) } $near, $far;

sub catch_up
{
	my ($from, @to) = map { connect_to($_) } $primary, $near, $far;
	my $lsn = fetch_value($from, 'SELECT pg_current_wal_insert_lsn()');

	# what no commit follows is not sent for up to 15 seconds, but for a new file
	foreach (1 .. 10)
	{
		last if fetch_value($from, 'SELECT pg_current_wal_flush_lsn() >= ?::pg_lsn', $lsn);
		sleep 0.05;
		$from->do('SELECT pg_switch_wal()') if $_ == 10;
	}
	wait_for($_, 'SELECT pg_last_wal_replay_lsn() >= ?::pg_lsn', $lsn) or die "a standby does not replay\n" foreach @to;
	return;
}

# ---- step by step, without a worker ----

sub trim { $db->do('SELECT poll.trim(?)', undef, $_) foreach @_; return; }

# Until everything is in a new segment, and the older ones are empty.
sub rotate { trim(('0') x 4); return; }

# Writers go on in another segment; the one before is closed, and not trimmed.
sub begin_segment { trim('0'); return; }

sub close_segment
{
	trim('1 hour');
	is(fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE state = 'closed')), 1, 'a segment is closed');
	return;
}

sub update { $db->do('UPDATE items SET v = v + 1 WHERE id = ?', undef, $_) foreach @_; return; }

# A transaction with an open savepoint; both have xids, and an older one than
# what is done next.
sub nested
{
	my ($key) = @_;
	my $session = connect_to($primary);

	# what the transaction writes that loads the library goes to the log at once
	$session->do(q(LOAD 'poll_ext'));
	$session->do('BEGIN; UPDATE items SET v = v + 1 WHERE id = 1');
	$session->do("SAVEPOINT s; UPDATE items SET v = v + 1 WHERE id = $key");
	return $session;
}

# What a poll with the cursor brings: keys, or the SQLSTATE.
sub poll_with
{
	my ($session, $cursor) = @_;
	my $rows = eval {
		$session->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changes('items', ?) WHERE op <> 'skip'), undef, $cursor);
	};

	return $rows ? join ' ', @$rows : $session->state;
}

sub next_cursor
{
	my ($session, $cursor) = @_;
	return fetch_value($session, q(SELECT poll.poll('{items}', ?)->>'cursor'), $cursor);
}

sub info { return fetch_value($db, "SELECT $_[0] FROM poll.cursor_info(?)", $_[1]); }

# A standby does not know a subtransaction from a transaction, unless it was there
# when a segment was closed.  Whoever has polled after that, or has nothing that he
# could have missed, is safe from it, also when it has ended.
sub test_subtransaction
{
	my ($end) = @_;

	rotate();
	my $cursor = next_cursor($db, 'now');
	my $writer = nested(3);
	update(5);
	begin_segment();
	update(7);
	catch_up();
	my $early = next_cursor($at_near, $cursor);
	is(info('cardinality(open_xids)', $early), 2, 'a subtransaction');
	close_segment();
	is(info('next_xid = (SELECT max(x::text::bigint)::text::xid8 FROM poll.segment)', $early), 1, 'below the horizon');
	catch_up();
	my $late = next_cursor($at_near, $early);
	is(info('cardinality(open_xids)', $late), 1, 'is none of a cursor after that');
	is($late, next_cursor($db, $early), 'which is the same everywhere');
	trim('0');
	catch_up();
	foreach my $session ($db, $at_near)
	{
		is(poll_with($session, $early), '', 'what is open expires nobody');
		is(poll_with($session, $late), '', 'who has polled or not');
	}
	$writer->do($end);
	update(9);
	catch_up();
	foreach my $session ($db, $at_near)
	{
		is(poll_with($session, $late), $end eq 'COMMIT' ? '1 3 9' : '9', "nor when it has ended: $end");
	}
	$writer->do('ROLLBACK') if $end ne 'COMMIT';
	return;
}

# One that knows a transaction as open does not take it for a subtransaction, though
# a segment was closed since.
sub test_older_snapshot
{
	rotate();
	my $cursor = next_cursor($db, 'now');
	my $writer = nested(3);
	update(5);
	catch_up();
	$at_far->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$at_far->do('SELECT 1');
	$writer->do('COMMIT');
	begin_segment();
	close_segment();
	catch_up();
	is(poll_with($at_far, $cursor), '5', 'an older snapshot');
	$cursor = next_cursor($at_far, $cursor);
	$at_far->do('COMMIT');
	is(poll_with($at_far, $cursor), '1 3', 'and what it did not show');
	return;
}

# Two horizons with the same x: the newer one counts.
sub test_equal_horizons
{
	my $bulk = 'BEGIN; INSERT INTO items SELECT %d + g FROM generate_series(1, 2000) AS g';

	rotate();
	my ($first, $second, $trimmer) = map { connect_to($primary) } 1 .. 3;
	# each has written to a segment, which is filled, and is open
	$first->do(sprintf $bulk, 1000);
	begin_segment();
	$second->do(sprintf $bulk, 4000);
	begin_segment();
	# closes the first segment, in a transaction with an xid below what has ended
	$trimmer->do('BEGIN; SELECT pg_current_xact_id()');
	update(5);
	$first->do('ROLLBACK');
	my $cursor = next_cursor($db, 'now');
	$trimmer->do(q(SELECT poll.trim('1 hour')));
	$trimmer->do('COMMIT');
	$second->do('COMMIT');
	trim('1 hour');
	is(join(' ', $db->selectrow_array(q(SELECT count(*), count(DISTINCT x) FROM poll.segment WHERE state = 'closed'))),
		'2 1', 'two segments were closed, with the same x');
	isnt(poll_with($db, $cursor), '', 'which the cursor has, but it has not seen what was in the second');
	trim('0');
	catch_up();
	is(poll_with($_, $cursor), 'PT410', 'so it expires with that') foreach $db, $at_near;
	$db->do('DELETE FROM items WHERE id > 1000');
	return;
}

# A transaction that reads for long: what it does not show, and is trimmed, nobody
# can get any more.
sub test_long_reader
{
	my ($session) = @_;

	rotate();
	update(5);
	my $old = next_cursor($db, 'now');
	catch_up();
	$session->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$session->do('SELECT 1');
	my $writer = nested(3);
	update(7);
	rotate();
	update(9);
	catch_up();
	foreach my $query (
		q(SELECT poll.current_cursor('{items}')),
		q(SELECT poll.poll('{items}')),
		q(SELECT poll.poll('{items}', 'now')))
	{
		$session->do('SAVEPOINT s');
		my $cursor = eval { fetch_value($session, $query) };
		is($session->state, '40001', "a snapshot that is older than the log: $query");
		$session->do('ROLLBACK TO s');
	}
	is(poll_with($session, $old), 'PT410', 'and a cursor');
	$session->do('ROLLBACK');
	$writer->do('COMMIT');
	return;
}

# Who is in the way of recovery is told so, and goes on with the same cursor.
sub test_recovery_conflict
{
	my $server = server($near);

	rotate();
	my $cursor = next_cursor($db, 'now');
	catch_up();
	my $state = attempt($server, sub {
		my ($session) = @_;

		$session->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
		is(poll_with($session, $cursor), '', 'a transaction on a standby');
		update(5);
		$db->do('VACUUM items');
		foreach (1 .. 300)
		{
			fetch_value($session, 'SELECT 1');
			sleep 0.1;
		}
	});
	is($state, 'recovery', 'is ended when it needs rows that are cleaned up');
	is(attempt($server, sub { is(poll_with($_[0], $cursor), '5', 'the cursor is as good as before') }), '', 'in the next one');
	return;
}

$_->do('SELECT 1') foreach $at_near, $at_far;
test_subtransaction($_) foreach 'COMMIT', 'ROLLBACK TO s', 'RELEASE s';
test_older_snapshot();
# each segment is the first one in turn
test_equal_horizons() foreach 1 .. 3;
test_long_reader(connect_to($_)) foreach $primary, $far;
test_recovery_conflict();

# ---- all at once ----

my $seed = random_seed();
my $duration = $ENV{POLL_TEST_DURATION} // 25;
my $age = 1;
my ($stop_file, $end_file) = map { PostgreSQL::Test::Utils::tempdir() . "/$_" } 'stop', 'end';
my @feeds = ('items', 'journal');

$_->disconnect foreach $db, $at_near, $at_far;
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'poll_ext'\npoll_ext.retention = '${age}s'\n");
$primary->restart;
$far->append_conf('postgresql.conf', "recovery_min_apply_delay = '300ms'\n");
$far->reload;
($db, $at_near, $at_far) = map { connect_to($_) } $primary, $near, $far;

# Its rows never change: what is missed stays missing.
$db->do('CREATE TABLE journal (id bigserial PRIMARY KEY)');
$db->do(q(SELECT poll.track('journal')));
catch_up();

# Does something on a server, with a connection that is made anew when it was cut;
# older: in transactions of up to so many seconds.  Returns '', or the SQLSTATE
# of an error that may happen: a cursor has expired, or recovery was in the way.
sub attempt
{
	my ($server, $function) = @_;

	my $done = eval {
		# recovery may be in the way of that, too
		$server->{db} //= connect_to($server->{node});
		$function->($server->{older} ? older_connection($server, $server->{older}) : $server->{db});
		1;
	};

	return '' if $done;
	my ($error, $state) = ($@, $server->{db} ? $server->{db}->state : $DBI::state);
	# libpq drops what the server says in the moment after an answer
	my $cut = $server->{node} != $primary && $error =~ /closed the connection|no connection to the server/;
	my $in_the_way = $cut || $error =~ /conflict with recovery/ ? 'recovery' : $state eq '40001' ? $state : '';

	die $error if $state ne 'PT410' && !$in_the_way;
	$server->{count}{ $in_the_way || $state }++;
	$server->{until} = 0;
	$server->{db} = undef if !$server->{db} || !eval { $server->{db}->do('ROLLBACK'); 1 };
	return $state eq 'PT410' ? $state : $in_the_way;
}

sub server { my ($node, $older) = @_; return { node => $node, until => 0, older => $older, count => {} }; }

sub report
{
	my ($mirrors, @servers) = @_;
	my %count;

	foreach my $server (@servers)
	{
		$count{$_} += $server->{count}{$_} foreach keys %{ $server->{count} };
	}
	return { count => \%count, map { $_->{feeds}[0] => $_->report } @$mirrors };
}

# Gets all there is.
sub finish
{
	my ($mirror, $server) = @_;

	foreach (1 .. 100)
	{
		my $state = attempt($server, sub { $mirror->drain($_[0], 1000) });

		return if $state eq '';
		$mirror->expire if $state eq 'PT410';
	}
	$mirror->fault('never finds the end');
	return;
}

# Polls anywhere, under any snapshot.
sub wanderer
{
	my ($own_seed, $pause) = @_;
	my @servers = map { (server($_), server($_), server($_, 1.5)) } $primary, $near, $far;
	my @mirrors = map { PollMirror->new($_) } @feeds;

	srand($own_seed);
	while (!-e $end_file)
	{
		my $mirror = $mirrors[ rand @mirrors ];
		my $state = attempt($servers[ rand @servers ], sub { random_poll($mirror, $_[0]) });

		$mirror->expire if $state eq 'PT410';
		$mirrors[0]->restart if rand() < 0.002;
		sleep(rand() < $pause ? rand(4) : rand(0.02));
	}
	catch_up();
	finish($_, $servers[ rand @servers ]) foreach @mirrors;
	return report(\@mirrors, @servers);
}

# Gets all there is, more than twice as often as is needed, and never expires.
sub timely
{
	my ($own_seed, @nodes) = @_;
	my @servers = map { server($_) } @nodes;
	my @mirrors = map { PollMirror->new($_) } @feeds;
	my %seen;

	srand($own_seed);
	while (!-e $end_file)
	{
		my $server = $servers[ rand @servers ];

		foreach my $mirror (@mirrors)
		{
			my ($feed) = @{ $mirror->{feeds} };
			my $now;
			my $state = attempt($server, sub {
				# what a standby shows, at least
				$now = fetch_value($_[0],
					'SELECT extract(epoch FROM CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() ELSE clock_timestamp() END)');
				$mirror->drain($_[0], 1000);
			});

			if ($state eq '')
			{
				$seen{$feed} = $now;
			}
			elsif ($state eq 'PT410')
			{
				my $ago = time - ($seen{$feed} // 0);

				# not if this machine has no time for it
				$mirror->fault("has expired after $ago seconds: $mirror->{cursor}") if $ago < 0.8 * $age;
				$mirror->expire;
			}
		}
		sleep rand($age / 3);
	}
	catch_up();
	finish($_, $servers[ rand @servers ]) foreach @mirrors;
	return report(\@mirrors, @servers);
}

# Reads in long transactions, in which its mirrors then equal the tables.
sub long_read
{
	my ($session, $mirrors) = @_;
	my ($mirror) = $mirrors->[ rand @$mirrors ];
	my ($feed) = @{ $mirror->{feeds} };

	$session->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	my $rows = table_rows($session, $feed);
	sleep rand(2);
	if (rand() < 0.3)
	{
		# begins again from a position, and has no doubles of before
		my $cursor = fetch_value($session, 'SELECT poll.current_cursor(ARRAY[?])', $feed);

		@$mirror{qw(cursor rows seen)} = ($cursor, {%$rows}, {});
	}
	$mirror->drain($session, 1000);
	my $differences = differences($mirror->{rows}, $rows);
	$mirror->fault("in a transaction: $differences") if $differences;
	$session->do('COMMIT');
	return $mirror;
}

sub long_reader
{
	my ($own_seed, $node) = @_;
	my $server = server($node);
	my @mirrors = map { PollMirror->new($_) } @feeds;

	srand($own_seed);
	while (!-e $end_file)
	{
		my $state = attempt($server, sub { long_read($_[0], \@mirrors) });

		$_->expire foreach $state eq 'PT410' ? @mirrors : ();
	}
	catch_up();
	finish($_, $server) foreach @mirrors;
	return report(\@mirrors, $server);
}

# Transactions with many savepoints, open for longer than the log is retained; more of
# them than a server keeps track of, at times.
sub nester
{
	my ($own_seed, $most) = @_;
	my $writer = connect_to($primary);

	srand($own_seed);
	while (!-e $stop_file)
	{
		$writer->do('BEGIN');
		foreach my $n (1 .. 2 + int(rand($most)))
		{
			$writer->do("SAVEPOINT s$n; INSERT INTO journal DEFAULT VALUES");
			$writer->do("ROLLBACK TO s$n") if rand() < 0.1;
			$writer->do("RELEASE s$n") if $n > 1 && rand() < 0.1;
			sleep 0.03 if rand() < 0.3;
		}
		sleep rand(3);
		$writer->do('ROLLBACK TO s1') if rand() < 0.2;
		$writer->do('SAVEPOINT late; INSERT INTO journal DEFAULT VALUES');
		$writer->do(rand() < 0.9 ? 'COMMIT' : 'ROLLBACK');
	}
	return;
}

# Cleans up what nobody on the primary needs.
sub vacuum
{
	my $session = connect_to($primary);

	while (!-e $stop_file)
	{
		$session->do("VACUUM $_") foreach @feeds, 'poll.segment', 'poll.tick';
		sleep 0.3;
	}
	return;
}

my @writers = start_writers($primary, 3, $seed, $duration);
my @others = (
	start_child('rotator', sub { rotator($primary, $age, $stop_file) }),
	start_child('vacuum', \&vacuum),
	map { my $i = $_; start_child("nester $i", sub { nester($seed + 100 + $i, $i < 3 ? 120 : 6) }) } 1 .. 4);
my @pollers = (
	(map { my $i = $_; start_child("wanderer $i", sub { wanderer($seed + 200 + $i, $i == 3 ? 0.05 : 0) }) } 1 .. 3),
	start_child('timely on the primary', sub { timely($seed + 301, $primary) }),
	start_child('timely near', sub { timely($seed + 302, $near) }),
	start_child('timely on both', sub { timely($seed + 303, $primary, $near) }),
	start_child('long reader near', sub { long_reader($seed + 401, $near) }),
	start_child('long reader far', sub { long_reader($seed + 402, $far) }));

note 'transactions: ' . writer_summary(finish_children(@writers));
append_to_file($stop_file, '');
my ($steps) = finish_children(@others);
note 'steps: ' . writer_summary($steps);
# and after the worker's last step nobody expires any more
ok(wait_for($db, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'poll_ext worker')), 'the worker ends');
append_to_file($end_file, '');
my @reports = grep { defined } finish_children(@pollers);
catch_up();

my %expired = map { my $i = $_; $i => scalar map { @{ $reports[$i]{$_}{expired} } } @feeds } 0 .. $#reports;
note "$pollers[$_]{name}: $expired{$_} expired, " . writer_summary($reports[$_]{count}) foreach 0 .. $#reports;
check_mirrors($_, map { $_->{items} } @reports) foreach $db, $at_near, $at_far;
my $journal = table_rows($db, 'journal');
is(differences($_->{journal}{rows}, $journal), '', 'nothing is missing in the journal') foreach @reports;
is(join("\n", @{ $_->{journal}{faults} }), '', 'nor wrong') foreach @reports;
check_cursors($_, ['journal'], undef, 'journal', map { $_->{journal}{cursor} } @reports) foreach $db, $at_near, $at_far;
foreach my $feed (@feeds)
{
	my %cursors = map { fetch_value($_, 'SELECT poll.current_cursor(ARRAY[?])', $feed) => 1 } $db, $at_near, $at_far;
	is(scalar keys %cursors, 1, 'all servers are at the same position');
}

cmp_ok($steps->{emptied}, '>', $duration / 5, 'segments were emptied all the time');
cmp_ok($expired{2}, '>', 0, 'somebody has expired');
is(join('', grep { /terminated by signal|PANIC/ } split /^/, slurp_file($_->logfile)), '', 'nothing else has cut a connection') foreach $near, $far;

done_testing();
