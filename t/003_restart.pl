# Crashes: cursors go on afterwards, nothing is lost, and no poll has returned
# what a crash takes back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(sleep time);

# The WAL of an asynchronous commit stays in memory, unless somebody flushes it.
my $node = new_node('restart', conf => <<'CONF');
wal_writer_delay = '10s'
checkpoint_timeout = '1h'
autovacuum = off
CONF
my $db = connect_to($node);

sub crash
{
	$db->disconnect;
	$node->stop('immediate');
	$node->start;
	$db = connect_to($node);
	return;
}

# What a crash leaves of a row that was written by an asynchronous commit, when
# the function was called between the commit and the crash.
sub row_survives
{
	my ($id, $between) = @_;

	$db->do('CHECKPOINT');
	$db->do('SET synchronous_commit = off');
	$db->do('INSERT INTO items VALUES (?, 0)', undef, $id);
	$between->();
	crash();
	return fetch_value($db, 'SELECT count(*) FROM items WHERE id = ?', $id);
}

# Fills the last page of the WAL to its end, with a record that means nothing.
# Returns whether nobody else has written anything meanwhile.
sub fill_wal_page
{
	my $position = sub { fetch_value($db, q{SELECT pg_current_wal_insert_lsn() - '0/0'}) };
	my $emit = sub { $db->do(q{SELECT pg_logical_emit_message(false, '', repeat('x', ?))}, undef, $_[0]) };
	my ($before, $after, $overhead, $left);

	# a record of 1000 bytes, within one page, shows what comes on top
	do
	{
		$before = $position->();
		$emit->(1000);
		$after = $position->();
		$overhead = $after - $before - 1000;
		$left = 8192 - $after % 8192;
	} while ($left < 1000 || $left > 7000);
	$emit->($left - $overhead);
	return $position->() % 8192 <= 40;
}

create_items($db);

# ---- cursors of each kind go on ----

$db->do('UPDATE items SET v = 1 WHERE id < 20');
my %mirror;
$mirror{complete} = PollMirror->new('items');
$mirror{complete}->drain($db, 1000);
$mirror{cut} = PollMirror->new('items');
$mirror{cut}->drain($db, 1000);
$db->do('UPDATE items SET v = v + 1 WHERE id < 50');
$mirror{cut}->poll($db, 7);
$mirror{'full sync'} = PollMirror->new('items');
$mirror{'full sync'}->poll($db, 7);
foreach my $state (sort keys %mirror)
{
	is(fetch_value($db, 'SELECT state FROM poll.cursor_info(?)', $mirror{$state}{cursor}),
		$state, "a cursor that is $state");
}

# prepared transactions, one of each fate
foreach my $gid ('commits', 'rolls back')
{
	$db->do('BEGIN');
	$db->do('UPDATE items SET body = ? WHERE id = 1', undef, $gid) if $gid eq 'commits';
	$db->do('INSERT INTO items VALUES (?, 0, ?)', undef, $gid eq 'commits' ? 1001 : 1002, $gid);
	$db->do("PREPARE TRANSACTION '$gid'");
}
$db->do('INSERT INTO items VALUES (1003)');
$mirror{'after prepare'} = PollMirror->new('items');
$mirror{'after prepare'}->drain($db, 1000);

crash();

$db->do('DELETE FROM items WHERE id IN (3, 45)');
$_->drain($db, 10) foreach values %mirror;
my %delivered = map { $_ => $mirror{$_}{delivered} } keys %mirror;
$db->do(q{COMMIT PREPARED 'commits'});
$db->do(q{ROLLBACK PREPARED 'rolls back'});
$_->drain($db, 10) foreach values %mirror;
foreach my $state (sort keys %mirror)
{
	is($mirror{$state}{delivered} - $delivered{$state},
		2, "$state: what was prepared before the crash and committed after it comes once");
	$mirror{$state}->drain($db, 10);
}
check_mirrors($db, map { $mirror{$_}->report } sort keys %mirror);

# and after a shutdown
$db->disconnect;
$node->restart;
$db = connect_to($node);
$db->do('UPDATE items SET v = -1 WHERE id < 10');
$_->drain($db, 10) foreach values %mirror;
check_mirrors($db, map { $mirror{$_}->report } sort keys %mirror);

# ---- transaction ids that are handed out again ----

