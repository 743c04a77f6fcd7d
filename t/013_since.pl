# Polls since a time: nothing is lost, little comes again, and nothing once the
# background worker has written its tick.  The worker is never in the way.
#
# POLL_TEST_DURATION	seconds of each stress, 4 by default
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

my $duration = $ENV{POLL_TEST_DURATION} // 4;
my $seed = random_seed();
my $WORKERS = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'poll_ext worker' AND datname = ?};
my $NEWEST_TICK = 'SELECT max(at) FROM poll.tick';

sub now { return fetch_value($_[0], 'SELECT clock_timestamp()'); }

# The keys that changed since a time, in order, as text.
sub keys_since
{
	my ($db, $since) = @_;

	return join ' ', @{ $db->selectcol_arrayref(
		q{SELECT key->>'id' FROM poll.changes_since('items', ?, 10000) WHERE op <> 'skip'}, undef, $since) };
}

# Waits until there is a tick that has seen all that is visible, and the worker
# is gone; returns whether that came.
sub closed
{
	my ($db) = @_;

	return wait_for($db, <<'SQL') && wait_for($db, "SELECT ($WORKERS) = 0", $db->{pg_db});
SELECT NOT EXISTS (SELECT FROM poll.change c WHERE c.xid >= t.x OR c.xid = ANY (t.p))
  FROM (SELECT x, p FROM poll.tick ORDER BY at DESC LIMIT 1) t
SQL
}

# A database with the extension and a table items, and a connection to it.
sub new_database
{
	my ($node, $name) = @_;
	my $db;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION poll_ext');
	$db = connect_to($node, $name);
	create_items($db);
	$db->do('INSERT INTO items VALUES (1000)');
	return $db;
}

# The errors in the server's log from that place on.
sub errors_since
{
	my ($node, $offset) = @_;

	return join "\n", slurp_file($node->logfile, $offset) =~ /^.*(?:ERROR|FATAL|PANIC|TRAP|exit code).*$/mg;
}

sub log_end { return -s $_[0]->logfile; }

# ---- what was written before and committed after ----

sub test_late_commits
{
	my ($node, $db) = @_;
	my $writer = connect_to($node);
	my ($before, $after);

	$writer->do('BEGIN');
	$writer->do('INSERT INTO items VALUES (1001)');
	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (1002)');
	$db->do(q{PREPARE TRANSACTION 'late'});
	$db->do('INSERT INTO items VALUES (1003)');
	ok(closed($db), 'a burst is closed while others are open');
	$before = now($db);
	is(keys_since($db, $before), '', 'what is open is not delivered, and what is closed not again');
	$writer->do('COMMIT');
	is(keys_since($db, $before), '1001', 'written before T and committed after T: comes since T');
	ok(closed($db), 'a late commit is closed, too');
	is(fetch_value($db, 'SELECT count(*) FROM (SELECT x < lag(x) OVER (ORDER BY at) AS back FROM poll.tick) t WHERE back'),
		0, 'without a tick that knows less than the one before');
	$after = now($db);
	is(keys_since($db, $after), '', 'and does not come again');
	$db->do(q{COMMIT PREPARED 'late'});
	is(keys_since($db, $before), '1001 1002', 'prepared before T and committed after T: comes since T');
	is(keys_since($db, $after), '1002', 'and since a time in between');
	ok(closed($db), 'COMMIT PREPARED is closed, too');
	is(keys_since($db, now($db)), '', 'and does not come again');
	$writer->disconnect;
	return;
}

