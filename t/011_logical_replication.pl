# What a logical replication subscription applies, and copies at first, is
# delivered by feeds tracked with always; and a publication that has everything
# does not harm the log of the subscriber.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

$PostgreSQL::Test::Utils::timeout_default = 30;

my $CONF = <<'CONF';
wal_level = logical
wal_retrieve_retry_interval = '50ms'
CONF

# Transactions of more than 64 kB are streamed before they commit.
my $publisher = new_node('publisher', streaming => 1, conf => $CONF . "logical_decoding_work_mem = '64kB'\n");

# The WAL of an asynchronous commit stays in memory, unless somebody flushes it.
my $subscriber = new_node('subscriber', conf => $CONF . "wal_writer_delay = '10s'\n");
my $there = connect_to($publisher);
my $here = connect_to($subscriber);

my @subscriptions = ('everyday');
my @TABLES = qw(items parted spread silent);

# parted is no partitioned table at the publisher, spread is one at both.
my $TABLES = <<'SQL';
CREATE TABLE items (id bigint PRIMARY KEY, v int, body text);
CREATE TABLE silent (id bigint PRIMARY KEY, v int, body text);
CREATE TABLE spread (id bigint PRIMARY KEY, v int, body text) PARTITION BY HASH (id);
CREATE TABLE spread_0 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE spread_1 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SQL
my $PARTED = <<'SQL';
CREATE TABLE parted (id bigint PRIMARY KEY, v int, body text) PARTITION BY RANGE (id);
CREATE TABLE parted_low (body text, v int, id bigint NOT NULL);
ALTER TABLE parted ATTACH PARTITION parted_low FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE parted_high_1 PARTITION OF parted_high FOR VALUES FROM (100) TO (1000);
SQL

# Waits until the subscriber has applied everything.
sub catch_up
{
	my $lsn = fetch_value($there, 'SELECT pg_current_wal_lsn()');
	my $deadline = time + 60;

	while (fetch_value($there, <<'SQL', \@subscriptions, $lsn) < @subscriptions)
SELECT count(*) FROM pg_stat_replication WHERE application_name = ANY (?) AND replay_lsn >= ?::pg_lsn
SQL
	{
		die 'the subscriber does not catch up' if time > $deadline;
		sleep 0.01;
	}
	return;
}

# To the publication of the same name.
sub subscription
{
	my ($name, $database) = @_;
	my $connection = $publisher->connstr($database) =~ s/'/''/gr;

	return "CREATE SUBSCRIPTION $name CONNECTION '$connection' PUBLICATION $name";
}

sub cursor_of { return fetch_value($here, 'SELECT poll.current_cursor(ARRAY[?])', $_[0]); }

# What a statement at the publisher brings to those who poll a feed here: ops
# and keys in their order, or the SQLSTATE.
sub brings
{
	my ($feed, @statements) = @_;
	my $cursor = cursor_of($feed);
	my $rows;

	$there->do($_) foreach 'BEGIN', @statements, 'COMMIT';
	catch_up();
	$rows = eval {
		$here->selectall_arrayref(q{SELECT op, key->>'id' FROM poll.changes(?, ?, 10000)}, undef, $feed, $cursor);
	};
	return defined $rows ? join ', ', map { join ' ', grep { defined } @$_ } @$rows : $here->state;
}

# A mirror is the table here, and the table at the publisher.
sub check_mirror
{
	my ($mirror, $how) = @_;
	my $table = table_rows($here, $mirror->{feeds}[0]);

	$mirror->drain($here, 1000);
	is(differences($mirror->{rows}, $table), '', "$how: the mirror equals the table");
	is(differences($table, table_rows($there, $mirror->{feeds}[0])), '', "$how: which equals that of the publisher");
	is(join("\n", @{ $mirror->{faults} }), '', "$how: and nothing came twice");
	return;
}

# ---- the initial copy ----

$there->do("$TABLES CREATE TABLE parted (id bigint PRIMARY KEY, v int, body text)");
$there->do("INSERT INTO $_ SELECT g, 0, 'first' FROM generate_series(1, 200) AS g") foreach @TABLES;
# all tables of a schema; FOR ALL TABLES is another story, see below
$there->do('CREATE PUBLICATION everyday FOR TABLES IN SCHEMA public');
is_deeply($there->selectcol_arrayref(q{SELECT DISTINCT schemaname::text FROM pg_publication_tables}),
	['public'], 'the log is not among what is published');

$here->do($TABLES . $PARTED);
$here->do('SELECT poll.track(?, always => ?)', undef, $_, $_ ne 'silent' ? 1 : 0) foreach @TABLES;
my %mirror = map { $_ => PollMirror->new($_, cursor_of($_)) } @TABLES;
$here->do(subscription('everyday', 'postgres') . ' WITH (streaming = on, two_phase = on)');
$subscriber->wait_for_subscription_sync($publisher, 'everyday');
foreach my $table (qw(items parted spread))
{
	check_mirror($mirror{$table}, "copy of $table");
	is($mirror{$table}{delivered}, 200, "copy of $table: each row came once");
}

