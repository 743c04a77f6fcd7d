# The README's tour runs as pasted, and shows what it promises; so does the SQL of
# docs/when-to-poll.md after it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

open(my $readme, '<', 'README.md') or die "README.md: $!";
my $text = do { local $/; <$readme> };
close($readme);
my ($tour) = $text =~ /^## Five minutes\n(.*?)^## /ms;
my @blocks = $tour =~ /^```sql\n(.*?)^```\n/msg;
cmp_ok(scalar(@blocks), '>=', 5, 'the tour has its SQL blocks');

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->append_conf('postgresql.conf', <<'EOC');
shared_preload_libraries = 'poll_ext'
max_prepared_transactions = 5
EOC
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION poll_ext');

my ($status, $stdout, $stderr) =
  $node->psql('postgres', join('', @blocks), extra_params => ['-At']);
is($status, 0, 'psql runs it');
is($stderr, '', 'without errors');

like($stdout, qr/^\{"messages":\[\{"op":"upsert","key":\{"id":3\}.*how are you/m,
	'the second page of the full sync');
like($stdout, qr/^upsert\|\{"id":1\}.*Hello!/m, 'an update');
like($stdout, qr/^delete\|\{"id":2\}\|/m, 'a delete');
is(() = $stdout =~ /"bob","body":"fine"/g, 1, 'an insert, once');
like($stdout, qr/^\d+\|\{\d+\}$/m, 'a cursor that lists the open transaction');
like($stdout, qr/^upsert\|.*"written first, committed last"\}\nf\n/m,
	'the late commit, that alone, and then nothing new');
like($stdout, qr/^f\nrooms\ndelete\|\{"id":1\}\|\n/m, 'a row that leaves its room');
like($stdout, qr/^upsert\|\{"id":1\}\|\{"id":1,"body":"moved"\}\n/m, 'a poll since a time');
like($stdout, qr/^t\|0\nf\|t\n/m, 'a rate limit');
like($stdout, qr/^t\nf\n2\n?\z/m, 'an interval, waiting for nothing, and a result that is kept');

# a change that comes before the wait
my ($trigger, $listen, $wait) = slurp_file('docs/when-to-poll.md') =~ /^```sql\n(.*?)^```\n/msg;
($status, $stdout, $stderr) = $node->psql('postgres', join('', "SELECT poll.current_cursor('{messages}') AS cursor \\gset\n",
		$trigger, $listen, "INSERT INTO messages (author, body) VALUES ('eve', 'news');\n", $wait), extra_params => ['-At']);
is($status, 0, 'when to poll: psql runs it');
is($stderr, '', 'without errors');
like($stdout, qr/^\{"changes": ?\{"messages":\[\]\}.*\n.*Asynchronous notification "messages".*\nt\n?\z/s, 'nothing new, a notification, and no wait')
  or diag $stdout;

$node->stop;
done_testing();
