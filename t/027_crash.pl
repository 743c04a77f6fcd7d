# The server is killed, again and again, while everybody writes and polls and old
# changes are trimmed: no poll has returned what a crash takes back, and nothing is
# lost or comes twice.
#
# POLL_TEST_ROUNDS	crashes, 20 by default
# POLL_TEST_SEED	to try the same random numbers again

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
srand($seed);

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
	my ($node) = @_;
	my $pid = $node->{_pid};
	my @children = split ' ', `ps -o pid= --ppid $pid`;

	kill 'STOP', $pid;
	kill 'KILL', @children;
	$node->kill9;
	foreach (1 .. 200)
	{
		last if !grep { !is_gone($_) } $pid, @children;
		sleep 0.05;
	}
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

sub start_again
{
	my ($node) = @_;

	$node->start;
	return connect_to($node);
}

# Polls that may expire, since retention is short.
sub try_drain
{
	my ($mirror, $session) = @_;

	foreach (1 .. 20)
	{
		return if eval { $mirror->drain($session, 1000); 1 };
		die $@ if $session->state ne 'PT410';
		$mirror->expire;
	}
	die 'expires all the time';
}

# ---- under load ----

# WAL of an asynchronous commit stays in memory unless somebody flushes it.
my $node = new_node('crash', conf => <<'CONF');
wal_writer_delay = '10s'
poll_ext.retention = '1s'
restart_after_crash = off
CONF
my $db = connect_to($node);
create_items($db);
my @mirrors = map { PollMirror->new('items') } 1 .. 4;
my $rounds = $ENV{POLL_TEST_ROUNDS} // 20;
my ($wrong, $polls, $prepared) = ('', 0, 0);

foreach my $round (1 .. $rounds)
{
	my @writers = start_writers($node, 4, $seed + 10 * $round, 60, may_crash => 1);
	my $end = time + 0.5 + rand(1);

	while (time < $end)
	{
		my $mirror = $mirrors[ rand @mirrors ];

		next if eval { random_poll($mirror, $db); ++$polls };
		die $@ if $db->state ne 'PT410';
		$mirror->expire;
	}
	kill_server($node);
	$db->disconnect;
	finish_children(@writers);
	$db = start_again($node);
	foreach my $gid (@{ $db->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts') })
	{
		$db->do((rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
		$prepared++;
	}
	# as it was handed out, before anything else happens
	my $table = table_rows($db, 'items');
	foreach my $mirror (@mirrors)
	{
		try_drain($mirror, $db);
		my $differences = differences($mirror->{rows}, $table);
		$wrong .= "round $round: $differences\n" if $differences ne '';
	}
}
is($wrong, '', "after each of $rounds crashes, all mirrors are right");
check_mirrors($db, map { $_->report } @mirrors);
my $expired = 0;
$expired += @{ $_->{expired} } foreach @mirrors;
note "$polls polls, $prepared prepared transactions were left, $expired have expired";
cmp_ok($prepared, '>', 0, 'some crashes came between PREPARE and COMMIT');
$db->disconnect;
$node->stop;

# ---- in the middle of a rotation, and of a flush ----

$node = new_node('middle', conf => "wal_writer_delay = '10s'\n", preload => 0);
$db = connect_to($node);
create_items($db);
my $mirror = PollMirror->new('items');
$mirror->drain($db, 1000);

sub crash
{
	kill_server($node);
	$db->disconnect;
	$db = start_again($node);
	return;
}

sub state { return fetch_value($db, 'SELECT state FROM poll.segment WHERE id = 0'); }

$db->do('UPDATE items SET v = 1 WHERE id < 50');
foreach my $want ('filled', 'closed', 'trimmed', 'empty')
{
	$db->do(q(SELECT poll.trim('0')));
	is(state(), $want, "a segment is $want");
	$mirror->drain($db, 1000);

	# nobody sees a step that has not been committed
	my $other = connect_to($node);
	$other->begin_work;
	$other->do(q(SELECT poll.trim('0')));
	crash();
	eval { $other->disconnect };
	is(state(), $want, 'after a crash in the middle of the next step, as before');
	$db->do('UPDATE items SET v = v + 1 WHERE id < 20');
	$mirror->drain($db, 1000);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'polls go on');
}

# a backend that dies while it flushes takes all others down
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->reload;
foreach my $i (1 .. 2)
{
	my $victim = connect_to($node);
	my $pid = $victim->{pg_pid};
	my $child = start_child("victim $i", sub {
		$victim->{InactiveDestroy} = 1;
		my $session = connect_to($node);
		$session->do(q(SET application_name = 'victim'));
		eval { $session->do('INSERT INTO items SELECT 10000 + g FROM generate_series(1, 3000000) AS g') };
		return 1;
	});
	ok(wait_for($db, 'SELECT pg_relation_size(?::regclass) > 100000', 'poll.change_' . fetch_value($db, q(SELECT id FROM poll.segment WHERE state = 'current'))),
		'somebody flushes');
	kill 'KILL', fetch_value($db, q(SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'));
	finish_children($child);
	$db->disconnect;
	foreach (1 .. 600)
	{
		last if $db = eval { connect_to($node) };
		sleep 0.1;
	}
	$db->do('UPDATE items SET v = v + 1 WHERE id < 20');
	$mirror->drain($db, 1000);
	is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'what it wrote is never seen');
	$db->do(q(SELECT poll.trim('0'))) foreach 1 .. 2;
	$mirror->drain($db, 1000);
}

# ---- the extension dropped and created again, while others write ----

my @writers = start_writers($node, 3, $seed + 1000, 6);
my $cursor = $mirror->{cursor};
sleep 1;
foreach my $command ('DROP EXTENSION poll_ext CASCADE', 'CREATE EXTENSION poll_ext', q(SELECT poll.track('items')))
{
	# DDL and writers may deadlock, as always
	foreach (1 .. 20)
	{
		last if eval { $db->do($command); 1 };
		die $@ if $db->state ne '40P01';
	}
}
ok(!eval { $db->do(q(SELECT poll.poll('{items}', ?)), undef, $cursor); 1 } && $db->state eq 'PT410',
	'cursors of an extension that was dropped have expired');
$mirror->restart;
my $end = time + 3;
while (time < $end)
{
	random_poll($mirror, $db);
	sleep 0.01;
}
finish_children(@writers);
$mirror->drain($db, 1000);
check_mirrors($db, $mirror->report);

done_testing();
