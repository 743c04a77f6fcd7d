# Changes that another extension makes in its callback at the end of a
# transaction are captured, whether it is called before ours or after.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = PostgreSQL::Test::Utils::tempdir() . '/precommit';
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';

sub build_module
{
	chomp(my $include = `$pg_config --includedir-server`);
	system_or_bail($ENV{CC} // 'cc', '-shared', '-fPIC', '-O1', '-I', $include, '-o', "$module.so",
		"$FindBin::RealBin/precommit.c");
	return;
}

# The ids that came, in order; changes of one transaction, each once.
sub new_ids
{
	my ($mirror, $db) = @_;
	my $page = $mirror->poll($db, 100);

	return join ' ', sort { $a <=> $b } map { $_->{key}{id} } @{ $page->{changes}{items} };
}

# All cases, in a session whose callbacks are in the order under test.
sub check_order
{
	my ($node, $order) = @_;
	my $db = connect_to($node);
	my $mirror = PollMirror->new('items');
	my $at_commit = sub { $db->do('SELECT at_commit(?)', undef, $_[0]) };

	# both are loaded, in this order
	$db->do('SELECT at_commit(?)', undef, 'SELECT 1');
	$db->do('INSERT INTO items VALUES (0) ON CONFLICT DO NOTHING');
	$mirror->drain($db, 1000);

	$at_commit->('INSERT INTO items VALUES (1)');
	is(new_ids($mirror, $db), '1', "$order: nothing but a write at the end");

	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (2)');
	$at_commit->('INSERT INTO items SELECT g FROM generate_series(3, 5) AS g');
	$db->do('COMMIT');
	is(new_ids($mirror, $db), '2 3 4 5', "$order: and others before");

	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (6)');
	$db->do('SAVEPOINT s');
	$db->do('INSERT INTO items VALUES (7)');
	$db->do('ROLLBACK TO s');
	$at_commit->('DELETE FROM items WHERE id = 6; INSERT INTO items VALUES (8)');
	$db->do('COMMIT');
	is(new_ids($mirror, $db), '6 8', "$order: after a subtransaction rolled back");

	$at_commit->(<<'SQL');
DO $$ BEGIN
	INSERT INTO items VALUES (9);
	BEGIN
		INSERT INTO items VALUES (10);
		RAISE EXCEPTION 'away with it';
	EXCEPTION WHEN raise_exception THEN
		INSERT INTO items VALUES (11);
	END;
END $$
SQL
	is(new_ids($mirror, $db), '9 11', "$order: in subtransactions of its own");

	$at_commit->('INSERT INTO items SELECT g FROM generate_series(100, 3000) AS g');
	$mirror->drain($db, 1000);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', "$order: many");

	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (12)');
	$at_commit->('INSERT INTO items VALUES (13)');
	$db->do(q{PREPARE TRANSACTION 'precommit'});
	is(new_ids($mirror, $db), '', "$order: prepared");
	$db->do(q{COMMIT PREPARED 'precommit'});
	is(new_ids($mirror, $db), '12 13', "$order: and committed");

	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (14)');
	$at_commit->('INSERT INTO items VALUES (1)');
	ok(!eval { $db->do('COMMIT'); 1 }, "$order: an error at the end");
	$db->do('INSERT INTO items VALUES (15)');
	is(new_ids($mirror, $db), '15', "$order: leaves nothing behind");
	$db->disconnect;

	# a new session: if ours is not preloaded, this is what loads it
	$db = connect_to($node);
	$at_commit->('INSERT INTO items VALUES (20)');
	my $reader = connect_to($node);
	is(new_ids($mirror, $reader), '20', "$order: the first write of a session");
	$reader->disconnect;

	# an asynchronous commit with nothing but this
	$db->do('INSERT INTO items VALUES (21)');
	$mirror->drain($db, 1000);
	$db->do('CHECKPOINT');
	$db->do('SET synchronous_commit = off');
	$db->do('SELECT at_commit(?)', undef, 'INSERT INTO items VALUES (16)');
	is(new_ids($mirror, $db), '16', "$order: an asynchronous commit");
	$db->disconnect;
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM items WHERE id = 16'),
		1, "$order: what was polled survives a crash");

	$db = connect_to($node);
	$mirror->drain($db, 1000);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', "$order: the mirror is the table");
	is(join("\n", @{ $mirror->{faults} }), '', "$order: nothing came twice");
	return;
}

build_module();

my $node = new_node('precommit', conf => <<'CONF');
wal_writer_delay = '10s'
autovacuum = off
CONF
$node->safe_psql('postgres', <<SQL);
CREATE TABLE items (id bigint PRIMARY KEY);
SELECT poll.track('items');
CREATE FUNCTION at_commit(text) RETURNS void AS '$module' LANGUAGE c STRICT;
SQL

# loaded later, called first
check_order($node, 'called before ours');

$node->safe_psql('postgres', 'DELETE FROM items');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'$module, poll_ext'");
$node->restart;
check_order($node, 'called after ours');

# and without shared_preload_libraries: loaded by the first call of at_commit()
$node->safe_psql('postgres', 'DELETE FROM items');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->restart;
check_order($node, 'called after ours, not preloaded');

done_testing();
