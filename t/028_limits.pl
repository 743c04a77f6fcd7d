# A full disk, statements that are ended, a lock table that is full, transaction ids
# far ahead and across the end of 32 bits: errors are clear, nothing is half done,
# and everything goes on.
#
# POLL_TEST_SEED	to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

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
	unlink $flag;
	is(state_of($db, 'UPDATE items SET v = v + 1'), '', 'when there is space again, writers go on');
	is_right('and so do polls');
}

# rotation: the empty file of a segment, which is to get its first page
sub trim { return state_of($db, q(SELECT poll.trim('0'))); }

fill_disk('poll.segment', 'poll.segment_pkey');
is(trim(), '', 'steps need no space that is not there') foreach 1 .. 2;
unlink $flag;
$db->do('UPDATE items SET v = v + 1');
is(trim(), '', 'and go on') foreach 1 .. 4;
$mirror->restart;
is_right('polls, too');

# ---- statements that are ended ----

sub timed_out
{
	my ($sql, $name, $ms) = @_;

	$db->do('SET statement_timeout = ' . ($ms // 20));
	my $state = state_of($db, $sql);
	$db->do('SET statement_timeout = 0');
	$db->do('ROLLBACK') if !$db->{AutoCommit} || $db->ping > 1;
	is($state, '57014', $name);
	return;
}

$db->do('INSERT INTO items SELECT 1000 + g, 0 FROM generate_series(1, 4000) AS g');
my $cursor = fetch_value($db, q(SELECT poll.current_cursor('{items}')));
$db->do('DO $$ BEGIN FOR i IN 1 .. 150 LOOP UPDATE items SET v = v + 1; COMMIT; END LOOP; END $$');
$db->do('SET poll_ext.max_scan = 2147483647');
timed_out("SELECT poll.poll('{items}', '$cursor', 10000)", 'a poll that reads 600,000 entries', 2);
timed_out("SELECT count(*) FROM poll.changes('items', '$cursor', 10000)", 'or as rows', 2);
$db->do('RESET poll_ext.max_scan');
is_right('the next one is right');

# ticks: a day's and more
foreach (1 .. 10)
{
	last if fetch_value($db, q(SELECT EXISTS (SELECT FROM poll.segment WHERE state = 'closed')));
	$db->do('UPDATE items SET v = v + 1 WHERE id < 10');
	trim();
}
$db->do(q(INSERT INTO poll.tick SELECT '2000-01-01'::timestamptz + g * interval '1 s', '1', '{}', 1 FROM generate_series(1, 300000) AS g));
timed_out(q(SELECT poll.trim('0')), 'a step that deletes 300,000 ticks', 30);
is(fetch_value($db, q(SELECT count(*) FROM poll.tick WHERE x = '1')), 300000, 'has deleted none');
trim() foreach 1 .. 3;
is(fetch_value($db, q(SELECT count(*) FROM poll.tick WHERE x = '1')), 0, 'again, it has');

# ---- a lock table that is full ----

my $greedy = connect_to($node);
my $locks = 0;
while ($locks < 100_000)
{
	last if !eval { $greedy->do('SELECT pg_advisory_lock(?)', undef, $locks); 1 };
	$locks++;
}
is($greedy->state, '53200', "no room for another lock after $locks");
$mirror->restart;
my $polled = eval { $mirror->drain($db, 1000); 1 };
ok($polled || $db->state eq '53200', 'a poll works, or says what is missing');
my $state = state_of($db, 'UPDATE items SET v = v + 1');
ok($state eq '' || $state eq '53200', 'so does a writer');
$state = trim();
ok($state eq '' || $state eq '53200', 'and trimming');
$greedy->disconnect;
ok(wait_for($db, q(SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory')), 'the locks are given back');
is(state_of($db, 'UPDATE items SET v = v + 1'), '', 'then writers go on');
is(trim(), '', 'and so does trimming') foreach 1 .. 4;
$mirror->restart;
is_right('and polls');
$db->disconnect;
$node->stop;

# ---- transaction ids far ahead, and across the end of 32 bits ----

my $epoch = 0x40000000;
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
command_ok([ 'pg_resetwal', '-e', $epoch, '-x', 0xFFFFFFFF - 400, '-D', $far->data_dir ], 'the next transaction is far ahead');
$far->start;
$far->safe_psql('postgres', 'CREATE EXTENSION poll_ext');
$db = connect_to($far);
cmp_ok(fetch_value($db, 'SELECT pg_current_xact_id()::text::numeric'), '<', ($epoch + 1) * 2**32, 'before the end of 32 bits');
$db->do('CREATE TABLE early (id int PRIMARY KEY)');
$db->do(q(SELECT poll.track('early')));
my $early = connect_to($far);
$early->begin_work;
$early->do('INSERT INTO early VALUES (1)');
$db->do('INSERT INTO early VALUES (2)');
$cursor = fetch_value($db, q(SELECT poll.current_cursor('{early}')));
create_items($db);
my @writers = start_writers($far, 4, $seed, 8);
$mirror = PollMirror->new('items');
my $until = time + 8;
while (time < $until)
{
	random_poll($mirror, $db);
	select undef, undef, undef, 0.002;
}
finish_children(@writers);
is_right('polls over the end of 32 bits');
is(join("\n", @{ $mirror->{faults} }), '', 'without a fault');
cmp_ok(fetch_value($db, 'SELECT pg_current_xact_id()::text::numeric'), '>', ($epoch + 1) * 2**32, 'and after it');
is(fetch_value($db, q(SELECT poll.has_changes('{early}', ?)), $cursor), 0, 'a cursor from before: nothing new');
$db->do('INSERT INTO early VALUES (3)');
$early->commit;
is(join(' ', @{ $db->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changes('early', ?)), undef, $cursor) }), '1 3',
	'what was open then, and what is new');
$db->do(q(SELECT poll.trim('0'))) foreach 1 .. 2;
$cursor = fetch_value($db, q(SELECT poll.poll('{early}', ?)->>'cursor'), $cursor);
$db->do(q(SELECT poll.trim('0'))) foreach 1 .. 2;
is(fetch_value($db, q(SELECT poll.has_changes('{early}', ?)), $cursor), 0, 'and it goes on when the log is trimmed');

done_testing();