# Changes become visible long after they were flushed.
sub test_slow_commit
{
	my ($node, $db) = @_;
	my $writer = connect_to($node);

	# a standby that does not exist
	$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
	$node->reload;
	ok(wait_for($writer, q{SELECT current_setting('synchronous_standby_names') = 'nobody'}), 'synchronous');
	$writer->do('INSERT INTO items VALUES (1004)', { pg_async => 1 });
	ok(wait_for($db, q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')}),
		'a commit waits for a standby');
	is(keys_since($db, now($db)), '', 'and cannot be seen yet');
	# longer than the worker lives, if there is one
	ok(wait_for($db, 'SELECT clock_timestamp() > ?::timestamptz + ?::interval', now($db), '2.5 s'),
		'it takes long');
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()');
	$writer->pg_result;
	ok(closed($db), 'it is closed when it is visible');
	is(keys_since($db, now($db)), '', 'and does not come again');
	$writer->disconnect;
	return;
}

# A snapshot that is older than the transaction that polls under it.
sub test_imported_snapshot
{
	my ($node, $db) = @_;
	my $early = connect_to($node);
	my $poller = connect_to($node);
	my $snapshot;
	my $page;

	$early->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$snapshot = fetch_value($early, 'SELECT pg_export_snapshot()');
	$db->do('INSERT INTO items VALUES (1005)');
	ok(closed($db), 'a change after a snapshot');
	$poller->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$poller->do("SET TRANSACTION SNAPSHOT '$snapshot'");
	$page = decode_json(fetch_value($poller, q{SELECT poll.poll('{items}', since => ?)}, now($db)));
	is(scalar @{ $page->{changes}{items} }, 0, 'is not seen under it');
	$poller->do('COMMIT');
	like(keys_since($db, $page->{timestamp}), qr/\b1005\b/, 'and comes since the time that the answer has');
	$_->disconnect foreach $early, $poller;
	return;
}

# ---- the worker ----

sub test_worker
{
	my ($node) = @_;
	my $db = new_database($node, 'burst');
	my $other = new_database($node, 'other');
	my ($pid, $start, $ticks, $offset);

	ok(closed($db), 'the first burst is closed');
	$db->do('INSERT INTO items VALUES (1001)');
	ok(wait_for($db, "SELECT ($WORKERS) = 1", 'burst'), 'a worker comes after a write');
	$start = time;
	ok(wait_for($db, "SELECT ($WORKERS) = 0", 'burst'), 'and goes');
	cmp_ok(time - $start, '<', 4, 'before anybody loses patience');

	# a worker that is stopped
	$db->do('INSERT INTO items VALUES (1002)');
	wait_for($db, "SELECT ($WORKERS) = 1", 'burst');
	is( fetch_value($db, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE backend_type = 'poll_ext worker' AND datname = 'burst'}),
		1, 'it can be terminated');
	ok(wait_for($db, "SELECT ($WORKERS) = 0", 'burst'), 'and goes at once');
	$db->do('INSERT INTO items VALUES (1003)');
	ok(closed($db), 'the next burst has another one');
	is(keys_since($db, now($db)), '', 'which closes both');

	# what was rolled back; the other database's worker was asked for later
	$ticks = fetch_value($db, 'SELECT count(*) FROM poll.tick');
	foreach (1 .. 3)
	{
		$db->do('BEGIN');
		$db->do('UPDATE items SET v = v + 1') foreach 1 .. 10;
		$db->do('ROLLBACK');
	}
	$other->do('INSERT INTO items VALUES (1001)');
	ok(wait_for($db, "SELECT ($WORKERS) = 1", 'other'), 'each database has its own worker');
	is(fetch_value($db, $WORKERS, 'burst'), 0, 'and needs none for what was rolled back');
	is(fetch_value($db, 'SELECT count(*) FROM poll.tick'), $ticks, 'nor a tick');

	# commands that want the database for themselves
	$offset = log_end($node);
	$other->do('INSERT INTO items VALUES (1002)');
	$other->disconnect;
	my $before = now($db);
	$db->do('INSERT INTO items VALUES (1004)');
	$db->disconnect;
	$node->safe_psql('postgres', 'DROP DATABASE other');
	$db = connect_to($node, 'burst');
	$db->do('INSERT INTO items VALUES (1005)');
	$db->disconnect;
	$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE burst');
	$node->safe_psql('postgres', 'ALTER DATABASE burst RENAME TO burst2');
	is(errors_since($node, $offset), '',
		'DROP DATABASE, CREATE DATABASE ... TEMPLATE and RENAME right after a write');
	$db = connect_to($node, 'copy');
	is(keys_since($db, $before), '1004 1005', 'a copy knows what changed before it was made');
	$db->do('INSERT INTO items VALUES (1006)');
	ok(closed($db), 'and has a worker of its own');
	is(keys_since($db, now($db)), '', 'which closes its bursts');

	# DROP EXTENSION
	$offset = log_end($node);
	$db->do('INSERT INTO items VALUES (1007)');
	$db->do('DROP EXTENSION poll_ext CASCADE');
	ok(wait_for($db, "SELECT ($WORKERS) = 1", 'copy') && wait_for($db, "SELECT ($WORKERS) = 0", 'copy'),
		'a worker that has nothing to do any more goes');
	$db->do('CREATE EXTENSION poll_ext');
	$db->do(q{SELECT poll.track('items')});
	$db->do('INSERT INTO items VALUES (1008)');
	$db->do('BEGIN');
	$db->do('DROP EXTENSION poll_ext CASCADE');
	ok(wait_for($db, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)'), 'one that has waits');
	$db->do('COMMIT');
	ok(wait_for($db, "SELECT ($WORKERS) = 0", 'copy'), 'and goes');
	$db->do('CREATE EXTENSION poll_ext');
	$db->do(q{SELECT poll.track('items')});
	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (1010)');
	$db->do('DROP EXTENSION poll_ext CASCADE');
	$db->do('COMMIT');
	$db->do('CREATE EXTENSION poll_ext');
	$db->do(q{SELECT poll.track('items')});
	$db->do('INSERT INTO items VALUES (1009)');
	ok(closed($db), 'the next extension has a worker again');
	is(keys_since($db, now($db)), '', 'which closes its bursts');
	is(errors_since($node, $offset), '', 'DROP EXTENSION right after a write does no harm');
	$db->disconnect;
	return;
}

# Whatever was open or unfinished when the server stopped.
sub test_restart
{
	my ($node, $how) = @_;
	my $db = connect_to($node);
	my $before;

	$db->do('DELETE FROM items');
	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (1)');
	$db->do(q{PREPARE TRANSACTION 'restart'});
	ok(closed($db), 'a burst before a restart');
	$before = now($db);
	$db->do('INSERT INTO items VALUES (5)');
	$db->disconnect;
	$node->stop($how);
	$node->start;
	$db = connect_to($node);
	$db->do(q{COMMIT PREPARED 'restart'});
	$db->do('INSERT INTO items VALUES (7)');
	is(keys_since($db, $before), '1 5 7', "$how: since a time before it");
	ok(closed($db), "$how: there is a worker again");
	is(keys_since($db, now($db)), '', "$how: which closes what was left open");
	$db->disconnect;
	return;
}

# ---- stress ----

# Of each change in a page since a time: was it unseen by the tick that is the
# newest for that time in the page's snapshot?  Returns how old that was.
sub poll_and_check
{
	my ($mirror, $db, $max_rows, $rounds) = @_;
	my $since = $mirror->{since};
	my ($x, $p, $age);
	my $page;

	$db->do('BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY');
	($x, $p, $age) = $db->selectrow_array(<<'SQL', undef, $since, $since) if defined $since;
SELECT x, p::text[], extract(epoch FROM ?::timestamptz - at)
  FROM poll.tick WHERE at <= ? ORDER BY at DESC LIMIT 1
SQL
	$page = $mirror->poll_since($db, $max_rows);
	$db->do('COMMIT');
	push @$rounds, [ $x, $p, [ map { $_->{version} } @{ $page->{changes}{items} } ] ] if defined $x;
	return $age;
}

sub unseen
{
	my ($xid, $x, $p) = @_;

	return defined $xid && ($xid >= $x || grep { $_ == $xid } @$p);
}

# A client that knows only times.
sub timekeeper
{
	my ($node, $number, $stop_file) = @_;
	my $db = connect_to($node);
	my $mirror = PollMirror->new('items', undef, repeats => 1);
	my (@rounds, %xid);
	my ($oldest, $started) = (0, time);

	srand($seed + $number);
	while (!-e $stop_file)
	{
		if ($number % 2)
		{
			my $age = poll_and_check($mirror, $db, log_uniform(1000), \@rounds) // 0;
			$oldest = $age if $age > $oldest && time > $started + 2;
		}
		else
		{
			$mirror->poll_since($db, log_uniform(1000));
		}
		sleep rand(0.02);
	}
	$mirror->drain_since($db, 1000);
	$mirror->{last} = scalar @{ $mirror->poll_since($db, 1000)->{changes}{items} };
	$mirror->{oldest} = $oldest;

	# which transaction has each version
	foreach (@{ $db->selectall_arrayref('SELECT xid, version, count FROM poll.change') })
	{
		my ($xid, $version, $count) = @$_;
		$xid{$_} = $xid foreach $version .. $version + $count - 1;
	}
	foreach my $round (@rounds)
	{
		my ($x, $p, $versions) = @$round;
		$mirror->fault("version $_ came again for nothing")
		  foreach grep { defined && !unseen($xid{$_}, $x, $p) } @$versions;
	}
	return $mirror->report;
}

# Counts the ticks and the most workers at a time, until then.
sub watch
{
	my ($node, $until) = @_;
	my $db = connect_to($node);
	my $workers = 0;
	my $ticks = fetch_value($db, 'SELECT count(*) FROM poll.tick');

	while (time < $until)
	{
		my $now = fetch_value($db, $WORKERS, 'postgres');
		$workers = $now if $now > $workers;
		sleep 0.02;
	}
	return { workers => $workers, ticks => fetch_value($db, 'SELECT count(*) FROM poll.tick') - $ticks };
}

sub check_times
{
	my ($db, @reports) = @_;
	my $rows = table_rows($db, 'items');
	my $n = 0;

	foreach my $report (grep { defined } @reports)
	{
		$n++;
		is(differences($report->{rows}, $rows), '', "client $n has the table");
		is(join("\n", @{ $report->{faults} }), '', "client $n: nothing wrong with what it got");
		note sprintf 'client %d: %d polls, %d behind, %d changes', $n, @$report{qw(polls behind delivered)};
	}
	return;
}

sub test_stress
{
	my ($node) = @_;
	my $db = connect_to($node);
	my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop_' . $node->name;
	my @writers = start_writers($node, 6, $seed, $duration);
	my $watcher = start_child('watcher', sub { watch($node, time + $duration) });
	my @clients = map {
		my $number = $_;
		start_child("client $number", sub { timekeeper($node, $number, $stop_file) })
	} 1 .. 4;
	my ($watched, @reports);

	note 'transactions: ' . writer_summary(finish_children(@writers));
	($watched) = finish_children($watcher);
	ok(closed($db), 'the stress is closed');
	append_to_file($stop_file, '');
	@reports = finish_children(@clients);
	check_times($db, @reports);
	foreach my $report (grep { defined } @reports)
	{
		is($report->{last}, 0, 'and nothing comes again when all is quiet');
		cmp_ok($report->{oldest}, '<', 4, 'no tick was much older than a second');
	}
	cmp_ok($watched->{ticks}, '<=', $duration + 2, 'one tick a second');
	cmp_ok($watched->{ticks}, '>=', $duration / 3, 'and not much less');
	cmp_ok($watched->{workers}, '<=', 1, 'and one worker at a time');
	return;
}

# ---- a standby ----

sub wait_for_standby
{
	my ($primary, $standby) = @_;

	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	return;
}

sub test_standby_clock
{
	my ($primary, $standby) = @_;
	my $db = connect_to($primary);
	my $there = connect_to($standby);
	my $page;

	$db->do('INSERT INTO items VALUES (2)');
	closed($db);
	wait_for_standby($primary, $standby);
	$there->do('SELECT pg_wal_replay_pause()');
	ok(wait_for($there, q{SELECT pg_get_wal_replay_pause_state() = 'paused'}), 'the standby stands still');
	$db->do('INSERT INTO items VALUES (3)');
	closed($db);
	$page = decode_json(fetch_value($there, q{SELECT poll.poll('{items}', since => ?)}, now($db)));
	is(fetch_value($there, "SELECT ?::timestamptz = ($NEWEST_TICK)", $page->{timestamp}),
		1, 'its time is that of the newest tick that it shows');
	is(fetch_value($db, "SELECT ?::timestamptz < ($NEWEST_TICK)", $page->{timestamp}), 1, 'not that of its clock');
	is(keys_since($db, $page->{timestamp}), '3', 'the primary goes on from there');
	$there->do('SELECT pg_wal_replay_resume()');
	wait_for_standby($primary, $standby);
	is(keys_since($there, $page->{timestamp}), '3', 'and so does the standby');

	# a feed that is younger than the newest tick
	$db->do('CREATE TABLE young (id int PRIMARY KEY)');
	$db->do(q{SELECT poll.track('young')});
	wait_for_standby($primary, $standby);
	my $mirror = PollMirror->new('young', undef, repeats => 1);
	ok(eval { $mirror->poll_since($there, 10) for 1 .. 4; 1 }, 'its time is good for a feed that is younger')
	  or diag $@;
	$db->do('INSERT INTO young VALUES (1)');
	wait_for_standby($primary, $standby);
	$mirror->poll_since($there, 10) for 1 .. 2;
	is(join(' ', keys %{ $mirror->{rows} }), '1', 'and nothing is lost');
	return;
}

sub wanderer
{
	my ($servers, $number, $stop_file) = @_;
	my @db = map { connect_to($_) } @$servers;
	my $mirror = PollMirror->new('items', undef, repeats => 1);

	srand($seed + $number);
	while (!-e $stop_file)
	{
		$mirror->poll_since($db[ int(rand(2)) ], log_uniform(300));
		if ($number == 1 && rand() < 0.1)
		{
			$db[1]->do('SELECT pg_wal_replay_pause()');
			$mirror->poll_since($db[ int(rand(2)) ], log_uniform(300)) foreach 1 .. 10;
			$db[1]->do('SELECT pg_wal_replay_resume()');
		}
		sleep rand(0.02);
	}
	wait_for_standby(@$servers);
	$mirror->drain_since($db[ $number % 2 ], 300);
	return $mirror->report;
}

sub test_wanderers
{
	my ($primary, $standby) = @_;
	my $db = connect_to($primary);
	my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop_wanderers';
	my @writers = start_writers($primary, 4, $seed, $duration);
	my @wanderers = map {
		my $number = $_;
		start_child("wanderer $number", sub { wanderer([ $primary, $standby ], $number, $stop_file) })
	} 1 .. 3;

	note 'transactions: ' . writer_summary(finish_children(@writers));
	closed($db);
	append_to_file($stop_file, '');
	check_times($db, finish_children(@wanderers));
	return;
}

# ---- without preloading ----

sub test_no_preload
{
	my $node = new_node('plain', preload => 0);
	my $db = connect_to($node);
	my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop_plain';
	my $writer = connect_to($node);
	my $before;
	my @children;

	create_items($db);
	$writer->do('BEGIN');
	$writer->do('INSERT INTO items VALUES (1001)');
	$before = now($db);
	$db->do('INSERT INTO items VALUES (1002)');
	is(keys_since($db, $before), '1002', 'no preload: since');
	$writer->do('COMMIT');
	is(keys_since($db, $before), '1001 1002', 'no preload: a late commit');

	# workers start in the order in which they were asked for
	$db->do(q{SELECT set_config(name, 'on', false) FROM pg_settings
		WHERE name IN ('force_parallel_mode', 'debug_parallel_query')});		# until 15, since 16
	$db->do('SELECT count(*) FROM items');
	is(fetch_value($db, $WORKERS, 'postgres'), 0, 'no preload: no worker');
	$db->do('RESET ALL');

	@children = start_writers($node, 4, $seed, $duration / 2);
	my @clients = map {
		my $number = $_;
		start_child("plain client $number", sub { timekeeper($node, $number, $stop_file) })
	} 1 .. 2;
	finish_children(@children);
	append_to_file($stop_file, '');
	check_times($db, finish_children(@clients));
	is(fetch_value($db, $WORKERS, 'postgres'), 0, 'no preload: nor later');
	$node->stop;
	return;
}

# A server whose clock is behind that of the one before it: a promotion, or a
# clock that was set back.
sub test_clock_set_back
{
	my $node = new_node('clock');
	my $db = connect_to($node);

	create_items($db);
	$db->do('INSERT INTO items VALUES (1001)');
	ok(closed($db), 'a burst');
	# what the faster clock has left, and a time that it gave out before
	$db->do(q(INSERT INTO poll.tick SELECT now() + interval '20 min', x, p, timeline FROM poll.tick ORDER BY at DESC LIMIT 1));
	my $given = fetch_value($db, q(SELECT now() + interval '10 min'));
	$db->disconnect;
	$node->restart;
	$db = connect_to($node);
	$db->do('INSERT INTO items VALUES (1002)');
	ok(closed($db), 'another one');
	like(keys_since($db, $given), qr/\b1002\b/, 'what came after the clock was set back is not lost to a time from before');
	is(fetch_value($db, 'SELECT max(x) FROM poll.tick'), fetch_value($db, 'SELECT x FROM poll.tick ORDER BY at DESC LIMIT 1'),
		'since ticks go on from the newest');
	$db->disconnect;
	$node->stop;
	return;
}

# ---- all ----

my $primary = new_node('primary', streaming => 1);
my $db = connect_to($primary);
create_items($db);
$db->do('INSERT INTO items VALUES (0)');
ok(closed($db), 'a first burst is closed');

test_late_commits($primary, $db);
test_slow_commit($primary, $db);
test_imported_snapshot($primary, $db);
test_worker($primary);
test_stress($primary);
$db->disconnect;
test_restart($primary, 'fast');
test_restart($primary, 'immediate');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', <<'CONF');
hot_standby_feedback = on
wal_receiver_status_interval = '1s'
CONF
$standby->start;
test_standby_clock($primary, $standby);
$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '100ms'\n");
$standby->reload;
test_wanderers($primary, $standby);
$standby->stop;
$primary->stop;
test_no_preload();
test_clock_set_back();

done_testing();
