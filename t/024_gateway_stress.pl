# Clients that poll over HTTP, with tags, of a gateway to the primary and one to
# a standby in turn, while others write: each has the table in the end, and got no
# change twice.  So no 304 was said too much.  Queries on the standby conflict with
# recovery, and it may be behind: that is 503, and nothing else.
#
# POLL_TEST_DURATION	seconds, 20 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollGateway;
use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

skip_without_gateway();

my $node = new_node('gateway_stress', streaming => 1);
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('gateway_stress_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', <<'CONF');
max_standby_streaming_delay = 0
hot_standby_feedback = off
CONF
$standby->start;

my $db = connect_to($node);
my $seed = random_seed();
create_items($db);
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
my @gateways = map { start_gateway($_, '-c', 3) } $node, $standby;
my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';

sub http_poller
{
	my ($number) = @_;
	my $client = http_mirror('items');

	srand($seed + 200 + $number);
	while (!-e $stop_file)
	{
		http_poll($client, $gateways[ rand 2 ], rand() < 0.7 ? 100 : log_uniform(1000));
		$client->{mirror}->restart if rand() < 0.002;
		sleep rand(0.02);
	}
	# the primary has everything, the standby will have; a poll says when there is no more
	foreach my $gateway (@gateways)
	{
		foreach (1 .. 1000)
		{
			last if !http_poll($client, $gateway, 100);
			sleep 0.01;
		}
	}
	return { %{ $client->{mirror}->report }, status => $client->{status} };
}

my $duration = $ENV{POLL_TEST_DURATION} // 20;
my @writers = start_writers($node, 2, $seed, $duration);
my $vacuum = start_child('vacuum', sub {
	my $vacuum_db = connect_to($node);
	my $end = time + $duration;

	while (time < $end)
	{
		$vacuum_db->do('VACUUM items');
		sleep 0.05;
	}
	return;
});
my @pollers = map { my $number = $_; start_child("client $number", sub { http_poller($number) }) } 1 .. 4;
note 'transactions: ' . writer_summary(finish_children(@writers));
finish_children($vacuum);
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
append_to_file($stop_file, '');
my @reports = finish_children(@pollers);
check_mirrors($db, @reports);
foreach my $report (@reports)
{
	note join ', ', map { "$_: $report->{status}{$_}" } sort keys %{ $report->{status} };
	cmp_ok($report->{status}{304} // 0, '>', 20, 'there were answers 304');
}
note fetch_value(connect_to($standby), 'SELECT sum(confl_snapshot + confl_bufferpin + confl_deadlock) FROM pg_stat_database_conflicts'),
	' queries conflicted with recovery';
$_->stop foreach @gateways;

done_testing();
