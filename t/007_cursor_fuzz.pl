# Whatever a client sends for a cursor is a cursor or a clean error: PT400, or
# PT410 if it might have been good once.
#
# POLL_TEST_FUZZ	how many cursors, 1,000,000 by default
# POLL_TEST_SEED	to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use MIME::Base64 qw(encode_base64url decode_base64url);
use PollTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed = random_seed();
my $cursors = $ENV{POLL_TEST_FUZZ} // 1_000_000;
my $workers = 2;
my $node = new_node('fuzz');
my $db = connect_to($node);

# Tables with keys of several types, and cursors of each kind for each of them.
sub create_seeds
{
	my %columns = (
		items => 'id bigint PRIMARY KEY',
		words => 'id text COLLATE "C", n text, PRIMARY KEY (id, n)',
		times => 'id timestamptz NOT NULL, n numeric NOT NULL',
		bytes => 'id uuid, n bytea, PRIMARY KEY (id, n)',
		docs => 'id jsonb PRIMARY KEY',
		lists => 'id int[] PRIMARY KEY');
	my %values = (
		items => 'g',
		words => q{'wörd ' || g, repeat('n', g)},
		times => q{timestamptz '2020-01-01 UTC' + g * interval '1 hour', g / 7.0},
		bytes => q{md5(g::text)::uuid, md5(g::text)::bytea},
		docs => 'to_jsonb(g)',
		lists => 'ARRAY[g, g + 1]');

	$db->do('CREATE TABLE seed (feed text, bytes bytea)');
	foreach my $feed (sort keys %columns)
	{
		$db->do("CREATE TABLE $feed ($columns{$feed})");
		$db->do('CREATE UNIQUE INDEX times_key ON times (id, n DESC);'
			  . ' ALTER TABLE times REPLICA IDENTITY USING INDEX times_key') if $feed eq 'times';
		$db->do('SELECT poll.track(?)', undef, $feed);
		$db->do("INSERT INTO $feed SELECT $values{$feed} FROM generate_series(1, 50) AS g");

		# open transactions below later ones
		foreach my $n (1 .. 3)
		{
			$db->do('BEGIN');
			$db->do("INSERT INTO $feed SELECT $values{$feed} FROM generate_series(100 * $n, 100 * $n + 5) AS g");
			$db->do("PREPARE TRANSACTION '$feed $n'");
		}
		my $before = fetch_value($db, 'SELECT poll.current_cursor(ARRAY[?])', $feed);
		$db->do("INSERT INTO $feed SELECT $values{$feed} FROM generate_series(51, 60) AS g");

		my $keep = sub {
			$db->do('INSERT INTO seed SELECT ?, to_bytes(cursor) FROM poll.changes(?, ?, ?)',
				undef, $feed, $feed, @_);
		};
		$keep->(undef, 20);
		$keep->($before, 5);
		$keep->($before, 10);
		$db->do("COMMIT PREPARED '$feed 2'");
		$keep->($before, 3);
		$db->do("COMMIT PREPARED '$feed 1'");
		$keep->($before, 100);
		$db->do("COMMIT PREPARED '$feed 3'");
		$keep->($before, 100);
	}
	my $states = $db->selectcol_arrayref(
		'SELECT DISTINCT state FROM seed, poll.cursor_info(to_cursor(bytes)) ORDER BY state');
	is("@$states", 'complete cut full sync', 'cursors of each kind to begin with');
	return;
}

# The memory of the backend, in MB: what it has now, and the most it has had.
sub memory
{
	my ($db) = @_;
	my $status = slurp_file('/proc/' . $db->{pg_pid} . '/status');

	return map { $status =~ /^$_:\s+(\d+) kB/m ? $1 / 1024 : 0 } 'RssAnon', 'VmHWM';
}

# Runs a function that tries n cursors; returns its counts by outcome.
sub fuzz
{
	my ($number, $function, $n) = @_;
	my $db = connect_to($node);

	$db->do('SELECT setseed(?)', undef, ($seed % 1000 + $number) / 2000);
	$db->selectall_arrayref("SELECT * FROM $function(1000)");
	my ($before) = memory($db);
	my $outcomes = $db->selectall_arrayref("SELECT * FROM $function(?)", undef, $n);
	my ($after, $peak) = memory($db);

	return {
		outcomes => { map { $_->[0] => { count => $_->[1], example => $_->[2] } } @$outcomes },
		grown => $after - $before,
		peak => $peak
	};
}