# ---- what is applied ----

foreach my $table (qw(items parted spread))
{
	is(brings($table, "INSERT INTO $table VALUES (301, 0), (302, 1)"),
		'upsert 301, upsert 302', "$table: INSERT");
	is(brings($table, "UPDATE $table SET v = id WHERE id IN (1, 2, 150)"),
		'upsert 1, upsert 2, upsert 150', "$table: UPDATE");
	is(brings($table, "UPDATE $table SET v = v WHERE id < 10"),
		'', "$table: UPDATE that changes nothing");
	is(brings($table, map { "DELETE FROM $table WHERE id = $_" } 3, 151),
		'delete 3, delete 151', "$table: DELETE");
	is(brings($table, "UPDATE $table SET id = 500 WHERE id = 4"),
		'delete 4, upsert 500', "$table: UPDATE of a key");
	check_mirror($mirror{$table}, $table);
}
foreach my $table (qw(items parted))
{
	is( brings($table, "INSERT INTO $table VALUES (303)", "TRUNCATE $table",
			"INSERT INTO $table VALUES (1, 1), (501, 1)"),
		'truncate, upsert 1, upsert 501', "$table: TRUNCATE");
	check_mirror($mirror{$table}, "$table after TRUNCATE");
}

# it is each partition that is published and emptied
is(brings('spread', 'TRUNCATE spread'),
	'PT410', 'TRUNCATE of a partitioned table that is published by its partitions');
$mirror{spread}->restart;
check_mirror($mirror{spread}, 'spread after TRUNCATE');

# ---- a large transaction, sent while it is under way, and a part of it rolled back ----

# each key once: of 5000 rows, 500 are gone and 500 have another key
my $cursor = cursor_of('items');
$there->do($_) foreach split /\n/, <<'SQL';
BEGIN
INSERT INTO items SELECT g, 0, repeat('x', 20) FROM generate_series(1001, 6000) AS g
SAVEPOINT s
UPDATE items SET v = 1
INSERT INTO items SELECT g FROM generate_series(6001, 9000) AS g
ROLLBACK TO s
DELETE FROM items WHERE id % 10 = 0
UPDATE items SET id = id + 10000 WHERE id > 1000 AND id % 10 = 1
INSERT INTO parted SELECT g FROM generate_series(2, 499) AS g
SQL
ok($publisher->poll_query_until('postgres', 'SELECT sum(stream_txns) > 0 FROM pg_stat_replication_slots'),
	'a large transaction is streamed');
ok(!fetch_value($here, q{SELECT poll.has_changes('{items}', ?)}, $cursor), 'it is not applied before it commits');
$there->do('COMMIT');
catch_up();
my $ops = $here->selectall_arrayref(<<'SQL', undef, $cursor);
SELECT op, count(*) FROM poll.changes('items', ?, 10000) GROUP BY op ORDER BY op
SQL
is_deeply($ops, [ [ 'delete', 1000 ], [ 'upsert', 4500 ] ], 'then each key comes once');
check_mirror($mirror{$_}, "$_ after a large transaction") foreach qw(items parted);

# ---- two-phase commit ----

# What the page brought.
sub keys_of { return join ' ', map { $_->{key}{id} } @{ $_[0]{changes}{items} }; }

ok($subscriber->poll_query_until('postgres', q{SELECT subtwophasestate = 'e' FROM pg_subscription}),
	'two-phase commit is on');
$there->do($_) foreach 'BEGIN', 'INSERT INTO items VALUES (20001)', q{PREPARE TRANSACTION 'late'};
catch_up();
is(fetch_value($here, 'SELECT count(*) FROM pg_prepared_xacts'), 1, 'a transaction is prepared here');
$there->do('INSERT INTO items VALUES (20002)');
catch_up();
is(keys_of($mirror{items}->poll($here, 100)), '20002', 'what commits meanwhile is delivered');
$there->do(q{COMMIT PREPARED 'late'});
catch_up();
is(keys_of($mirror{items}->poll($here, 100)), '20001', 'and the prepared one when it commits');

# ---- without always ----

is(differences(table_rows($here, 'silent'), table_rows($there, 'silent')),
	'', 'a table tracked without always is replicated');
is( brings('silent', 'UPDATE silent SET v = 2', 'DELETE FROM silent WHERE id > 10', 'TRUNCATE silent',
		'INSERT INTO silent VALUES (1)'),
	'', 'but nothing is delivered');
$here->do('INSERT INTO silent VALUES (2)');
is(scalar @{ $mirror{silent}->poll($here, 100)->{changes}{silent} }, 1, 'but for what is written here');

# ---- a crash ----

# The subscription commits asynchronously.  What was polled stays.
sub crash_subscriber
{
	my ($conf) = @_;

	$here->disconnect;
	$subscriber->append_conf('postgresql.conf', $conf);
	$subscriber->stop('immediate');
	$subscriber->start;
	$here = connect_to($subscriber);
	return;
}

