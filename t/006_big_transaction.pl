# A transaction of a million changes takes little memory to capture, and can be
# paged through at a cost that does not grow.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'needs /proc' if !-r '/proc/self/status';

my $ROWS = 1_000_000;
my $PAGE = 1000;

# Memory that is shared counts, too: keep it small.
my $node = new_node('big', conf => <<'CONF');
shared_buffers = '16MB'
autovacuum = off
checkpoint_timeout = '1h'
CONF

# The peak of a session of its own that runs this.
sub peak_of
{
	my ($sql) = @_;
	my $db = connect_to($node);

	$db->do($sql);
	return peak_memory($db);
}

sub median { return (sort { $a <=> $b } @_)[ @_ / 2 ]; }

my $db = connect_to($node);
$db->do(<<'SQL');
CREATE TABLE items (id bigint PRIMARY KEY, body text);
CREATE TABLE plain (LIKE items INCLUDING ALL);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER nothing AFTER INSERT OR UPDATE OR DELETE ON plain
	FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT poll.track('items');
SQL
my $cursor = fetch_value($db, q{SELECT poll.current_cursor('{items}')});

# ---- memory, compared with a trigger that does nothing ----

my $insert = "INSERT INTO %s SELECT g, 'row ' || g FROM generate_series(1, $ROWS) AS g";
my $plain = peak_of(sprintf $insert, 'plain');
my $tracked = peak_of(sprintf $insert, 'items');
note sprintf 'peak memory: %.0f MB with a trigger that does nothing, %.0f MB tracked', $plain, $tracked;
cmp_ok($tracked - $plain, '<', 64, 'capturing takes less than 64 MB');

# one statement a row, and subtransactions
my $loop = <<'SQL';
DO $$ BEGIN
	FOR i IN 1..100000 LOOP
		UPDATE %s SET body = 'new' WHERE id = i;
		IF i %% 100 = 0 THEN
			BEGIN
				DELETE FROM %1$s WHERE id = i;
				RAISE EXCEPTION 'away with it';
			EXCEPTION WHEN raise_exception THEN
				NULL;
			END;
		END IF;
	END LOOP;
	RAISE EXCEPTION 'and with all of it';
EXCEPTION WHEN raise_exception THEN
	NULL;
END $$
SQL
$plain = peak_of(sprintf $loop, 'plain');
$tracked = peak_of(sprintf $loop, 'items');
note sprintf 'peak memory of single statements: %.0f MB, %.0f MB tracked', $plain, $tracked;
cmp_ok($tracked - $plain, '<', 64, 'also in single statements and subtransactions');

# ---- pages ----

my (@cursors, $more);
my ($count, $sum) = (0, 0);
$db->do('VACUUM ANALYZE items');
do
{
	my $page = fetch_value($db, 'SELECT poll.poll(ARRAY[?], ?, ?)', 'items', $cursor, $PAGE);

	push @cursors, $cursor;
	while ($page =~ /"key":\{"id":(\d+)\}/g)
	{
		$count++;
		$sum += $1;
	}
	($cursor) = $page =~ /,"cursor":"([^"]+)"/;
	$more = $page =~ /,"has_more":true/;
} while ($more && @cursors < 2 * $ROWS / $PAGE);

is($count, $ROWS, 'every change was delivered');
is($sum, $ROWS * ($ROWS + 1) / 2, 'and once');
is(scalar @cursors, $ROWS / $PAGE, 'in full pages');

sub seconds_of_page
{
	my $start = time;

	fetch_value($db, 'SELECT poll.poll(ARRAY[?], ?, ?)', 'items', shift, $PAGE);
	return time - $start;
}

# in turn, so that whatever else the machine does slows both
my (@first, @last);
foreach my $i (0 .. 99)
{
	push @first, seconds_of_page($cursors[$i]);
	push @last, seconds_of_page($cursors[ $i - 100 ]);
}
note sprintf 'median time of a page: %.1f ms at the beginning, %.1f ms at the end',
  1000 * median(@first), 1000 * median(@last);
cmp_ok(median(@last) / median(@first), '<', 1.5, 'the last pages cost no more than the first ones');
note sprintf 'peak memory of the reader: %.0f MB', peak_memory($db);

done_testing();
