# Old changes are trimmed while everybody writes and polls: who polls in time misses
# nothing and never expires, who does not gets PT410 and starts again, and nobody
# waits.
#
# POLL_TEST_DURATION	seconds, 60 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = random_seed();
my $duration = $ENV{POLL_TEST_DURATION} // 60;

# ---- step by step, without a worker ----

my $node = new_node('steps', preload => 0);
my $db = connect_to($node);
my $other = connect_to($node);

# Each segment's state and what poll.trim() did.
sub trim
{
	my ($age, $session) = @_;

	return join ', ', map { "$_->[0] " . ($_->[1] // '-') }
	  @{ ($session // $db)->selectall_arrayref('SELECT state, action FROM poll.trim(?) ORDER BY segment', undef, $age) };
}

# Until everything is in a new segment, and the older ones are empty.
sub rotate
{
	foreach (1 .. 4) { trim('0'); }
	return;
}

sub waits_for { return fetch_value($db, 'SELECT waits_for FROM poll.stat_log WHERE segment = ?', @_); }

my $cursor;
create_items($db);
is(trim('0'), 'current -, empty -, empty -', 'an empty log');
$db->do('INSERT INTO items VALUES (1001)');
is(trim('1 hour'), 'current too young, empty -, empty -', 'one that is young');
is(trim('0'), 'filled begun the next one, current -, empty -', 'writers go on in the next segment');
is(trim('1 hour'), 'closed closed, current -, empty -', 'when nobody is left, one is closed');
is(trim('1 hour'), 'closed too young, current -, empty -', 'and kept for its time');
is(trim('0'), 'trimmed trimmed, current -, empty -', 'then trimmed');
is(fetch_value($db, 'SELECT count(*) FROM poll.change WHERE segment = 0') > 0, 1, 'with its rows');
is(trim('0'), 'empty emptied, current -, empty -', 'and emptied');
is(fetch_value($db, 'SELECT pg_relation_size(?::regclass)', 'poll.change_0'), 0, 'to nothing');

# who has written to a segment keeps it, but for what is in a savepoint that is gone
$other->begin_work;
$other->do('INSERT INTO items SELECT 2000 + g FROM generate_series(1, 2000) AS g');
is(trim('0'), 'empty -, filled begun the next one, current -', 'somebody is writing');
is(trim('0'), 'empty -, filled waiting for writers, current -', 'and keeps the segment');
is_deeply(waits_for(1), [ $other->{pg_pid} ], 'which is shown');
my $reader = connect_to($node);
$reader->begin_work;
$reader->do('LOCK TABLE poll.change_1 IN ACCESS SHARE MODE');
is_deeply(waits_for(1), [ $other->{pg_pid} ], 'for those who write, not for those who read');
$reader->rollback;
$db->do('INSERT INTO items VALUES (1002)');
is(fetch_value($db, 'SELECT count(*) FROM poll.change WHERE segment = 2'), 1, 'others go on in the next one');
$other->do('INSERT INTO items VALUES (1003)');
$other->do(q(PREPARE TRANSACTION 'late'));
is(fetch_value($db, 'SELECT count(*) FROM poll.change WHERE segment = 2'), 1, 'it may end where it began');
is((split ', ', trim('1 hour'))[1], 'filled waiting for writers', 'what is prepared keeps it, too');
is_deeply(waits_for(1), ['prepared late'], 'which is shown');
$db->do(q(COMMIT PREPARED 'late'));
is((split ', ', trim('1 hour'))[1], 'closed closed', 'until it is committed');

# so does a transaction that trims itself
rotate();
$db->begin_work;
$db->do('INSERT INTO items SELECT 5000 + g FROM generate_series(1, 2000) AS g');
trim('0', $other);
like(trim('0'), qr/filled waiting for writers/, 'a session does not close what it writes to');
$db->rollback;

# a savepoint that is gone keeps nothing
rotate();
$other->begin_work;
$other->do('SAVEPOINT s');
$other->do('INSERT INTO items SELECT 5000 + g FROM generate_series(1, 2000) AS g');
$other->do('ROLLBACK TO s');
$db->do('UPDATE items SET v = 1 WHERE id = 1001');
trim('0');
like(trim('1 hour'), qr/closed closed/, 'nor a savepoint that was rolled back to');
$other->rollback;

# whoever keeps a segment for long does not keep the other two
rotate();
$other->begin_work;
$other->do('INSERT INTO items SELECT 20000 + g FROM generate_series(1, 2000) AS g');
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
foreach (1 .. 5)
{
	$db->do('UPDATE items SET v = v + 1 WHERE id = 1001');
	trim('0') foreach 1 .. 2;
	$cursor = fetch_value($db, q(SELECT poll.poll('{items}', ?)->>'cursor'), $cursor);
}
cmp_ok(fetch_value($db, q(SELECT count(*) FROM poll.change c JOIN poll.segment s ON s.id = c.segment WHERE s.state <> 'filled')), '<', 3,
	'while somebody is writing, the other segments take turns');
$other->commit;
is(fetch_value($db, q(SELECT count(*) FROM poll.changes('items', ?, 10000)), $cursor), 2000, 'and nothing of it is lost');

# readers keep a trimmed segment, but only those who began before
rotate();
$db->do('UPDATE items SET v = 2 WHERE id = 1001');
trim('0');
my ($current) = grep { $_ } map { $_->[0] } @{ $db->selectall_arrayref(q(SELECT id FROM poll.segment WHERE state = 'filled')) };
$current //= 0;
trim('1 hour');
$other->begin_work;
$other->do("LOCK TABLE poll.change_$current IN ACCESS SHARE MODE");
like(trim('0'), qr/trimmed trimmed/, 'one that is being read is trimmed');
like(trim('0'), qr/trimmed in use/, 'but not emptied');
is_deeply(waits_for($current), [ $other->{pg_pid} ], 'which is shown');
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('UPDATE items SET v = 3 WHERE id = 1001');
is(fetch_value($db, q(SELECT key FROM poll.changes('items', ?)), $cursor), '{"id":1001}', 'others poll meanwhile');
$other->commit;
like(trim('1 hour'), qr/empty emptied/, 'until then');

# steps are undone with their transaction, and each segment takes one of them
rotate();
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('UPDATE items SET v = 4 WHERE id = 1001');
$db->begin_work;
like(trim('0'), qr/filled begun/, 'in a transaction');
like(trim('0'), qr/filled -/, 'a segment takes one step');
$db->do('UPDATE items SET v = 5 WHERE id = 1001');
$db->rollback;
is(fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE state = 'filled')), 0, 'which is undone with it');
$db->do('UPDATE items SET v = 6 WHERE id = 1001');
is(fetch_value($db, q(SELECT data->>'v' FROM poll.changes('items', ?)), $cursor), 6, 'and nothing is lost');

# a session that has not heard of it, in the middle of its transaction
$other->begin_work;
$other->do('UPDATE items SET v = 7 WHERE id = 1');
rotate();
$other->do('UPDATE items SET v = 8 WHERE id = 1');
$other->commit;
is(fetch_value($db, q(SELECT s.state FROM poll.change c JOIN poll.segment s ON s.id = c.segment)), 'current',
	'writers go on in the segment that is current');

# what was open when a client polled, and is trimmed, is missing, though nothing
# above it is
rotate();
$other->begin_work;
$other->do('INSERT INTO items SELECT 10000 + g FROM generate_series(1, 2000) AS g');
trim('0');
$db->do('UPDATE items SET v = 9 WHERE id = 1001');
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$other->commit;
like(trim('1 hour'), qr/closed closed/, 'a segment with a late commit is closed');
is(fetch_value($db, 'SELECT next_xid = (SELECT max(x::text::bigint)::text::xid8 FROM poll.segment) FROM poll.cursor_info(?)', $cursor), 1,
	'with a horizon at the X of a cursor');
is(fetch_value($db, q(SELECT count(*) FROM poll.changes('items', ?, 10000)), $cursor), 2000, 'which has not seen it');
like(trim('0'), qr/trimmed trimmed/, 'it is trimmed');
ok(!eval { $db->do(q(SELECT poll.poll('{items}', ?)), undef, $cursor); 1 } && $db->state eq 'PT410', 'and the cursor has expired');
rotate();

# ---- a transaction that stays open expires nobody ----

my $mirror = PollMirror->new('items');
$mirror->drain($db, 1000);
$other->begin_work;
$other->do('UPDATE items SET v = 9 WHERE id = 3');
foreach my $i (1 .. 10)
{
	$db->do('UPDATE items SET v = ? WHERE id = 5', undef, $i);
	$mirror->drain($db, 1000);
	trim('0');
	trim('0');
	$mirror->drain($db, 1000);
	rotate();
}
my ($x, $p) = $db->selectrow_array('SELECT next_xid, open_xids::text FROM poll.cursor_info(?)', undef, $mirror->{cursor});
like($p, qr/^\{\d+\}$/, 'after ten rotations, what was open still is');
$other->commit;
$mirror->drain($db, 1000);
is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'and comes when it is committed');
$_->disconnect foreach $db, $other;
$node->stop;

# ---- all at once: a rotation a second, and less ----

# Polls now and then, under any snapshot, and expires.
sub slow_poller
{
	my ($poller_seed, $stop_file) = @_;
	my $newest = connect_to($node);
	my $older = { db => connect_to($node), until => 0 };
	my $slow = PollMirror->new('items');

	srand($poller_seed);
	while (!-e $stop_file)
	{
		my $session = rand() < 0.7 ? $newest : older_connection($older, 1);

		try_poll($slow, $session);
		$older->{until} = 0 if $session != $newest && $session->state;
		sleep(rand() < 0.05 ? rand(4) : rand(0.01));
	}
	foreach (1 .. 100)
	{
		last if eval { $slow->drain($newest, 1000); 1 };
		$newest->state eq 'PT410' ? $slow->expire : die $@;
	}
	return $slow->report;
}

# Polls all there is, twice as often as is needed, and must never expire, unless the
# machine has kept it from polling for too long.
sub timely_poller
{
	my ($poller_seed, $age, $stop_file) = @_;
	my $session = connect_to($node);
	my $timely = PollMirror->new('items');
	my $last = time;

	srand($poller_seed);
	while (!-e $stop_file)
	{
		my $start = time;

		if (eval { $timely->drain($session, 1000); 1 })
		{
			$last = $start;
		}
		else
		{
			die $@ if $session->state ne 'PT410' || time - $last < $age;
			$timely->expire;
		}
		sleep rand($age / 2);
	}
	$timely->drain($session, 1000);
	return $timely->report;
}

# age: what is older is trimmed, in seconds
sub stress_with_rotation
{
	my ($age, $seconds) = @_;
	my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';

	create_items($db);
	my $rotator = start_child('rotator', sub { rotator($node, $age, $stop_file) });
	my @writers = start_writers($node, 6, $seed, $seconds);
	my @slow = map { my $i = $_; start_child("slow poller $i", sub { slow_poller($seed + 100 + $i, $stop_file) }) } 1 .. 3;
	my @timely = map { my $i = $_; start_child("timely poller $i", sub { timely_poller($seed + 200 + $i, $age, $stop_file) }) } 1 .. 2;

	note 'transactions: ' . writer_summary(finish_children(@writers));
	append_to_file($stop_file, '');
	my ($count) = finish_children($rotator);
	note 'steps: ' . join ', ', map { "$count->{$_} $_" } sort keys %$count;
	my @reports = finish_children(@slow, @timely);
	check_mirrors($db, @reports);
	my $expired = 0;
	$expired += @{ $_->{expired} } foreach @reports[ 0 .. 2 ];
	note "$expired of the slow ones have expired";
	$db->do('DROP TABLE items');
	return ($count, $expired);
}

$node = new_node('rotation');
$db = connect_to($node);
my ($count, $expired) = stress_with_rotation(1, $duration);
cmp_ok($count->{emptied}, '>', $duration / 3, 'segments were emptied all the time');
($count, my $more) = stress_with_rotation(0.3, $duration / 3);
cmp_ok($expired + $more, '>', 0, 'somebody has expired, and all were told');

# ---- the worker does it by itself ----

$node->append_conf('postgresql.conf', "poll_ext.retention = '1s'");
$node->reload;
create_items($db);
my $before = -s $node->logfile;
my $largest = 0;
my $steps = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'poll.segment'::regclass";
my $reported = fetch_value($db, $steps);
my @writers = start_writers($node, 2, $seed, 15);
my $until = time + 14;
while (time < $until)
{
	my $oldest = fetch_value($db, 'SELECT extract(epoch FROM now()) - min(version) / 1e6 FROM poll.change');
	$largest = $oldest if defined $oldest && $oldest > $largest;
	sleep 0.1;
}
cmp_ok(fetch_value($db, $steps), '>', $reported, 'it reports what it does, for autovacuum');
finish_children(@writers);
note sprintf 'the oldest change was %.1f s old', $largest;
cmp_ok($largest, '<', 8, 'the worker trims what is older than poll_ext.retention');
like(slurp_file($node->logfile, $before), qr/LOG:  poll_ext has trimmed \d+ kB of the change log of database "postgres"/, 'and says so');
ok(wait_for($db, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'poll_ext worker')), 'the worker has reported what it did');
is(fetch_value($db, q(SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'change_0')) < 200, 1, 'nothing is left to VACUUM');

