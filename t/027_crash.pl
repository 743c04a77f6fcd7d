# The server is killed, again and again, while everybody writes and polls and old
# changes are trimmed: no poll has returned what a crash takes back, nothing is lost
# or comes twice, and no cursor expires that has seen what was trimmed.
#
# POLL_TEST_ROUNDS	crashes, 20 by default
# POLL_TEST_SEED	to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Path 'make_path';
use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = random_seed();
srand($seed);

my ($node, $db);

# Is the process gone?  Perhaps nobody has asked for its exit status yet.
sub is_gone
{
	my ($pid) = @_;

	open(my $stat, '<', "/proc/$pid/stat") or return 1;
	return (readline($stat) // ') Z') =~ /\) [ZX]/;
}

# As if the machine had lost its power: nobody writes anything any more.
sub kill_server
{
	my $pid = $node->{_pid};

	kill 'STOP', $pid;
	my @children = split ' ', `ps -o pid= --ppid $pid`;
	kill 'KILL', @children;
	$node->kill9;
	foreach (1 .. 200)
	{
		last if !grep { !is_gone($_) } $pid, @children;
		sleep 0.05;
	}
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	$db->disconnect;
	return;
}

sub crash
{
	kill_server();
	$node->start;
	$db = connect_to($node);
	return;
}

# Until the server has ended the session.
sub wait_for_end
{
	my ($session) = @_;

	foreach (1 .. 400)
	{
		last if !$session->ping;
		sleep 0.05;
	}
	$session->disconnect;
	return;
}

# Polls all there is; the log may be trimmed meanwhile.
sub try_drain
{
	my ($mirror) = @_;

	foreach (1 .. 20)
	{
		return if unless_expired($mirror, $db, sub { $mirror->drain($db, 1000) });
	}
	die 'expires all the time';
}

# Has the mirror, when it has polled all, what the table has?
sub is_right
{
	my ($mirror, $name) = @_;

	$mirror->drain($db, 1000);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', $name);
	return;
}

# Writes something, and waits until the worker that this starts has come and gone:
# it would make steps, and flush the WAL.
sub write_and_wait
{
	# a row that is there, whatever the writers have deleted
	$db->do('INSERT INTO items VALUES (900, 0) ON CONFLICT (id) DO UPDATE SET v = items.v + 1');
	ok(wait_for($db, <<'SQL', fetch_value($db, 'SELECT clock_timestamp()')), 'the worker is gone');
SELECT max(at) > ? AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'poll_ext worker') FROM poll.tick
SQL
	return;
}

# Transaction ids that a crash makes free again: those of transactions that left
# nothing on disk.
sub burn_xids
{
	foreach (1 .. 20)
	{
		$db->do('BEGIN');
		$db->do('SELECT pg_current_xact_id()');
		$db->do('ROLLBACK');
	}
	return;
}

# ---- under load ----

# Steps of the log, until the server is gone.
sub crash_rotator
{
	my ($round) = @_;
	my $session = connect_to($node);

	$session->do('SET synchronous_commit = ' . ($round % 2 ? 'off' : 'on'));
	while (eval { $session->do(q(SELECT poll.trim('200 ms'))); 1 })
	{
		sleep 0.05;
	}
	return $session->ping ? die $@ : 1;
}

# WAL of an asynchronous commit stays in memory unless somebody flushes it.
$node = new_node('crash', conf => <<'CONF');
wal_writer_delay = '10s'
poll_ext.retention = '1s'
restart_after_crash = off
CONF
$db = connect_to($node);
create_items($db);
my @mirrors = map { PollMirror->new('items') } 1 .. 4;
my $rounds = $ENV{POLL_TEST_ROUNDS} // 20;
my ($wrong, $polls, $prepared) = ('', 0, 0);

