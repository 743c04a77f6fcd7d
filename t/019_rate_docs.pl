# The SQL of docs/rate-limits.md runs as pasted, prints what it shows, and its
# function for PostgREST does what it says.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $text = slurp_file('docs/rate-limits.md');
my @sql = $text =~ /^```sql\n(.*?)^```\n/msg;
my @shown = map { s/\s+$//mgr } $text =~ /^```sql\n[^`]*^```\n```\n(.*?)^```\n/msg;

cmp_ok(scalar @sql, '>=', 5, 'there are blocks of SQL');
is(scalar @shown, 2, 'and what two of them print');

my $node = new_node('rate_docs');
my ($status, $stdout, $stderr) = $node->psql('postgres', join('', @sql), extra_params => [ '-P', 'footer=off', '--no-align', '-P', 'format=aligned', '--no-psqlrc', '-P', 'tuples_only=off' ]);
is($status, 0, 'psql runs them');
is($stderr, '', 'without errors');
my $printed = $stdout =~ s/\s+$//mgr;
cmp_ok(index($printed, $_), '>=', 0, 'it prints what is shown') or diag "$_\nis not in\n$printed" foreach @shown;

# as PostgREST calls it, for a role that may not call poll.pgrst_pre_request()
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE web_anon;
GRANT USAGE ON SCHEMA api TO web_anon;
SELECT poll.set_rate_policy('default', 2, '1 minute');
SQL
my $db = connect_to($node);

sub request
{
	my (%setting) = @_;
	my $answer;

	$db->begin_work;
	$db->do('SET TRANSACTION READ ONLY');
	$db->do('SELECT set_config(?, ?, true)', undef, $_, $setting{$_}) foreach sort keys %setting;
	$db->do('SET LOCAL ROLE web_anon');
	if (eval { $db->do('SELECT api.limit_client()'); 1 })
	{
		$answer = 'ok';
		$db->commit;
	}
	else
	{
		$answer = join ' ', $db->state, $db->errstr =~ /ERROR:  (.*)\nDETAIL:  (.*)\n/;
		$db->rollback;
	}
	return $answer;
}

my $refused = qr/^PGRST \{"code":"PT429","message":"too many requests",.*\} \{"status":429,"headers":\{"Retry-After":"66",.*\}\}$/;

foreach my $client (
	{ 'request.jwt.claims' => '{"sub": "ann"}', 'request.headers' => '{}' },
	{ 'request.jwt.claims' => '{"role": "web_anon"}', 'request.headers' => '{"x-forwarded-for": "1.2.3.4, 203.0.113.77"}' },
	{})
{
	is(request(%$client), 'ok', 'allowed') foreach 1 .. 2;
	like(request(%$client), $refused, 'refused');
}
like(request('request.headers' => '{"x-forwarded-for": "9.9.9.9, 203.0.113.77"}'), $refused, 'whatever a client says of its address');
is(request('request.headers' => '{"x-forwarded-for": "203.0.113.8"}'), 'ok', 'another one is allowed');

done_testing();
