# A full disk, statements and commits that are ended, a lock table that is full,
# transaction ids far ahead and across the end of 32 bits, hostile cursors there:
# errors are clear, nothing is half done, and everything goes on.
#
# POLL_TEST_SEED	to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use List::Util qw(min);
use Math::BigInt;
use MIME::Base64;
use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = random_seed();
my $folder = PostgreSQL::Test::Utils::tempdir();

# The SQLSTATE that the statement ends with; '' if it ends well.
sub state_of
{
	my ($session, $sql) = @_;

	return eval { $session->do($sql); 1 } ? '' : $session->state;
}

# ---- a full disk ----

my $shim = "$folder/nospace.so";
my $flag = "$folder/nospace";
system_or_bail('cc', '-shared', '-fPIC', '-o', $shim, "$FindBin::RealBin/nospace.c", '-ldl');

my ($node, $db);
{
	local $ENV{LD_PRELOAD} = $shim;
	local $ENV{POLL_TEST_NOSPACE} = $flag;
	$node = new_node('limits', conf => <<'CONF');
max_locks_per_transaction = 10
max_connections = 10
max_prepared_transactions = 2
autovacuum = off
CONF
}
$db = connect_to($node);
create_items($db);
$db->do('CREATE TABLE rooms (id int PRIMARY KEY, room int NOT NULL)');
$db->do(q(SELECT poll.track('rooms', scope => '{room}')));
$db->do('CREATE TABLE other AS SELECT 1 AS v');
my $mirror = PollMirror->new('items');
$mirror->drain($db, 1000);

# The disk is full for these relations.
sub fill_disk
{
	my $files = $db->selectcol_arrayref(
		'SELECT pg_relation_filenode(r::regclass)::text FROM unnest(?::text[]) AS r', undef, [@_]);
	append_to_file($flag, join ' ', @$files);
	return;
}

sub is_right
{
	my ($name) = @_;

	$mirror->drain($db, 1000);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', $name);
	return;
}

foreach my $part ('poll.change_0', 'poll.change_0_idx')
{
	my $statement = "UPDATE items SET v = v + 1; INSERT INTO items SELECT 1000 + g FROM generate_series(1, 100000) AS g";

	fill_disk($part);
	is(state_of($db, $statement), '53100', "no space for $part: the transaction fails");
	is(fetch_value($db, 'SELECT count(*) FROM items WHERE id > 1000'), 0, 'all of it');
	is_right('polls go on');
	is(state_of($db, 'UPDATE other SET v = v + 1'), '', 'so do those who write what is not tracked');
	unlink $flag;
	is(state_of($db, 'UPDATE items SET v = v + 1'), '', 'when there is space again, writers go on');
	is_right('and so do polls');
}

# what is written at the end: a chunk for each room
fill_disk('poll.change_0');
foreach my $end ('COMMIT', q(PREPARE TRANSACTION 'full'))
{
	$db->do('BEGIN');
	$db->do('UPDATE items SET v = v + 1 WHERE id = 1');
	$db->do('INSERT INTO rooms SELECT g, g FROM generate_series(1, 1000) AS g');
	is(state_of($db, $end), '53100', "no space at the end: $end");
	$db->do('ROLLBACK') if $db->ping > 1;
	is(fetch_value($db, 'SELECT count(*) FROM rooms') + fetch_value($db, 'SELECT count(*) FROM pg_prepared_xacts'),
		0, 'nothing of it stays');
	is_right('nor is told');
}

# in a savepoint that the transaction goes on without
my $before = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('BEGIN');
$db->do('UPDATE items SET v = v + 1 WHERE id = 1');
$db->do('SAVEPOINT s');
$db->do('UPDATE items SET v = v + 1 WHERE id = 3');
is(state_of($db, 'INSERT INTO items SELECT 1000 + g FROM generate_series(1, 100000) AS g'), '53100', 'no space in a savepoint');
$db->do('ROLLBACK TO s');
unlink $flag;
$db->do('UPDATE items SET v = v + 1 WHERE id = 5');
$db->do('COMMIT');
is_right('what is before and after it comes');
is(join(' ', sort @{ $db->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changed_keys('items', $1::text)), undef, $before) }),
	'1 5', 'and nothing else');