$there->do('INSERT INTO items VALUES (20003)');
catch_up();
is(keys_of($mirror{items}->poll($here, 100)), '20003', 'polled before a crash');
$there->do('INSERT INTO items VALUES (20004)');
catch_up();
crash_subscriber('max_logical_replication_workers = 0');
is(fetch_value($here, 'SELECT count(*) FROM items WHERE id = 20003'), 1, 'it is there after it');
note 'not polled, and survived: ' . fetch_value($here, 'SELECT count(*) FROM items WHERE id = 20004');
crash_subscriber('max_logical_replication_workers = 4');
$there->do('INSERT INTO items VALUES (20005)');
catch_up();
is(keys_of($mirror{items}->poll($here, 100)), '20004 20005', 'the rest comes once');
check_mirror($mirror{$_}, "$_ after a crash") foreach qw(items parted spread);

# ---- a publication FOR ALL TABLES ----

# It has the tables of the extension.  What the publisher's say of its own
# transactions must not get into ours.
foreach my $node ($publisher, $subscriber)
{
	$node->safe_psql('postgres', 'CREATE DATABASE everything');
	$node->safe_psql('everything', "$TABLES CREATE TABLE ours (id int PRIMARY KEY)");
}
$_->disconnect foreach $there, $here;
$there = connect_to($publisher, 'everything');
$here = connect_to($subscriber, 'everything');
$there->do('CREATE EXTENSION poll_ext');
$there->do(q{SELECT poll.track('items'), poll.track('spread')});
$there->do(q{INSERT INTO items SELECT g, 0 FROM generate_series(1, 10) AS g});
$there->do('CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)');

ok(!eval { $here->do(subscription('everything', 'everything')); 1 },
	 'without the extension there is no subscription to everything');
like($here->errstr, qr/"poll" does not exist/, 'as its tables are missing');

$here->do('CREATE EXTENSION poll_ext');
$here->do(q{SELECT poll.track('ours'), poll.track('items', always => true), poll.track('spread', always => true)});
$here->do('INSERT INTO ours VALUES (1)');
$here->do(q{SELECT poll.set_rate_policy('default', 1, '1 s')});
$there->do(q{SELECT poll.set_rate_policy('before', 2, '1 s')});
my $state = <<'SQL';
SELECT (SELECT array_agg(f ORDER BY id) FROM poll.feed AS f)::text
	|| (SELECT array_agg(s ORDER BY feed) FROM poll.shape AS s)::text
	|| (SELECT array_agg(e) FROM poll.epoch AS e)::text
	|| (SELECT array_agg(p ORDER BY endpoint) FROM poll.rate_policy AS p)::text
SQL
my $before = fetch_value($here, $state);
my $mirror = PollMirror->new('items', cursor_of('items'));
$here->do(subscription('everything', 'everything'));
push @subscriptions, 'everything';
$subscriber->wait_for_subscription_sync($publisher, 'everything', 'everything');
check_mirror($mirror, 'everything: items');

# the log and the registry of the publisher change in every way
$there->do('UPDATE items SET v = 1 WHERE id = 1');
$there->do(q{SELECT poll.untrack('items'), poll.track('items', 'items.2')});
$there->do(q{SELECT poll.set_rate_policy('before', 3, '1 s'), poll.set_rate_policy('after', 4, '1 s')});
$there->do(q{SELECT poll.drop_rate_policy('before')});
foreach my $table (qw(items spread))
{
	$there->do("ALTER TABLE $table ADD extra int");
	$there->do("ALTER TABLE $table DROP extra");
}
$there->do('INSERT INTO spread VALUES (1), (2)');
catch_up();
is(fetch_value($here, $state), $before, 'everything: the registry, the epoch and the rate policies are ours');
is_deeply(
	$here->selectcol_arrayref('SELECT DISTINCT name FROM poll.change LEFT JOIN poll.feed ON id = channel ORDER BY name'),
	[ 'items', 'ours', 'spread' ], 'everything: the log has no other feeds');
is(fetch_value($here, 'SELECT count(*) FROM poll.change_0 WHERE xid <> xmin::text::xid8'),
	0, 'everything: nor other transactions');
check_mirror($mirror, 'everything: items');
is(brings('spread', 'TRUNCATE spread', 'INSERT INTO spread VALUES (3)'), 'truncate, upsert 3',
	'everything: TRUNCATE of a partitioned table that is published by its root');

# what a trigger does in the apply worker is our own
$here->do(<<'SQL');
CREATE FUNCTION track_ours() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM poll.track('public.ours', 'ours.' || NEW.id);
	RETURN NULL;
END $$;
CREATE TRIGGER track_ours AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION track_ours();
ALTER TABLE items ENABLE ALWAYS TRIGGER track_ours;
SQL
is(brings('items', 'INSERT INTO items VALUES (30)'), 'upsert 30', 'everything: a trigger tracks a table');
$cursor = cursor_of('ours.30');
$here->do('INSERT INTO ours VALUES (2)');
is(fetch_value($here, q{SELECT key FROM poll.changes('ours.30', ?)}, $cursor),
	'{"id":2}', 'everything: which is tracked then');

done_testing();