foreach my $round (1 .. $rounds)
{
	my @children = start_writers($node, 4, $seed + 10 * $round, 60, may_crash => 1);
	push @children, start_child('rotator', sub { crash_rotator($round) });
	wait_for($db, q(SELECT count(*) >= 6 FROM pg_stat_activity WHERE backend_type = 'client backend'));
	my $end = time + 0.3 + rand(0.6);
	$db->do('BEGIN');
	$db->do('INSERT INTO items VALUES (?, 0)', undef, 1000 + $round);
	$db->do("PREPARE TRANSACTION 'round $round'");
	while (time < $end)
	{
		# the last one polls too rarely
		my $mirror = $mirrors[ rand() < 0.01 ? -1 : rand $#mirrors ];

		$polls += unless_expired($mirror, $db, sub { random_poll($mirror, $db) });
		sleep 0.001;
	}
	kill_server();
	finish_children(@children);
	$node->start;
	$db = connect_to($node);
	foreach my $gid (@{ $db->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts') })
	{
		my $mirror = $mirrors[ rand @mirrors ];

		unless_expired($mirror, $db, sub { random_poll($mirror, $db) }) if rand() < 0.5;
		$db->do((rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
		$prepared++;
	}
	# as it was handed out, before anything else happens
	my $table = table_rows($db, 'items');
	foreach my $mirror (@mirrors)
	{
		try_drain($mirror);
		my $differences = differences($mirror->{rows}, $table);
		$wrong .= "round $round: $differences\n" if $differences ne '';
	}
}
is($wrong, '', "after each of $rounds crashes, all mirrors are right");
check_mirrors($db, map { $_->report } @mirrors);
my $expired = 0;
$expired += @{ $_->{expired} } foreach @mirrors;
note "$polls polls, $prepared prepared transactions were left, $expired have expired";
cmp_ok($prepared, '>=', $rounds, 'what was prepared survives');
cmp_ok($expired, '>', 0, 'who polls too rarely has expired') if $rounds >= 20;
cmp_ok(fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE x > '1')), '>', 0, 'the log was trimmed');

# ---- what is told before it is on disk ----

# the transaction of a step, under synchronous_commit = off
$node->append_conf('postgresql.conf', "poll_ext.retention = '1d'\nrestart_after_crash = on");
$node->reload;
my $mirror = PollMirror->new('items');
$mirror->drain($db, 1000);
foreach (1 .. 3)
{
	# a step that removes a file would be on disk at once
	write_and_wait();
	$mirror->drain($db, 1000);
	foreach (1 .. 10)
	{
		last if fetch_value($db, q(SELECT count(*) FROM poll.segment WHERE state = 'empty')) == 2;
		$db->do(q(SELECT poll.trim('0')));
		$mirror->drain($db, 1000);
	}
	write_and_wait();
	$mirror->drain($db, 1000);
	$db->do(q(SELECT poll.trim('0')));
	burn_xids();
	$db->do('SET synchronous_commit = off');
	is(fetch_value($db, q(SELECT string_agg(action, ' ') FROM poll.trim('1 hour'))), 'closed', 'a segment is closed');
	$mirror->drain($db, 1000);
	crash();
	# under the ids that are free again, and some more
	$db->do('UPDATE items SET v = v + 1 WHERE id = ?', undef, $_) foreach 1 .. 60;
	is_right($mirror, 'no change is lost because a step was');
}

# and that of poll.track()
$db->do('CREATE TABLE later (id int PRIMARY KEY)');
write_and_wait();
$db->do('SET synchronous_commit = off');
$db->do(q(SELECT poll.track('later')));
my $later = PollMirror->new('later');
$later->drain($db, 10);
crash();
ok(eval { $later->drain($db, 10); 1 }, 'a feed that was polled stays tracked') or diag $@;

# ---- a backend that dies while it flushes takes all others down ----

foreach my $i (1 .. 2)
{
	my $segment = 'poll.change_' . fetch_value($db, q(SELECT id FROM poll.segment WHERE state = 'current'));
	my $before = fetch_value($db, 'SELECT pg_relation_size(?::regclass)', $segment);
	my $child = start_child("victim $i", sub {
		my $session = connect_to($node);
		$session->do(q(SET application_name = 'victim'));
		$session->begin_work;
		foreach my $n (1 .. 1000)
		{
			last if !eval { $session->do('INSERT INTO items SELECT ? + g FROM generate_series(1, 10000) AS g', undef, 10000 * $n) };
		}
		return 1;
	});
	ok(wait_for($db, 'SELECT pg_relation_size(?::regclass) > ?', $segment, $before + 200_000), 'somebody flushes');
	kill 'KILL', fetch_value($db, q(SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'));
	finish_children($child);
	# before the server has noticed, it would take a connection and end it
	wait_for_end($db);
	foreach (1 .. 600)
	{
		last if $db = eval { connect_to($node) };
		sleep 0.1;
	}
	$db->do('UPDATE items SET v = v + 1 WHERE id < 20');
	is_right($mirror, 'what it wrote is never seen');
	$db->do(q(SELECT poll.trim('0'))) foreach 1 .. 2;
	$mirror->drain($db, 1000);
}
$db->disconnect;
$node->stop;

# ---- in the middle of a rotation ----

$node = new_node('middle', conf => "wal_writer_delay = '10s'\n", preload => 0);
$db = connect_to($node);
create_items($db);
$mirror = PollMirror->new('items');
$mirror->drain($db, 1000);

sub state_of { return fetch_value($db, 'SELECT state FROM poll.segment WHERE id = ?', @_); }

sub trim
{
	my ($session) = @_;

	return join ', ', map { $_ // '-' }
	  @{ ($session // $db)->selectcol_arrayref(q(SELECT action FROM poll.trim('0') ORDER BY segment)) };
}

$db->do('UPDATE items SET v = 1 WHERE id < 50');
foreach my $want ('filled', 'closed', 'trimmed', 'empty')
{
	trim();
	is(state_of(0), $want, "a segment is $want");
	$mirror->drain($db, 1000);

	# nobody sees a step that has not been committed
	my $other = connect_to($node);
	$other->begin_work;
	trim($other);
	$mirror->drain($db, 1000);
	crash();
	eval { $other->disconnect };
	is(state_of(0), $want, 'after a crash in the middle of the next step, as before');
	$db->do('UPDATE items SET v = v + 1 WHERE id < 20');
	is_right($mirror, 'polls go on');
}

# what is prepared keeps its segment across a crash, and what follows does not
foreach (1 .. 4)
{
	trim();
	$mirror->drain($db, 1000);
}
my ($id) = map { $_->[0] } @{ $db->selectall_arrayref(q(SELECT id FROM poll.segment WHERE state = 'current')) };
$db->do('BEGIN');
$db->do('INSERT INTO items SELECT 1000 + g FROM generate_series(1, 500) AS g');
$db->do(q(PREPARE TRANSACTION 'kept'));
trim();
crash();
is((split ', ', trim())[$id], 'waiting for writers', 'what is prepared keeps its segment across a crash');
is_deeply(fetch_value($db, 'SELECT waits_for FROM poll.stat_log WHERE segment = ?', $id), ['prepared kept'], 'which is shown');
foreach (1 .. 3)
{
	$db->do('UPDATE items SET v = v + 1 WHERE id < 20');
	is_right($mirror, 'polls go on');
	trim();
	crash();
}
my $delivered = $mirror->{delivered};
$db->do(q(COMMIT PREPARED 'kept'));
is_right($mirror, 'it comes when it is committed');
is($mirror->{delivered} - $delivered, 500, 'once');
is((split ', ', trim())[$id], 'closed', 'and keeps nothing any more');
check_mirrors($db, $mirror->report);

# ---- the extension dropped and created again, while others write and poll ----

# Errors that a session may get while the extension is not there, or not the same.
my $gone = qr/^(PT404|PT410|3F000|42P01|42883|42501|40P01|55000)$/;

sub poller
{
	my ($stop_file) = @_;
	my $session = connect_to($node);
	my $copy = PollMirror->new('items');
	my %count;

	while (!-e $stop_file)
	{
		if (eval { random_poll($copy, $session); 1 })
		{
			$count{polled}++;
		}
		else
		{
			# the server's own: a function that is dropped between two looks at it
			die $@ if $session->state !~ $gone && $@ !~ /cache lookup failed for function/;
			$count{ $session->state }++;
			$copy->restart;
		}
		sleep 0.01;
	}
	$copy->drain($session, 1000);
	note join ', ', map { "$count{$_} $_" } sort keys %count;
	return $copy->report;
}

# While others write and poll; returns the reports of those who polled.
sub meanwhile
{
	my ($offset, $seconds, $do) = @_;
	my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';
	my @writers = start_writers($node, 3, $seed + $offset, $seconds);
	my @pollers = map { start_child("poller $_", sub { poller($stop_file) }) } 1 .. 2;

	sleep 0.5;
	$do->();
	my $end = time + $seconds / 2;
	while (time < $end)
	{
		random_poll($mirror, $db);
		sleep 0.01;
	}
	finish_children(@writers);
	append_to_file($stop_file, '');
	$mirror->drain($db, 1000);
	return (finish_children(@pollers), $mirror->report);
}

# DDL and writers may deadlock, as always.
sub do_again
{
	my ($command) = @_;

	foreach (1 .. 20)
	{
		return if eval { $db->do($command); 1 };
		die $@ if $db->state ne '40P01';
	}
	die "deadlocks all the time: $command";
}

my $log_start = -s $node->logfile;
check_mirrors($db, meanwhile(1000, 4, sub {
	do_again($_) foreach 'DROP EXTENSION poll_ext CASCADE', 'CREATE EXTENSION poll_ext', q(SELECT poll.track('items'));
	ok(!eval { $db->do(q(SELECT poll.poll('{items}', ?)), undef, $mirror->{cursor}); 1 } && $db->state eq 'PT410',
		'cursors of an extension that was dropped have expired');
	$mirror->restart;
}));
my @internal = grep { !/cache lookup failed for function/ } slurp_file($node->logfile, $log_start) =~
  /((?:ERROR:  (?:cache lookup|could not open relation)|PANIC:|TRAP:).*)/g;
is("@internal", '', 'nobody stumbles over what is gone');
$db->disconnect;
$node->stop;

# ---- an update of the extension, while others write and poll ----

# A copy of the installation with an update script, which the server finds beside
# itself.  Returns its folder, or nothing if that cannot be.
sub copy_installation
{
	my $copy = PostgreSQL::Test::Utils::tempdir() . '/pg';
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my ($bin, $share, $lib) = map { my $path = `$pg_config $_`; chomp $path; $path } '--bindir', '--sharedir', '--pkglibdir';
	my $extension = "$copy$share/extension";

	return if $bin !~ m{^(.*)/bin$};
	make_path("$copy$bin", $extension, "$copy$lib");
	# the server follows a link to itself
	system("cp '$bin'/* '$copy$bin/' && ln -s '$lib'/* '$copy$lib/'"
		  . " && find '$share' -mindepth 1 -maxdepth 1 ! -name extension -exec ln -s '{}' '$copy$share/' ';'"
		  . " && ln -s '$share'/extension/* '$extension/'") == 0 or return;
	append_to_file("$extension/poll_ext--1.0--1.1test.sql", <<'SQL');
CREATE FUNCTION poll.test_version() RETURNS text LANGUAGE sql AS $$ SELECT '1.1test' $$;
CREATE OR REPLACE FUNCTION poll.capture() RETURNS trigger
AS 'MODULE_PATHNAME', 'poll_ext_capture' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON TABLE poll.segment IS 'updated';
ALTER TABLE poll.epoch ADD note text;
SQL
	return "$copy$1";
}

SKIP:
{
	my $installation = copy_installation();

	skip 'no copy of the installation', 1 if !$installation;
	$node = PostgreSQL::Test::Cluster->new('update', install_path => $installation);
	$node->init;
	$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'poll_ext'
max_prepared_transactions = 20
deadlock_timeout = '50ms'
CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION poll_ext');
	$db = connect_to($node);
	my $versions = fetch_value($db, q(SELECT count(*) FROM pg_available_extension_versions WHERE name = 'poll_ext'));
	skip 'the server looks elsewhere for extensions', 1 if $versions < 2;
	create_items($db);
	$mirror = PollMirror->new('items');
	$mirror->drain($db, 1000);
	my @reports = meanwhile(2000, 3, sub { do_again(q(ALTER EXTENSION poll_ext UPDATE TO '1.1test')) });
	check_mirrors($db, @reports);
	is(fetch_value($db, 'SELECT poll.test_version()'), '1.1test', 'the extension was updated');
	is(join(' ', map { $_->{syncs} } @reports), '1 1 1', 'and nobody started again');
	$db->disconnect;
	$node->stop;
}

done_testing();