# rotation: a segment is emptied by giving it new files, and its index has a page
sub trim { return state_of($db, q(SELECT poll.trim('0'))); }
sub state_of_segment { return fetch_value($db, 'SELECT state FROM poll.segment WHERE id = ?', @_); }

sub no_new_files
{
	append_to_file($flag, '>' . fetch_value($db, 'SELECT max(relfilenode::bigint) FROM pg_class'));
	return;
}

foreach my $want ('filled', 'closed', 'trimmed')
{
	is(trim(), '', "a segment is $want");
	$mirror->drain($db, 1000);
}
no_new_files();
my $log_start = -s $node->logfile;
is(trim(), '53100', 'no space for the new file of a segment: the step fails');
is(state_of_segment(0), 'trimmed', 'all of it');
$db->do('UPDATE items SET v = v + 1 WHERE id = 1');
is_right('writers and polls go on');
ok($node->wait_for_log(qr/worker.*|could not extend file/, $log_start), 'the worker fails, too');
is(state_of_segment(0), 'trimmed', 'and leaves it as it was');
unlink $flag;
$db->do('UPDATE items SET v = v + 1 WHERE id = 1');
ok(wait_for($db, q(SELECT state = 'empty' FROM poll.segment WHERE id = 0)), 'when there is space again, the next one empties it');
is_right('and polls go on');

# ---- statements that are ended ----

# Ends the statement in the midst of it: not when it is through.
sub timed_out
{
	my ($sql, $name) = @_;
	my ($state, $took, $whole, @tries);

	# the machine may have something else to do, or be late with the time
	foreach (1 .. 20)
	{
		my $start = time;
		$db->do('BEGIN');
		$db->do($sql);
		$whole = min($whole // 'inf', time - $start);
		$db->do('ROLLBACK');
		$db->do('SET statement_timeout = ' . (1 + int($whole * 100)));
		$start = time;
		$state = state_of($db, $sql);
		$took = time - $start;
		$db->do('SET statement_timeout = 0');
		push @tries, sprintf '%.1f of %.1f ms %s', $took * 1000, $whole * 1000, $state;
		last if $state eq '57014' && $took < $whole / 2;
	}
	ok($state eq '57014' && $took < $whole / 2, "ended in time: $name") or diag join "\n", @tries;
	note $tries[-1];
	return;
}

$db->do('INSERT INTO items SELECT 1000 + g, 0 FROM generate_series(1, 4000) AS g');
my $cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('DO $$ BEGIN FOR i IN 1 .. 150 LOOP UPDATE items SET v = v + 1; COMMIT; END LOOP; END $$');
$db->do('SET poll_ext.max_scan = 2147483647');
timed_out("SELECT poll.poll('{items}', '$cursor', 10000)", 'a poll that reads 600,000 entries');
timed_out("SELECT count(*) FROM poll.changes('items', '$cursor', 10000)", 'or as rows');
$db->do('RESET poll_ext.max_scan');
is_right('the next one is right');

$db->do('INSERT INTO items SELECT 10000 + g, 0 FROM generate_series(1, 6000) AS g');
timed_out("SELECT poll.poll('{items}', NULL, 10000)", 'a page of a full sync');
$db->do('DELETE FROM items WHERE id > 10000');

# the timeout is not for a COMMIT, but it can be canceled: here, while it writes
# 50,000 chunks.  Returns its SQLSTATE.
sub cancel_commit
{
	my ($savepoint) = @_;
	my $child = start_child('writer of 50,000 chunks', sub {
		my $session = connect_to($node);

		$session->do(q(SET application_name = 'writer'));
		$session->do('BEGIN');
		$session->do('SAVEPOINT s') if $savepoint;
		$session->do('INSERT INTO rooms SELECT g, g FROM generate_series(1, 50000) AS g');
		$session->do('RELEASE s') if $savepoint;
		return { state => state_of($session, 'COMMIT') };
	});

	wait_for($db, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'writer' AND state = 'active' AND query = 'COMMIT'));
	return (finish_children($child))[0]{state};
}