# Runs it in all workers and checks what they found.
sub check_fuzz
{
	my ($function, $n) = @_;
	my $start = time;
	my @reports = finish_children(
		map { my $number = $_; start_child("$function $number", sub { fuzz($number, $function, $n / $workers) }) }
		  1 .. $workers);
	my %sum;
	my $unexpected = '';

	note sprintf '%s: %d cursors in %.0f s', $function, $n, time - $start;
	foreach my $report (@reports)
	{
		foreach my $outcome (sort keys %{ $report->{outcomes} })
		{
			my ($count, $example) = @{ $report->{outcomes}{$outcome} }{qw(count example)};

			$sum{$outcome} += $count;
			$unexpected .= "$outcome: $example\n" unless $outcome =~ /^(result|PT400|PT410)$/;
		}
		note sprintf 'memory: grown by %.1f MB, peak %.0f MB', @$report{qw(grown peak)};
		cmp_ok($report->{grown}, '<', 16, "$function: memory does not grow");
		cmp_ok($report->{peak}, '<', 300, "$function: memory is bounded");
	}
	note "$function: " . join ', ', map { "$sum{$_} $_" } sort keys %sum;
	is($unexpected, '', "$function: results and clean errors only");
	cmp_ok($sum{$_} // 0, '>', 0, "$function: some $_") foreach qw(result PT400);
	return;
}

sub varint
{
	my ($n) = @_;

	return $n < 128 ? chr($n) : chr(128 + $n % 128) . varint(int($n / 128));
}

# A cursor of a full sync, after this key instead of a real one.
sub forge
{
	my ($feed, $key) = @_;
	my ($cursor, $real) = $db->selectrow_array(
		'SELECT cursor, (poll.cursor_info(cursor)).last_key[1] FROM poll.changes(?, NULL, 3) LIMIT 1',
		undef, $feed);
	my ($from, $to) = map { varint(length $_) . $_ } map { varint(length $_) . $_ } $real, $key;
	my $bytes = decode_base64url($cursor);

	die 'the key is not at the end' unless $bytes =~ s/\Q$from\E\z/$to/s;
	return encode_base64url($bytes);
}

# A forged key is refused, or read as one; and the session goes on.
sub check_forged
{
	my ($feed, $key, $name) = @_;
	my $cursor = forge($feed, $key);
	my $session = connect_to($node);
	my $outcome = 'result';

	eval { $session->do('SELECT poll.poll(ARRAY[?]::text[], ?)', undef, $feed, $cursor); 1 }
	  or $outcome = $session->state;
	like($outcome, qr/^(result|PT400|PT410)$/, "$name: poll");
	ok(eval { fetch_value($session, 'SELECT true') }, "$name: the session goes on")
	  or diag $session->errstr;
	$session = connect_to($node);
	eval
	{
		fetch_value($session, q{SELECT convert_from(convert_to(last_key[1], 'UTF8'), 'UTF8')}
			  . ' FROM poll.cursor_info(?)', $cursor);
		1;
	} or is($session->state, 'PT400', "$name: cursor_info");
	return;
}

$db->do(<<'SQL');
CREATE FUNCTION to_bytes(cursor text) RETURNS bytea LANGUAGE sql AS $$
	SELECT decode(translate(cursor, '-_', '+/') || repeat('=', (4 - length(cursor) % 4) % 4), 'base64')
$$;

CREATE FUNCTION to_cursor(bytes bytea) RETURNS text LANGUAGE sql AS $$
	SELECT translate(encode(bytes, 'base64'), E'+/=\n', '-_')
$$;

CREATE FUNCTION dice(sides int) RETURNS int LANGUAGE sql AS $$
	SELECT floor(random() * sides)::int
$$;

-- One random change.
CREATE FUNCTION mutate_once(b bytea, other bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	n int := length(b);
	i int := dice(n + 1);	-- 0 to n
	varints bytea[] := ARRAY['\x00', '\x7f', '\x80', '\x8000', '\xff7f', '\xffffffff0f', '\xffffffff07',
		'\xffffffffffffffffff01', '\xffffffffffffffff7f', '\xffffffffffffffffff7f', '\x8004', '\x8104'];
BEGIN
	CASE dice(9)
	WHEN 0, 1 THEN
		RETURN CASE WHEN n = 0 THEN b ELSE set_bit(b, dice(8 * n), dice(2)) END;
	WHEN 2 THEN		-- behind the header
		RETURN CASE WHEN n < 18 THEN b ELSE set_byte(b, 17 + dice(n - 17), dice(256)) END;
	WHEN 3 THEN
		RETURN substr(b, 1, i);
	WHEN 4 THEN
		RETURN substr(b, 1, i) || substr(decode(md5(random()::text), 'hex'), 1, dice(16)) || substr(b, i + 1);
	WHEN 5 THEN
		RETURN substr(b, 1, i) || substr(b, i + 1 + dice(8));
	WHEN 6 THEN		-- the head of one and the tail of another
		RETURN substr(b, 1, i) || substr(other, 1 + dice(length(other)));
	WHEN 7 THEN
		RETURN substr(b, 1, i) || varints[1 + dice(12)] || substr(b, i + 1 + dice(3));
	ELSE			-- the flags
		RETURN CASE WHEN n = 0 THEN b ELSE set_byte(b, 0, 1 + 16 * dice(8)) END;
	END CASE;
END $$;

CREATE FUNCTION garbage(b bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	c text := to_cursor(b);
	i int := dice(length(c) + 1);
BEGIN
	CASE dice(4)
	WHEN 0 THEN
		RETURN left(c, i) || (ARRAY['=', '.', '+', '/', ' ', E'\n', 'ü', '%', '-', '_', 'A', '🙂'])[1 + dice(12)] || substr(c, i + 1);
	WHEN 1 THEN
		RETURN left(c, i);
	WHEN 2 THEN
		RETURN translate(encode(decode(repeat(md5(random()::text), 1 + dice(4)), 'hex'), 'base64'), E'+/=\n', '-_');
	ELSE
		RETURN (ARRAY['', 'n', 'now ', 'NOW', 'A', 'AA', 'AAA', 'AAAA', c || c, '-', '_', '='])[1 + dice(12)];
	END CASE;
END $$;

-- The seeds as arrays: a look at a table for each cursor would take longer than
-- all the rest.  keep_header: so that a poll does not stop at the first check.
CREATE FUNCTION mutate(seeds bytea[], i int, keep_header boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	b bytea := seeds[i];
BEGIN
	IF dice(10) = 0 THEN
		RETURN garbage(b);
	END IF;
	FOR n IN 0..dice(3) LOOP
		b := mutate_once(b, seeds[1 + dice(cardinality(seeds))]);
	END LOOP;
	IF keep_header AND length(b) > 0 THEN
		b := substr(b, 1, 1) || substr(seeds[i], 2, 16) || substr(b, 18);
	END IF;
	RETURN to_cursor(b);
END $$;

-- Both return their counts by outcome, with an example each.
CREATE FUNCTION fuzz_info(n int) RETURNS TABLE (outcome text, count bigint, example text) LANGUAGE plpgsql AS $$
DECLARE
	seeds bytea[] := ARRAY(SELECT bytes FROM seed);
	counts jsonb := '{}';
	examples jsonb := '{}';
	results bigint := 0;
	refused bigint := 0;
	c text;
	info record;
	other text;
BEGIN
	FOR i IN 1..n LOOP
		c := mutate(seeds, 1 + dice(cardinality(seeds)), false);
		BEGIN
			other := NULL;
			SELECT * INTO info FROM poll.cursor_info(c);
			results := results + 1;
			IF info.last_key IS NOT NULL THEN
				PERFORM convert_from(convert_to(k, 'UTF8'), 'UTF8') FROM unnest(info.last_key) AS k;
			END IF;
			IF info.state IS NULL OR info.state NOT IN ('complete', 'cut', 'full sync') OR info.open_xids IS NULL THEN
				other := 'strange result';
			END IF;
		EXCEPTION
			WHEN SQLSTATE 'PT400' THEN
				refused := refused + 1;
			WHEN OTHERS THEN
				other := sqlstate || ' ' || sqlerrm;
		END;
		IF other IS NOT NULL THEN
			other := left(other, 40);
			counts := jsonb_set(counts, ARRAY[other], to_jsonb(coalesce((counts->>other)::bigint, 0) + 1));
			examples := jsonb_set(examples, ARRAY[other], to_jsonb(c));
		END IF;
	END LOOP;
	RETURN QUERY VALUES ('result', results, ''), ('PT400', refused, '');
	RETURN QUERY SELECT k, v::bigint, examples->>k FROM jsonb_each_text(counts) AS e(k, v);
END $$;

CREATE FUNCTION fuzz_poll(n int) RETURNS TABLE (outcome text, count bigint, example text) LANGUAGE plpgsql AS $$
DECLARE
	seeds bytea[] := ARRAY(SELECT bytes FROM seed ORDER BY ctid);
	feeds text[] := ARRAY(SELECT feed FROM seed ORDER BY ctid);
	counts jsonb := '{}';
	examples jsonb := '{}';
	c text;
	s int;
	what text;
BEGIN
	FOR i IN 1..n LOOP
		s := 1 + dice(cardinality(seeds));
		c := mutate(seeds, s, dice(10) > 0);
		BEGIN
			what := 'result';
			CASE dice(4)
			WHEN 0 THEN
				PERFORM poll.poll(ARRAY[feeds[s]], c, 1 + dice(20));
			WHEN 1 THEN
				PERFORM poll.changes(feeds[s], c, 1 + dice(20));
			WHEN 2 THEN
				PERFORM poll.changed_keys(feeds[s], c, 1 + dice(20));
			ELSE
				PERFORM poll.has_changes(ARRAY[feeds[s]], c);
			END CASE;
		EXCEPTION WHEN OTHERS THEN
			what := CASE WHEN sqlstate IN ('PT400', 'PT410') THEN sqlstate ELSE left(sqlstate || ' ' || sqlerrm, 40) END;
		END;
		counts := jsonb_set(counts, ARRAY[what], to_jsonb(coalesce((counts->>what)::bigint, 0) + 1));
		IF NOT examples ? what THEN
			examples := jsonb_set(examples, ARRAY[what], to_jsonb(feeds[s] || ' ' || c));
		END IF;
	END LOOP;
	RETURN QUERY SELECT k, v::bigint, examples->>k FROM jsonb_each_text(counts) AS e(k, v);
END $$;
SQL

create_seeds();
my $mirror = PollMirror->new('items');
$mirror->drain($db, 100);

check_fuzz('fuzz_info', $cursors);
check_fuzz('fuzz_poll', $cursors / 10);

# long ones are refused before they cost anything
foreach my $length (4 * 1024 * 1024, 64 * 1024 * 1024)
{
	my $start = time;

	ok(!eval { fetch_value($db, q{SELECT state FROM poll.cursor_info(repeat(repeat('A', 1024), ?))}, $length / 1024); 1 }
		&& $db->state eq 'PT400', "a cursor of $length bytes is refused");
	cmp_ok(time - $start, '<', 5, 'in no time');
}

# keys that are none
check_forged('items', $_, "a key of items, $_") foreach '1e5', '', ' 7', '99999999999999999999';
check_forged('lists', '{{{{{{{1}}}}}}}', 'an array of too many dimensions');
check_forged('lists', '{"x"}', 'an array of something else');
check_forged('docs', '[' x 1_000_000, 'a document that is too deep');
check_forged('docs', '"' . ('x' x 1_000_000) . '"', 'a document that is too long');

# and nobody else has noticed
$db->do('UPDATE items SET id = id + 1000 WHERE id < 20');
$mirror->drain($db, 100);
is(differences($mirror->{rows}, table_rows($db, 'items')), '', 'a good cursor goes on');
is(join("\n", @{ $mirror->{faults} }), '', 'and gets nothing twice');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'the server did not crash');

done_testing();
