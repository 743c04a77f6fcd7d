# What the algorithms of rate limits admit, by brute force: clients that come at
# random, and clients that do their worst, on a clock of the test, against an
# exact log of all that was admitted.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use List::Util qw(max min sum);
use PollTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = new_node('rate_algorithms');
my $db = connect_to($node);
my $seed = random_seed();

srand($seed);
$db->do('SELECT setseed(?)', undef, ($seed % 1000) / 1000);

# Runs a client and returns what it did: [microseconds, cost, allowed].  Once in
# a while it also looks whether what an answer says is true; those complaints
# come as warnings.  The kinds:
#	random		arrives at random, at a rate, and now and then in a bunch
#	greedy		asks again exactly when it is told to
#	edges		spends all it can just before and after a sub-bucket begins
$db->do(<<'SQL');
CREATE PROCEDURE at(t bigint) LANGUAGE sql
AS $$ SELECT set_config('poll_ext.debug_rate_clock', (t / 1e6)::text, false) $$;

CREATE FUNCTION check_answer(client text, endpoint text, t bigint, highest int)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	wanted int := 1 + floor(random() * highest);
	now record;
	later record;
BEGIN
	SELECT * INTO now FROM poll.rate_peek(client, endpoint, wanted);
	IF now.allowed <> (now.remaining >= wanted) OR now.allowed <> (now.retry_after = 0) THEN
		RAISE WARNING '% %: cost % at %', client, endpoint, wanted, now;
	END IF;
	IF NOT now.allowed THEN
		CALL at(t + round(now.retry_after * 1e6)::bigint - 1);
		SELECT * INTO later FROM poll.rate_peek(client, endpoint, wanted);
		IF later.allowed THEN
			RAISE WARNING '% %: cost % at % might have come before retry_after: %', client, endpoint, wanted, now, later;
		END IF;
		CALL at(t + round(now.retry_after * 1e6)::bigint);
		SELECT * INTO later FROM poll.rate_peek(client, endpoint, wanted);
		IF NOT later.allowed THEN
			RAISE WARNING '% %: cost % at % was refused at retry_after: %', client, endpoint, wanted, now, later;
		END IF;
	END IF;
	IF now.reset_after > 0 THEN
		CALL at(t + round(now.reset_after * 1e6)::bigint - 1);
		SELECT * INTO later FROM poll.rate_peek(client, endpoint, wanted);
		IF later.reset_after <> 0.000001 THEN
			RAISE WARNING '% %: % after reset_after - 1 us is %', client, endpoint, now, later;
		END IF;
	END IF;
	CALL at(t + round(now.reset_after * 1e6)::bigint);
	SELECT * INTO later FROM poll.rate_peek(client, endpoint, wanted);
	IF later.remaining <> highest OR later.reset_after <> 0 THEN
		RAISE WARNING '% %: % after reset_after is %', client, endpoint, now, later;
	END IF;
	CALL at(t);
END
$$;

CREATE FUNCTION run_client(client text, endpoint text, kind text, quota int, highest int, per bigint, n int)
RETURNS SETOF bigint[] LANGUAGE plpgsql AS $$
DECLARE
	t bigint := 1000000000;
	start bigint := t;
	largest_cost int := CASE WHEN random() < 0.5 THEN 1 ELSE least(highest, 1 + floor(random() * 5)) END;
	gap float8 := per::float8 / quota * (largest_cost + 1) / 2 * exp(random() * 2 - 2.5);
	cost int;
	answer record;
BEGIN
	FOR i IN 1..n LOOP
		cost := 1 + floor(random() * largest_cost);
		CALL at(t);
		SELECT * INTO answer FROM poll.rate_check(client, endpoint, cost);
		RETURN NEXT ARRAY[t, cost, answer.allowed::int];
		IF kind = 'edges' AND answer.remaining > 0 THEN
			cost := answer.remaining;
			SELECT * INTO answer FROM poll.rate_check(client, endpoint, cost);
			RETURN NEXT ARRAY[t, cost, answer.allowed::int];
		END IF;
		IF random() < 0.02 THEN
			PERFORM check_answer(client, endpoint, t, highest);
		END IF;
		t := t + CASE kind
			WHEN 'random' THEN
				CASE WHEN random() < 0.1 THEN 0 ELSE round(-ln(1 - random()) * gap) END
			WHEN 'greedy' THEN
				CASE WHEN random() < 0.02 THEN random() * 2 * per ELSE round(answer.retry_after * 1e6) END
			ELSE
				-- what is left of the sub-bucket of a grid that began with the first request
				per / 10 - (t - start) % (per / 10) + floor(random() * 12) * (per / 10) + floor(random() * 3) - 1
			END;
		IF kind = 'edges' AND random() < 0.1 THEN
			-- idle for so long that the grid begins anew
			t := t + per + per / 5 + floor(random() * per);
			start := t;
		END IF;
	END LOOP;