foreach my $savepoint (0, 1)
{
	my $state;

	# it may have been faster
	foreach (1 .. 5)
	{
		$state = cancel_commit($savepoint);
		last if $state ne '';
		$db->do('DELETE FROM rooms');
	}
	is($state, '57014', 'a commit is canceled while it writes' . ($savepoint ? ' what a savepoint has left' : ''));
	is(fetch_value($db, 'SELECT count(*) FROM rooms'), 0, 'and has not committed');
}

# a cursor that lists 512 transactions, and many feeds in each of which to look
sub varint
{
	my ($value) = @_;
	my $bytes = '';

	# it may be a Math::BigInt
	for (; $value >= 128; $value = ($value - $value % 128) / 128) { $bytes .= chr($value % 128 + 128); }
	return $bytes . chr($value);
}

# A cursor with the head of another one.
sub make_cursor
{
	my ($like, $flags, @numbers) = @_;
	my $head = substr decode_base64($like =~ tr{-_}{+/}r), 1, 16;

	return encode_base64(chr($flags) . $head . join('', map { varint($_) } @numbers), '') =~ tr{+/=}{-_}dr;
}

$db->do('CREATE TABLE many (id int PRIMARY KEY)');
$db->do('SELECT poll.track(?, ?)', undef, 'many', "many$_") foreach 1 .. 60;
$db->do('DO $$ BEGIN FOR i IN 1 .. 520 LOOP PERFORM pg_current_xact_id(); ROLLBACK; END LOOP; END $$');
$db->do('INSERT INTO many VALUES (1)');
my $many = '{' . join(',', map { "many$_" } 1 .. 60) . '}';
$cursor = fetch_value($db, 'SELECT poll.current_cursor(?)', $many);
my $x = fetch_value($db, 'SELECT next_xid::text::bigint FROM poll.cursor_info(?)', $cursor);
my $listing = make_cursor($cursor, 1, $x, 512, map { $_ == 1 ? 2 : 1 } 1 .. 512);
is(fetch_value($db, 'SELECT cardinality(open_xids) FROM poll.cursor_info(?)', $listing), 512, 'a cursor with 512 transactions');
$db->do('SET poll_ext.max_scan = 2147483647');
timed_out("SELECT poll.has_changes('$many'::text[], '$listing'::text)", 'a look for 512 transactions in 60 feeds');
ok(!fetch_value($db, 'SELECT poll.has_changes(?::text[], ?::text)', $many, $listing), 'in which there is nothing');
$db->do('RESET poll_ext.max_scan');

# ticks: a day's and more
foreach (1 .. 10)
{
	last if fetch_value($db, q(SELECT EXISTS (SELECT FROM poll.segment WHERE state = 'closed')));
	$db->do('UPDATE items SET v = v + 1 WHERE id < 10');
	trim();
}
$db->do(q(INSERT INTO poll.tick SELECT '2000-01-01'::timestamptz + g * interval '1 s', '1', '{}', 1 FROM generate_series(1, 300000) AS g));
timed_out(q(SELECT poll.trim('0')), 'a step that deletes 300,000 ticks');
is(fetch_value($db, q(SELECT count(*) FROM poll.tick WHERE x = '1')), 300000, 'has deleted none');
trim() foreach 1 .. 3;
is(fetch_value($db, q(SELECT count(*) FROM poll.tick WHERE x = '1')), 0, 'again, it has');

# ---- a lock table that is full ----

