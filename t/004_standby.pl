# Cursors move between a primary and its hot standby, in both directions, at any
# time, inside a page as well.

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

my $primary = new_node('primary', streaming => 1);
my $db = connect_to($primary);
create_items($db);

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', <<'CONF');
# no query is canceled by a clean-up on the primary
hot_standby_feedback = on
wal_receiver_status_interval = '1s'
CONF
$standby->start;
$primary->poll_query_until('postgres', 'SELECT backend_xmin IS NOT NULL FROM pg_stat_replication');
my $there = connect_to($standby);

sub wait_for_standby
{
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	return;
}

# The keys that the page brought, in order, as text.
sub keys_of { return join ' ', map { $_->{key}{id} } @{ $_[0]{changes}{items} }; }

# A late commit, and one of a transaction with subtransactions: polled on the
# standby while they are open, and on either server afterwards.
sub test_open_transactions
{
	my @writers = map { connect_to($primary) } 1 .. 2;
	my $mirror = PollMirror->new('items');
	my $other;
	my $page;

	$mirror->drain($there, 1000);
	$writers[0]->do('BEGIN');
	$writers[0]->do('UPDATE items SET v = 1 WHERE id = 1');
	$writers[1]->do('BEGIN');
	$writers[1]->do('SAVEPOINT s');
	$writers[1]->do('UPDATE items SET v = 1 WHERE id = 3');
	$db->do('UPDATE items SET v = 1 WHERE id = 5');
	wait_for_standby();
	$page = $mirror->poll($there, 100);
	is(keys_of($page), '5', 'standby: what is open is not delivered');
	is(fetch_value($db, 'SELECT cardinality(open_xids) >= 2 FROM poll.cursor_info(?)', $page->{cursor}),
		1, 'standby: it is in the cursor');
	$other = bless {%$mirror}, ref $mirror;
	$other->{seen} = { %{ $mirror->{seen} } };

	$writers[0]->do('COMMIT');
	is(keys_of($mirror->poll($db, 100)), '1', 'primary: late commit, with the cursor of the standby');
	$writers[1]->do('COMMIT');
	wait_for_standby();
	is(keys_of($mirror->poll($there, 100)), '3', 'standby: late commit, with the cursor of the primary');
	is(keys_of($other->poll($there, 100)), '1 3', 'standby: late commits, with its own cursor');
	is($mirror->{cursor}, $other->{cursor}, 'both have the same cursor');
	return;
}

# A page is cut on the primary above an open subtransaction.  The standby lists
# that one among the open ones and cannot tell it from a transaction that the
# primary has delivered: the position in the WAL must do.
sub test_cut_above_subtransaction
{
	my $writer = connect_to($primary);
	my $mirror = PollMirror->new('items');

	$mirror->drain($db, 1000);
	$writer->do('BEGIN');
	$writer->do('UPDATE items SET v = 2 WHERE id = 1');
	$writer->do('SAVEPOINT s');
	$writer->do('UPDATE items SET v = 2 WHERE id = 3');
	$db->do('UPDATE items SET v = 2 WHERE id BETWEEN 5 AND 15');
	$mirror->poll($db, 2);
	wait_for_standby();
	my $page = $mirror->poll($there, 2);
	is(keys_of($page), '9 11', 'standby: a cut cursor goes on while a subtransaction is open');
	$page = $mirror->poll($there, 1);
	is(keys_of($page), '13', 'and again with the cursor of the standby');
	ok(fetch_value($there, 'SELECT poll.has_changes(ARRAY[?], ?)', 'items', $page->{cursor}),
		'has_changes tells of the rest');
	$page = $mirror->poll($db, 100);
	is(keys_of($page), '15', 'and back on the primary');
	$writer->do('ROLLBACK');
	return;
}

# The same under a snapshot of the standby that really is older.
sub test_older_snapshot
{
	my $early = connect_to($primary);
	my $older = connect_to($standby);
	my $mirror = PollMirror->new('items');

	$mirror->drain($db, 1000);
	$early->do('BEGIN');
	$early->do('UPDATE items SET v = 3 WHERE id = 1');
	$early->do('SAVEPOINT s');
	$db->do('UPDATE items SET v = 3 WHERE id = 3');
	wait_for_standby();
	$older->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$older->do('SELECT 1');
	$early->do('COMMIT');
	$db->do('UPDATE items SET v = 4 WHERE id IN (1, 3)');
	wait_for_standby();
	$mirror->poll($db, 1);
	my $page = $mirror->poll($older, 100);
	ok($page->{behind}, 'standby: an older snapshot is behind a cut cursor');
	ok(fetch_value($older, 'SELECT poll.has_changes(ARRAY[?], ?)', 'items', $page->{cursor}),
		'and has_changes says that there is more');
	$older->do('COMMIT');
	ok(!$mirror->poll($older, 100)->{behind}, 'a new one is not');
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'and nothing is lost');
	return;
}