# what is in the way for long is in the log, once
$before = -s $node->logfile;
my $forgotten = connect_to($node);
$forgotten->begin_work;
$forgotten->do('INSERT INTO items SELECT 50000 + g FROM generate_series(1, 2000) AS g');
foreach (1 .. 50)
{
	$db->do('INSERT INTO items VALUES (1) ON CONFLICT (id) DO UPDATE SET v = items.v + 1');
	last if fetch_value($db, q(SELECT EXISTS (SELECT FROM poll.stat_log WHERE state = 'filled' AND ?::text = ANY (waits_for))), $forgotten->{pg_pid});
	sleep 0.2;
}
$db->do(q(UPDATE poll.segment SET since = since - interval '2 minutes' WHERE state = 'filled'));
foreach (1 .. 5)
{
	$db->do('INSERT INTO items VALUES (1) ON CONFLICT (id) DO UPDATE SET v = items.v + 1');
	sleep 1.3;    # in between the worker ends
}
my @complaints = slurp_file($node->logfile, $before) =~ /LOG:  poll_ext cannot trim the change log of database "postgres": segment \d is waiting for writers/g;
is(scalar @complaints, 1, 'a segment that is kept for long is in the log, once');
$forgotten->rollback;

# a segment that is too large makes room early
$node->append_conf('postgresql.conf', "poll_ext.retention = '1d'\npoll_ext.rotate_size = '1MB'");
$node->reload;
$before = -s $node->logfile;
$until = time + 20;
while (time < $until && slurp_file($node->logfile, $before) !~ /DETAIL:  Clients that have not polled/)
{
	$db->do('UPDATE items SET v = v + 1') foreach 1 .. 50;
}
like(slurp_file($node->logfile, $before), qr/HINT:  Raise poll_ext.rotate_size/, 'a log that is too large is trimmed early');
$mirror = PollMirror->new('items');
$mirror->drain($db, 1000);
my (@sizes, @closed);
foreach my $i (1 .. 60)
{
	$db->do('UPDATE items SET v = v + 1') foreach 1 .. 20;
	$mirror->drain($db, 1000);
	push @sizes, fetch_value($db, 'SELECT sum(bytes) FROM poll.stat_log');
	push @closed, fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE state = 'closed'));
	sleep 0.1;
}
note 'size of the log: ' . join ' ', map { sprintf '%.1f', $_ / 1e6 } @sizes;
cmp_ok((sort { $a <=> $b } @sizes)[-1], '<', 8e6, 'so that it stays small');
is((sort @closed)[-1], 2, 'but not more of it goes than has to');
is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'and those who poll all the time do not notice');

# a server that has no room for the worker
my $few = new_node('few', conf => 'max_worker_processes = 1');
my $on_few = connect_to($few);
create_items($on_few);
$on_few->do('INSERT INTO items VALUES (?)', undef, $_) foreach 2001 .. 2003;
is(() = slurp_file($few->logfile) =~ /LOG:  poll_ext cannot trim .* no background worker can be started/g, 1, 'no worker: that is in the log, once');

done_testing();
