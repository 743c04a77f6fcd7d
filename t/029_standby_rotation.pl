# The log is trimmed on a primary, and cursors move between it and two standbys,
# one of which lags: who polls in time misses nothing and never expires.

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
	$standby->append_conf('postgresql.conf', "hot_standby_feedback = off\n$conf");
	$standby->start;
	return $standby;
}

# On near, queries that are in the way of recovery are canceled at once; far is
# slow.
my $near = new_standby('near', "max_standby_streaming_delay = '20ms'\n");
my $far = new_standby('far', "max_standby_streaming_delay = '3s'\n");
my ($at_near, $at_far) = map { connect_to($_) } $near, $far;

sub catch_up
{
	my $lsn = fetch_value($db, 'SELECT pg_current_wal_insert_lsn()');

	wait_for($_, 'SELECT pg_last_wal_replay_lsn() >= ?::pg_lsn', $lsn) or die "a standby does not replay\n" foreach $at_near, $at_far;
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

# Two segments wait for the same writer: of their horizons one is the newer.
sub test_two_filled
{
	rotate();
	my $writer = connect_to($primary);
	$writer->do('BEGIN; INSERT INTO items SELECT 1000 + g FROM generate_series(1, 2000) AS g');
	begin_segment();
	update(5);
	begin_segment();
	is(fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE state = 'filled')), 2, 'two wait');
	$writer->do('ROLLBACK');
	trim('1 hour', '1 hour');
	is(fetch_value($db, q(SELECT count(DISTINCT x) FROM poll.segment WHERE state = 'closed')), 2, 'each has a horizon of its own');
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

$_->do('SELECT 1') foreach $at_near, $at_far;
test_subtransaction($_) foreach 'COMMIT', 'ROLLBACK TO s', 'RELEASE s';
test_older_snapshot();
test_two_filled();
test_long_reader(connect_to($_)) foreach $primary, $far;

done_testing();
