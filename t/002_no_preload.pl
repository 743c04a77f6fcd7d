# Without shared_preload_libraries everything works that needs no shared memory:
# tracking, polling, and the stress of 001 for a while.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = new_node('no_preload', preload => 0);
my $db = connect_to($node);

is(fetch_value($db, 'SHOW shared_preload_libraries'), '', 'the library is not preloaded');

# the basics, each in a session that has not loaded the library
is($node->safe_psql('postgres', <<'SQL'), 'pair', 'track');
CREATE TABLE pair (id int PRIMARY KEY, x text);
INSERT INTO pair VALUES (1, 'before');
SELECT poll.track('pair');
SQL
my $cursor = $node->safe_psql('postgres', q{SELECT poll.current_cursor('{pair}')});
is($node->safe_psql('postgres', q{SELECT op, data FROM poll.changes('pair')}),
	'upsert|{"id":1,"x":"before"}', 'full sync');
$node->safe_psql('postgres', q{INSERT INTO pair VALUES (2, 'after'); DELETE FROM pair WHERE id = 1});
is($node->safe_psql('postgres', "SELECT poll.has_changes('{pair}', '$cursor')"),
	't', 'has_changes');
is( $node->safe_psql('postgres', "SELECT op, key, data->>'x' FROM poll.changes('pair', '$cursor')"),
	qq(upsert|{"id":2}|after\ndelete|{"id":1}|),
	'changes');
is($node->safe_psql('postgres', "SELECT key FROM poll.changed_keys('pair', '$cursor')"),
	qq({"id":2}\n{"id":1}), 'changed_keys');
my $page = decode_json(fetch_value($db, 'SELECT poll.poll(ARRAY[?], ?)', 'pair', $cursor));
is(scalar @{ $page->{changes}{pair} }, 2, 'poll');
$page = decode_json(fetch_value($db, 'SELECT poll.poll(ARRAY[?], ?)', 'pair', $page->{cursor}));
is(scalar @{ $page->{changes}{pair} }, 0, 'poll with nothing new');
is($node->safe_psql('postgres', "SELECT poll.has_changes('{pair}', '$page->{cursor}')"),
	'f', 'has_changes with nothing new');
my ($code, undef, $errors) = $node->psql('postgres', q{SELECT poll.poll('{pair}', 'nonsense')});
like($errors, qr/invalid cursor/, 'not a cursor');

# versions grow within a transaction, also with a clock of the session's own
$node->safe_psql('postgres', 'INSERT INTO pair SELECT g FROM generate_series(101, 5000) AS g');
is( fetch_value($db, <<'SQL', 'pair', $page->{cursor}), 4900, 'versions are distinct and in order');
SELECT count(DISTINCT version) FROM (
	SELECT version, (key->>'id')::int AS id, lag(version) OVER (ORDER BY (key->>'id')::int) AS previous
	  FROM poll.changes(?, ?, 10000)) AS c
 WHERE previous IS NULL OR version > previous
SQL
is($node->safe_psql('postgres', q{SELECT poll.untrack('pair')}), '', 'untrack');
($code, undef, $errors) = $node->psql('postgres', q{SELECT poll.poll('{pair}')});
like($errors, qr/unknown feed/, 'the feed is gone');

# rate limits need shared memory
foreach my $call (qw(rate_check('ann') rate_peek('ann') rate_reset('ann') rate_counters()))
{
	($code, undef, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT poll.$call");
	like($errors, qr/55000: .*HINT:  Add it there and restart the server/s, $call);
}
is($node->safe_psql('postgres', q{SELECT poll.set_rate_policy('default', 1, '1 s')}), '', 'a policy can be set');
is($node->safe_psql('postgres', q{SELECT poll.client_network('2001:db8::1')}), '2001:db8::/64', 'client_network');

stress($node, random_seed(), 5);

done_testing();
