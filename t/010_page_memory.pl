# The memory that a page is made in: little for each key, kept for the next
# poll, within bounds, and not left behind by a poll that fails.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use Test::More;

my $ROWS = 10_000;

my $node = new_node('memory', conf => "shared_buffers = '16MB'\nautovacuum = off\n");
my $db = connect_to($node);

# ---- keys whose JSON is made by a function in SQL ----

$db->do(<<'SQL');
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql
	AS $$ SELECT json_build_object('mood', $1::text) $$;
CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
CREATE TABLE moods (mood mood, n int, PRIMARY KEY (mood, n));
SELECT poll.track('moods');
SQL
my $cursor = fetch_value($db, q{SELECT poll.current_cursor('{moods}')});
$db->do("INSERT INTO moods SELECT 'good', g FROM generate_series(1, $ROWS) AS g");
$db->do('DELETE FROM moods');

SKIP:
{
	skip 'needs /proc', 2 if !-r '/proc/self/status';
	foreach my $query ("poll.poll('{moods}', ?, $ROWS)",
		"poll.changed_keys('moods', ?, $ROWS)")
	{
		my $session = connect_to($node);
		my ($count) = $session->selectrow_array("SELECT count(*) FROM $query", undef, $cursor);

		note sprintf '%s: %d rows, peak %.0f MB', $query, $count, peak_memory($session);
		cmp_ok(peak_memory($session), '<', 80, 'a key takes little memory');
	}
}

# ---- what a session keeps ----

$db->do(<<'SQL');
CREATE TABLE texts (id int PRIMARY KEY, body text);
INSERT INTO texts SELECT g, repeat('x', 500) FROM generate_series(1, 10000) AS g;
SELECT poll.track('texts');
CREATE TYPE trap AS ENUM ('open', 'shut');
CREATE FUNCTION trap_json(trap) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 'shut' THEN
		RAISE 'caught';
	END IF;
	RETURN '1';
END $$;
CREATE CAST (trap AS json) WITH FUNCTION trap_json(trap);
CREATE TABLE traps (id int PRIMARY KEY, trap trap);
INSERT INTO traps VALUES (1, 'open'), (2, 'shut');
SELECT poll.track('traps');
SQL

# How many, and how many bytes.
sub kept
{
	return $db->selectrow_array(<<'SQL');
SELECT count(*) FILTER (WHERE name = 'poll_ext work'), coalesce(sum(total_bytes), 0)
  FROM pg_backend_memory_contexts WHERE name IN ('poll_ext work', 'poll_ext page')
SQL
}

my $length = fetch_value($db, q{SELECT length(poll.poll('{texts}', NULL, 10000)::text)});
my ($count, $bytes) = kept();
cmp_ok($length, '>', 5_000_000, 'a large page');
cmp_ok($bytes, '<', 2_000_000, 'is not kept');

fetch_value($db, q{SELECT poll.poll('{texts}')});
($count, $bytes) = kept();
is($count, 1, 'the memory of a small page is');
cmp_ok($bytes, '<', 2_000_000, 'within bounds');

$db->do(<<'SQL');
DO $$
BEGIN
	FOR i IN 1..100 LOOP
		BEGIN
			PERFORM poll.poll('{traps}');
			RAISE 'not caught';
		EXCEPTION WHEN raise_exception THEN
			IF SQLERRM <> 'caught' THEN
				RAISE;
			END IF;
		END;
	END LOOP;
END $$
SQL
($count, $bytes) = kept();
is($count, 0, 'a poll that fails leaves nothing behind');
fetch_value($db, q{SELECT poll.poll('{texts}')});
is((kept())[0], 1, 'and the next one starts anew');

done_testing();