# The standby stands still: it is behind a cut cursor, and not lost with it.
sub test_paused_replay
{
	my $mirror = PollMirror->new('items');

	$mirror->drain($db, 1000);
	wait_for_standby();
	$there->do('SELECT pg_wal_replay_pause()');
	$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'});
	$db->do('UPDATE items SET v = 5 WHERE id < 10');
	$mirror->poll($db, 2);
	my $page = $mirror->poll($there, 100);
	ok($page->{behind}, 'a standby that has not replayed so far is behind a cut cursor');
	$mirror->drain($db, 1000);
	is(keys_of($mirror->poll($there, 100)), '', 'and has nothing to say to a complete one');
	$there->do('SELECT pg_wal_replay_resume()');
	wait_for_standby();
	is(keys_of($mirror->poll($there, 100)), '', 'nor when it is there');
	$mirror->drain($db, 100);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'nothing is lost');
	return;
}

# Polls on either server at random until the file is there.
sub wanderer
{
	my ($seed, $stop_file) = @_;
	my @servers = map { connect_to($_) } $primary, $standby;
	my $mirror = PollMirror->new('items');

	srand($seed);
	while (!-e $stop_file)
	{
		$mirror->poll($servers[ int(rand(2)) ], log_uniform(300));
		$mirror->restart if rand() < 0.01;
		sleep rand(0.01);
	}
	wait_for_standby();
	$mirror->drain($servers[1], 300);
	return $mirror->report;
}

# With more subtransactions than a server keeps track of, at times.
sub nested_transaction
{
	my ($writer) = @_;

	$writer->do('BEGIN');
	foreach my $n (1 .. 1 + int(rand(150)))
	{
		$writer->do('SAVEPOINT s');
		$writer->do('INSERT INTO items VALUES (?) ON CONFLICT (id) DO UPDATE SET v = items.v + 1',
			undef, 1000 + $n);
		$writer->do('ROLLBACK TO s') if rand() < 0.1;
		$writer->do('RELEASE s') if rand() < 0.3;
	}
	sleep rand(0.3);
	$writer->do(rand() < 0.8 ? 'COMMIT' : 'ROLLBACK');
	return;
}

sub nester
{
	my ($stop_file) = @_;
	my $writer = connect_to($primary);

	while (!-e $stop_file)
	{
		eval { nested_transaction($writer); 1 } or do
		{
			die $@ unless tolerated($writer);
			$writer->do('ROLLBACK');
		};
	}
	return;
}

test_open_transactions();
test_cut_above_subtransaction();
test_older_snapshot();
test_paused_replay();

# The standby stays a little behind, so that most cursors are new to it.
$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '50ms'\n");
$standby->reload;

my $seed = random_seed();
my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';
my @writers = start_writers($primary, 3, $seed, 10);
my $nester = start_child('nester', sub { nester("$stop_file.nester") });
my @wanderers = map {
	my $number = $_;
	start_child("poller $number", sub { wanderer($seed + 100 + $number, $stop_file) })
} 1 .. 3;

note 'transactions: ' . writer_summary(finish_children(@writers));
# the last polls are those behind the last transaction
append_to_file("$stop_file.nester", '');
finish_children($nester);
append_to_file($stop_file, '');
my @reports = finish_children(@wanderers);
wait_for_standby();
check_mirrors($db, @reports);
check_mirrors($there, @reports);
is( fetch_value($there, q{SELECT poll.current_cursor('{items}')}),
	fetch_value($db, q{SELECT poll.current_cursor('{items}')}),
	'both servers are at the same position');

# A promotion starts a new history; t/026_promotion has what becomes of cursors.
$standby->promote;
$there = connect_to($standby);
my $mirror = PollMirror->new('items');
$mirror->drain($there, 100);
$there->do('UPDATE items SET v = 7 WHERE id < 30');
$mirror->drain($there, 3);
check_mirrors($there, $mirror->report);

done_testing();