$db->do('CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)');
$db->do("CREATE TABLE part$_ PARTITION OF parts FOR VALUES FROM ($_) TO ($_ + 1)") foreach 1 .. 20;
$db->do(q(SELECT poll.track('parts')));
ok(wait_for($db, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'poll_ext worker')), 'the worker is gone');
$mirror->restart;
$mirror->drain($db, 1000);
my $writer = connect_to($node);
$writer->do('BEGIN');
$writer->do('UPDATE items SET v = v + 1 WHERE id < 20');
my $greedy = connect_to($node);
my $locks = 0;
while ($locks < 100_000)
{
	last if !eval { $greedy->do('SELECT pg_advisory_lock(?)', undef, $locks); 1 };
	$locks++;
}
is($greedy->state, '53200', "no room for another lock after $locks");
is(trim(), '53200', 'no step can be made');
ok(eval { $mirror->drain($db, 1000); 1 }, 'a poll of one table needs none');
is(state_of($db, q(SELECT poll.poll('{parts}'))), '53200', 'one of many partitions fails');
is(state_of($db, 'UPDATE items SET v = v + 1 WHERE id < 10'), '53200', 'so does a writer');
# one that had begun, and needs locks for the log
foreach my $i (1 .. 20)
{
	$writer->do('SAVEPOINT s');
	last if !eval { $writer->do("LOCK TABLE part$i IN ACCESS SHARE MODE"); 1 };
	$writer->do('RELEASE s');
}
is($writer->state, '53200', 'until it has used up its own');
$writer->do('ROLLBACK TO s');
is(state_of($writer, 'COMMIT'), '53200', 'a commit that cannot write to the log fails');
$greedy->disconnect;
ok(wait_for($db, q(SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory')), 'the locks are given back');
$mirror->drain($db, 1000);
is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'and nothing of it stays');
is(state_of($db, 'UPDATE items SET v = v + 1'), '', 'then writers go on');
is(trim(), '', 'and so does trimming') foreach 1 .. 4;
$mirror->restart;
is_right('and polls');
$db->disconnect;
$node->stop;

# ---- transaction ids far ahead, and across the end of 32 bits ----

# behind it, 64-bit ones are above 2^63
my $epoch = 0x7fffffff;
my $end = '9223372036854775808';
my $far = PostgreSQL::Test::Cluster->new('far');
$far->init;
$far->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'poll_ext'
max_prepared_transactions = 20
autovacuum = off
deadlock_timeout = '50ms'
CONF
$far->start;
$far->command_ok([ 'vacuumdb', '--all', '--freeze' ], 'old rows are frozen');
$far->stop;
# the status of the transactions before the end
append_to_file($far->data_dir . '/pg_xact/0FFF', "\0" x 262144);
command_ok([ 'pg_resetwal', '-e', $epoch, '-x', 0xFFFFFFFF - 300, '-D', $far->data_dir ], 'the next transaction is far ahead');
$far->start;
$far->safe_psql('postgres', 'CREATE EXTENSION poll_ext');
$db = connect_to($far);
ok(fetch_value($db, 'SELECT pg_current_xact_id() < ?::xid8', $end), 'before the end of 32 bits');
$db->do('CREATE TABLE early (id int PRIMARY KEY)');
$db->do(q(SELECT poll.track('early')));
my $early = connect_to($far);
$early->begin_work;
$early->do('INSERT INTO early VALUES (1)');
$db->do('INSERT INTO early VALUES (2)');
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{early}')));
$db->do('BEGIN');
$db->do('INSERT INTO early VALUES (4)');
$db->do(q(PREPARE TRANSACTION 'early'));
my $since = fetch_value($db, 'SELECT clock_timestamp()');

# Writers and pollers while segments come and go.
sub far_poller
{
	my ($number, $stop_file) = @_;
	my $session = connect_to($far);
	my $copy = PollMirror->new('items');

	srand($seed + $number);
	while (!-e $stop_file)
	{
		unless_expired($copy, $session, sub { random_poll($copy, $session) });
		sleep 0.005;
	}
	foreach (1 .. 20)
	{
		last if unless_expired($copy, $session, sub { $copy->drain($session, 1000) });
	}
	return $copy->report;
}

sub far_rotator
{
	my ($stop_file) = @_;
	my $session = connect_to($far);
	my $emptied = 0;

	while (!-e $stop_file)
	{
		$emptied += grep { ($_ // '') eq 'emptied' } @{ $session->selectcol_arrayref(q(SELECT action FROM poll.trim('300 ms'))) };
		sleep 0.05;
	}
	return { emptied => $emptied };
}

my $stop_file = "$folder/stop";
create_items($db);
my @writers = start_writers($far, 4, $seed, 10);
my @pollers = map { my $number = $_; start_child("poller $number", sub { far_poller($number, $stop_file) }) } 1 .. 3;
my $rotator = start_child('rotator', sub { far_rotator($stop_file) });
note 'transactions: ' . writer_summary(finish_children(@writers));
append_to_file($stop_file, '');
my @reports = finish_children(@pollers);
my ($rotated) = finish_children($rotator);
note 'expired: ' . join ' ', map { scalar @{ $_->{expired} } } @reports;
# the first segment waits for the one that began early, the others take turns
cmp_ok($rotated->{emptied}, '>', 1, 'segments were emptied meanwhile');
ok(fetch_value($db, 'SELECT pg_current_xact_id() > ?::xid8', $end), 'and after it');
my $late = fetch_value($db, q(SELECT poll.current_cursor('{early}')));
is(fetch_value($db, q(SELECT cardinality(open_xids) FROM poll.cursor_info(?)), $late), 2, 'a new cursor lists those that began before the end');

# whoever has not seen what was trimmed has expired; it is read as from $late on
$cursor = $late if !eval { $db->do(q(SELECT poll.poll('{early}', ?)), undef, $cursor); 1 };
is(fetch_value($db, q(SELECT poll.has_changes('{early}', ?)), $cursor), 0, 'nothing new');
$db->do('INSERT INTO early VALUES (3)');
$early->commit;
is(join(' ', @{ $db->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changes('early', ?)), undef, $cursor) }), '1 3',
	'what was open then, and what is new');
$db->do(q(COMMIT PREPARED 'early'));
is(join(' ', @{ $db->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changes('early', ?)), undef, $cursor) }), '1 4 3',
	'and what was prepared');