END
$$;
SQL

my @warnings;
local $SIG{__WARN__} = sub { push @warnings, $_[0] };
$db->{PrintWarn} = 1;

# The largest sum of what was admitted in any interval (t - per, t], for any t.
sub most_in_any_interval
{
	my ($per, @log) = @_;
	my @admitted = grep { $_->[2] } @log;
	my ($most, $sum, $first) = (0, 0, 0);

	foreach my $last (@admitted)
	{
		$sum += $last->[1];
		$sum -= $admitted[ $first++ ][1] while $admitted[$first][0] <= $last->[0] - $per;
		$most = max($most, $sum);
	}
	return $most;
}

# Refusals that are not justified: what was admitted within 1.1 intervals, and
# the cost, fit into the quota.
sub unjustified
{
	my ($per, $quota, @log) = @_;
	my @admitted;
	my @bad;

	foreach my $request (@log)
	{
		my ($t, $cost, $allowed) = @$request;

		shift @admitted while @admitted && $admitted[0][0] <= $t - $per * 11 / 10;
		push @bad, "$cost at $t" if !$allowed && $cost + sum(0, map { $_->[1] } @admitted) <= $quota;
		push @admitted, $request if $allowed;
	}
	return @bad;
}

# Requests that the generic cell rate algorithm, as in the textbook, would have
# answered otherwise: by the time at which the bucket is empty, times the quota.
sub unlike_gcra
{
	my ($per, $quota, $burst, @log) = @_;
	my $empty_at = 0;
	my @bad;

	foreach my $request (@log)
	{
		my ($t, $cost, $allowed) = @$request;
		my $then = max($empty_at, $t * $quota) + $cost * $per;
		my $conforms = $then - $t * $quota <= $burst * $per;

		push @bad, "$cost at $t" if $conforms != $allowed;
		$empty_at = $then if $conforms;
	}
	return @bad;
}

my %most;

sub run
{
	my ($kind, $algorithm, $quota, $per, $burst, $n) = @_;
	my $client = join ' ', $kind, $algorithm, $quota, $per, $burst // '';
	my $highest = $burst // $quota;
	my $log;

	$db->do('SELECT poll.set_rate_policy(?, ?, ? * interval \'1 us\', ?, ?)', undef, 'test', $quota, $per,
		$algorithm, $burst);
	$log = $db->selectcol_arrayref('SELECT run_client(?, ?, ?, ?, ?, ?, ?)',
		undef, $client, 'test', $kind, $quota, $highest, $per, $n);

	my @bad = $algorithm eq 'gcra' ? unlike_gcra($per, $quota, $highest, @$log) : unjustified($per, $quota, @$log);
	my $most = most_in_any_interval($per, @$log);
	my $limit = { strict => $quota, window => $quota + int($quota / 10), gcra => $quota + $highest }->{$algorithm};

	is(join(', ', @bad[ 0 .. min($#bad, 4) ]), '', "$client: each answer is right");
	cmp_ok($most, '<=', $limit, "$client: at most $limit in any interval");
	cmp_ok(scalar(grep { $_->[2] } @$log), '>', $n / 50, "$client: much is allowed");
	cmp_ok(scalar(grep { !$_->[2] } @$log), '>', $n / 50, "$client: much is refused")
	  if $kind eq 'random' && $algorithm ne 'gcra';
	$most{"$kind $algorithm"} = max($most{"$kind $algorithm"} // 0, $most / $quota);
	return;
}

foreach my $kind (qw(random greedy edges))
{
	foreach my $quota (1, 7, 10, 60, 1000)
	{
		my $per = 1000 * log_uniform(100_000);

		run($kind, $_, $quota, $per, undef, 1500) foreach qw(strict window gcra);
		run($kind, 'gcra', $quota, $per, log_uniform(2 * $quota), 1500);
	}
}
is(join('', @warnings), '', 'remaining, retry_after and reset_after are true');

# The tests do reach the limits, so they would have seen a larger one.
note "$_: at most $most{$_} of the quota in any interval" foreach sort keys %most;
is($most{'edges strict'}, 1, 'all of the quota of strict was had');
cmp_ok($most{'edges window'}, '>', 1.05, 'more than the quota of window was had');
cmp_ok($most{'edges gcra'}, '>', 1.5, 'a burst and the quota of gcra were had');

done_testing();
