# The same tag from poll.feed_etag() means the same rows, whatever happens while
# they are computed: late commits, savepoints, two-phase commit, old snapshots,
# on the primary and on a standby.  And a tag stays while nothing happens.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $primary = new_node('primary', streaming => 1);
my $db = connect_to($primary);
my $seed = random_seed();

$db->do('CREATE TABLE items (id int PRIMARY KEY, v int, room int)');
$db->do('CREATE TABLE others (id int PRIMARY KEY, v int)');
$db->do(q{SELECT poll.track('items'), poll.track('items', 'rooms', scope => '{room}'), poll.track('others')});
$db->do('INSERT INTO items SELECT g, 0, g % 3 FROM generate_series(1, 20) AS g');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = on');
$standby->start;

my %FEEDS = (items => undef, rooms => '{"room": 1}');

# Changes rows for some seconds, with pauses inside of transactions.
sub write_for
{
	my ($n, $end) = @_;
	my $db = connect_to($primary);

	srand($seed + $n);
	while (time < $end)
	{
		my $id = "w$n";

		eval {
			$db->do('BEGIN');
			foreach (1 .. 1 + int(rand(3)))
			{
				my $saved = rand() < 0.3 && $db->do('SAVEPOINT s');
				$db->do(rand() < 0.8 ? 'UPDATE items SET v = v + 1, room = ? WHERE id = ?' : 'UPDATE others SET v = ? WHERE id = ?',
					undef, int(rand(3)), 1 + int(rand(20)));
				$db->do('ROLLBACK TO s') if $saved && rand() < 0.3;
				sleep rand(0.01);
			}
			my $kind = rand();
			if ($kind < 0.15)
			{
				$db->do("PREPARE TRANSACTION '$id'");
				sleep rand(0.02);
				$db->do((rand() < 0.7 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$id'");
			}
			else
			{
				$db->do($kind < 0.8 ? 'COMMIT' : 'ROLLBACK');
			}
			1;
		} or eval { $db->do('ROLLBACK') };
	}
	return 1;
}

# Tags and what the table was: [feed, tag, rows]...
sub read_for
{
	my ($node, $end) = @_;
	my $db = connect_to($node);
	my %seen;

	while (time < $end)
	{
		$db->do('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
		foreach my $round (1 .. 1 + int(rand(2)))
		{
			foreach my $feed (keys %FEEDS)
			{
				my ($tag, $rows) = $db->selectrow_array(<<'SQL', undef, [$feed], $FEEDS{$feed}, $feed);
SELECT poll.feed_etag($1, scope => $2), poll.etag_agg(t ORDER BY id) FROM items AS t WHERE $3 = 'items' OR room = 1
SQL
				$seen{"$feed $tag $rows"}++;
			}
			sleep rand(0.005);
		}
		$db->do('COMMIT');
	}
	return [ keys %seen ];
}

my $end = time + 8;
my @writers = map { my $n = $_; start_child("writer $n", sub { write_for($n, $end) }) } 1 .. 4;
my @readers = map { my $node = $_; start_child('reader of ' . $node->name, sub { read_for($node, $end) }) } $primary, $primary, $standby, $standby;
my @seen = map { @$_ } finish_children(@readers);
finish_children(@writers);

my (%rows_of, %tags_of, @wrong);
foreach my $one (@seen)
{
	my ($feed, $tag, $rows) = split / /, $one;

	$rows_of{"$feed $tag"}{$rows} = 1;
	$tags_of{"$feed $rows"}{$tag} = 1;
}
@wrong = grep { keys %{ $rows_of{$_} } > 1 } keys %rows_of;
is(join(', ', @wrong), '', 'a tag stands for one state of the rows');
cmp_ok(scalar(keys %tags_of), '>', 500, scalar(keys %tags_of) . ' states');
note scalar(keys %rows_of) . ' tags';

# Others write, ticks are written: the tag stays.
my $tag = fetch_value($db, q{SELECT poll.feed_etag('{items}')});
foreach (1 .. 25)
{
	$db->do('INSERT INTO others VALUES (?)', undef, 1000 + $_);
	sleep 0.1;
}
is(fetch_value($db, q{SELECT poll.feed_etag('{items}')}), $tag, 'a tag stays while others write');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(fetch_value(connect_to($standby), q{SELECT poll.feed_etag('{items}')}), $tag, 'it is the same on a standby');
$db->do('UPDATE items SET v = 0 WHERE id = 1');
isnt(fetch_value($db, q{SELECT poll.feed_etag('{items}')}), $tag, 'and another one after a change');

done_testing();