check_mirrors($db, @reports);
ok(eval { $db->do(q(SELECT poll.poll('{early}', NULL, 100, NULL, ?)), undef, $since); 1 } || $db->state eq 'PT410',
	'a time from before the end is as good as what is left');
foreach (1 .. 6)
{
	$cursor = fetch_value($db, q(SELECT poll.poll('{early}', ?)->>'cursor'), $cursor);
	$db->do(q(SELECT poll.trim('0')));
}
is(fetch_value($db, q(SELECT poll.has_changes('{early}', ?)), $cursor), 0, 'and it goes on when the log is trimmed');

# cursors that nobody was given
my $next = Math::BigInt->new(fetch_value($db, 'SELECT pg_current_xact_id()::text'));
my $bad = '';
foreach my $x ((map { Math::BigInt->new(2)->bpow($_), Math::BigInt->new(2)->bpow($_)->bdec } 63, 64), map { $next + $_ } -1, 0, 1, 2)
{
	next if $x > Math::BigInt->new('18446744073709551615');
	foreach my $body ([ 1, $x, 0 ], [ 1, $x, 1, 1 ], [ 1, $x, 2, 1, $x - 2 ], [ 0x31, $x, 0, 0, 0, '9223372036854775807' ],
		[ 0x31, $x, 0, '18446744073709551615', 0, 0 ], [ 0x31, $x, 1, 1, 0, 1, '9223372036854775807' ],
		[ 0x51, $x, 0, 0, 0, 0 ], [ 0x51, $x, 1, $x - 1, 0, 0, 0 ])
	{
		my ($flags, @numbers) = @$body;
		my $hostile = make_cursor($cursor, $flags, map { Math::BigInt->new($_) } @numbers);

		foreach my $sql (q(SELECT poll.poll('{early}', ?)), q(SELECT poll.has_changes('{early}', ?)), q(SELECT count(*) FROM poll.changed_keys('early', ?::text)))
		{
			next if eval { $db->do($sql, undef, $hostile); 1 };
			$bad .= "$sql, $x: $@" if $db->state !~ /^(PT400|PT410)$/;
		}
	}
}
is($bad, '', 'cursors near 2^63 and 2^64 are answered, or refused');
is(fetch_value($db, q(SELECT poll.has_changes('{early}', ?)), $cursor), 0, 'and the good one still is good');

done_testing();