# The ids of transactions that rolled back, and left no WAL on disk, are lost in
# a crash.  A cursor must not count on them, or it would take the changes that
# get these ids later for seen.
my $mirror = PollMirror->new('items');
my ($burnt, $again, $now);
$mirror->drain($db, 1000);
foreach (1 .. 5)
{
	$db->do('UPDATE items SET v = v - 1 WHERE id = 5');
	foreach (1 .. 20)
	{
		$db->do('BEGIN');
		$burnt = fetch_value($db, 'SELECT pg_current_xact_id()::text::bigint');
		$db->do('ROLLBACK');
	}
	$mirror->drain($db, 1000);
	$now = fetch_value($db, q{SELECT poll.current_cursor('{items}')});
	crash();
	$db->do('UPDATE items SET v = v - 1 WHERE id = 7');
	$again = fetch_value($db, q{SELECT max(xid)::text::bigint FROM poll.change});
	last if $again <= $burnt;
	$mirror->drain($db, 1000);
}
cmp_ok($again, '<=', $burnt, 'transaction ids were handed out again after the crash');
ok(fetch_value($db, 'SELECT poll.has_changes(ARRAY[?], ?)', 'items', $now),
	'has_changes tells of a change under such an id');
$mirror->drain($db, 1000);
$mirror{complete}->drain($db, 1000);
check_mirrors($db, $mirror->report, $mirror{complete}->report);

# ---- asynchronous commits ----

# first, that the test can fail
my $lost = 0;
foreach my $id (2001 .. 2005)
{
	$lost = !row_survives($id, sub { });
	last if $lost;
}
ok($lost, 'without a poll, a crash takes back an asynchronous commit');
$db->do('DELETE FROM items WHERE id BETWEEN 2001 AND 2005');

my %ways = (
	'poll' => sub { $mirror->drain($db, 1000) },
	'poll with a page of 1' => sub {
		$db->do('UPDATE items SET v = v + 1 WHERE id BETWEEN 11 AND 13');
		$mirror->poll($db, 1);
	},
	'changes' => sub { $mirror->poll_rows($db, 1000, sub { $_[0] }) },
	'changed_keys' => sub {
		fetch_value($db, 'SELECT count(*) FROM poll.changed_keys(?, ?)', 'items', $mirror->{cursor});
	},
	'full sync' => sub { PollMirror->new('items')->poll($db, 1) },
	'poll in another session' => sub { $mirror->drain(connect_to($node), 1000) },
	'current_cursor' => sub { fetch_value($db, q{SELECT poll.current_cursor('{items}')}) });
my $id = 3000;
foreach my $way (sort keys %ways)
{
	$mirror->drain($db, 1000);
	is(row_survives($id, $ways{$way}), 1, "a row survives the crash after it was seen: $way");
	$mirror->drain($db, 1000);
	$db->do('INSERT INTO items VALUES (?)', undef, $id + 1000);
	$mirror->drain($db, 1000);
	$id++;
}

# one that began before another one was polled
my $early = connect_to($node);
$early->do('SET synchronous_commit = off');
$early->do('BEGIN');
$early->do('INSERT INTO items VALUES (5001)');
$db->do('SET synchronous_commit = off');
$db->do('INSERT INTO items VALUES (5002)');
$mirror->drain($db, 1000);
$early->do('COMMIT');
$mirror->drain($db, 1000);
$early->disconnect;
crash();
is(fetch_value($db, 'SELECT count(*) FROM items WHERE id IN (5001, 5002)'),
	2, 'so does one that began before another one was polled');

# the WAL ends where a page does: the next record will not begin there
$id = 6000;
$db->do('SET synchronous_commit = off');
do { $db->do('INSERT INTO items VALUES (?)', undef, $id++); } until fill_wal_page();
ok(eval { $mirror->drain($db, 1000); 1 }, 'a poll flushes the WAL to the end of a page') or diag $@;
crash();
$mirror->drain($db, 1000);
$mirror{complete}->drain($db, 1000);
check_mirrors($db, $mirror->report, $mirror{complete}->report);

# ---- crashes in the middle of everything ----

my $seed = random_seed();
srand($seed);
my @mirrors = map { PollMirror->new('items') } 1 .. 3;
foreach my $round (1 .. 3)
{
	my @writers = start_writers($node, 4, $seed + 1000 * $round, 60, may_crash => 1);
	my $until = time + 1 + rand(0.5);

	while (time < $until)
	{
		$_->poll($db, log_uniform(100)) foreach @mirrors;
	}
	crash();
	note "round $round: " . writer_summary(finish_children(@writers));
	foreach my $gid (@{ $db->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts ORDER BY gid') })
	{
		$_->poll($db, log_uniform(100)) foreach @mirrors;
		$db->do((rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
	}
}
$_->drain($db, 100) foreach @mirrors;
check_mirrors($db, map { $_->report } @mirrors);

done_testing();
