# More clients than rate limits have room for, and clients that choose their
# names to do harm.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = new_node('rate_exhaustion');
my $db = connect_to($node);
my $entries = fetch_value($db, 'SHOW poll_ext.rate_entries');

is($entries, 65536, 'the default');

# generate_series() in FROM would fill memory
sub flood
{
	my ($endpoint, $first, $last) = @_;

	return fetch_value($db, <<'SQL', $endpoint, $first, $last);
SELECT count(*) FILTER (WHERE allowed)
  FROM (SELECT (poll.rate_check('flood ' || i, $1)).allowed
		  FROM (SELECT generate_series($2::int, $3::int) AS i OFFSET 0) AS i OFFSET 0) AS c
SQL
}

sub count_allowed
{
	my ($client, $endpoint, $n) = @_;

	return fetch_value($db, <<'SQL', $client, $endpoint, $n);
SELECT count(*) FILTER (WHERE (poll.rate_check($1, $2)).allowed) FROM generate_series(1, $3)
SQL
}

sub statistics
{
	my ($endpoint) = @_;

	return $db->selectrow_hashref('SELECT * FROM poll.stat_rate WHERE endpoint = ?', undef, $endpoint);
}

$db->do(q{SET poll_ext.debug_rate_clock = 1000});
$db->do(q{SELECT poll.set_rate_policy('many', 5, '1 day')});
$db->do('SET max_parallel_workers_per_gather = 0');
$db->do('SET jit = off');

# Names that collide under the server's own hash functions, in all of the lower
# 13 bits (there are 8192 sets), do not meet in one set.
my $chosen = fetch_value($db, <<'SQL');
SELECT count(*) FROM (
	SELECT (poll.rate_check(name, 'many')).allowed
	  FROM (SELECT 'chosen ' || i AS name FROM generate_series(1, 4000000) AS i
			 WHERE hashtext('chosen ' || i) & 8191 = 42 OFFSET 0) AS n OFFSET 0) AS c
SQL
cmp_ok($chosen, '>', 300, "$chosen chosen names");
is(statistics('many')->{entries}, $chosen, 'all are remembered');
is(statistics('many')->{evictions}, 0, 'nobody was forgotten');

# A table that is three quarters full has room for nearly everybody.
cmp_ok(flood('many', 20_000_001, 20_000_000 + 0.75 * $entries - $chosen), '>', 0, 'three quarters');
cmp_ok(statistics('many')->{evictions}, '<', 50, statistics('many')->{evictions} . ' had to displace another one');

# Ten million clients: no error, no growth, and who has spent everything is not
# forgotten.
is(count_allowed('exhausted', 'many', 10), 5, 'a client spends its quota');
is(count_allowed("exhausted $_", 'many', 5), 5, 'another one') foreach 1 .. 20;
is(flood('many', 1, 1_000_000), 1_000_000, 'a million clients');
my $memory = peak_memory($db);
is(flood('many', 1_000_001, 10_000_000), 9_000_000, 'nine million more');
cmp_ok(peak_memory($db) - $memory, '<', 2, 'in no more memory');
is(count_allowed('exhausted', 'many', 10), 0, 'the client is still refused');
is(count_allowed("exhausted $_", 'many', 5), 0, 'the other one, too') foreach 1 .. 20;
cmp_ok(statistics('many')->{entries}, '>', $entries * 0.99, 'all of them in use');
cmp_ok(statistics('many')->{evictions}, '>=', 10_000_000 - $entries, 'evictions were counted');
is(statistics('many')->{overflows}, 0, 'there was room for everybody');
is(count_allowed('real', 'many', 10), 5, 'a new client has its quota, and not more');
is(count_allowed('real', 'many', 10), 0, 'and is refused then');

# Who has spent a part makes room after those who have spent less.
is(count_allowed('regular', 'many', 3), 3, 'a client spends a part of its quota');
flood('many', 10_000_001, 10_500_000);
is(count_allowed('regular', 'many', 5), 2, 'and gets the rest');

# With quota 1 all clients have spent everything.  When the table is full of
# those, new ones share one counter: refused, but never set free.
$db->do(q{SELECT poll.set_rate_policy('minimum interval', 1, '1 hour', 'gcra')});
is(count_allowed('first', 'minimum interval', 2), 1, 'a minimum interval');
my $admitted = flood('minimum interval', 1, 1_000_000);
cmp_ok($admitted, '>', 0.99 * $entries, 'clients up to what there is room for');
cmp_ok($admitted, '<=', $entries + 1, 'and one more');
is(count_allowed('first', 'minimum interval', 2), 0, 'the first is still refused');
is(statistics('minimum interval')->{overflows}, 1_000_000 - ($admitted - 1), 'the others found no room');
is(fetch_value($db, q{SELECT count(*) FROM generate_series(1, 1000) AS i
	WHERE (poll.rate_peek('new ' || i, 'minimum interval')).allowed}), 0, 'a peek says so');
is(count_allowed('exhausted', 'many', 5), 0, 'endpoints do not harm each other');
$db->do(q{SET poll_ext.debug_rate_clock = 4600});
my $evictions = statistics('minimum interval')->{evictions} + statistics('many')->{evictions};
is(count_allowed('first', 'minimum interval', 2), 1, 'an hour later the first is allowed');
is(count_allowed("late $_", 'minimum interval', 2), 1, 'and new ones have room') foreach 1 .. 20;
is(statistics('minimum interval')->{entries}, 21, 'who is idle does not count');

# Old entries, of whatever endpoint, make room.
is(flood('minimum interval', 1, 1000), 1000, 'for a thousand');
is(statistics('minimum interval')->{evictions} + statistics('many')->{evictions}, $evictions, 'without an eviction');

# Many sessions fill and empty a small table at once.
$db->disconnect;
$node->append_conf('postgresql.conf', 'poll_ext.rate_entries = 40');
$node->restart;
$db = connect_to($node);
my @results = finish_children(
	map
	{
		my $n = $_;
		start_child(
			"session $n",
			sub {
				my $db = connect_to($node);

				return $db->selectrow_arrayref(<<'SQL');
SELECT count(*), count(*) FILTER (WHERE (poll.rate_check('client ' || floor(random() * 100), CASE WHEN i % 2 = 0 THEN 'many' ELSE 'minimum interval' END)).allowed),
	   count(poll.rate_reset('client ' || floor(random() * 100), 'many')) FILTER (WHERE i % 10 = 0),
	   count(poll.rate_peek('client ' || floor(random() * 100), 'many')) FILTER (WHERE i % 10 = 1)
  FROM generate_series(1, 200000) AS i
SQL
			})
	} 1 .. 6);
my ($checks, $denials) = $db->selectrow_array('SELECT sum(checks), sum(denials) FROM poll.stat_rate');
my ($n, $allowed) = (0, 0);
foreach my $result (@results)
{
	$n += $result->[0];
	$allowed += $result->[1];
}
is($checks, $n, 'all checks were counted');
is($denials, $n - $allowed, 'and all denials');

done_testing();
