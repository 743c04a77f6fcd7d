# A cursor has room for 512 open transactions.  With more of them changes wait:
# a delay, but never a loss, a repeat, or a client that polls in circles.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use List::Util qw(shuffle);
use PollStress;
use PollTest;
use Test::More;

my $ROOM = 512;
my $node = new_node('many_open', conf => <<'CONF');
max_prepared_transactions = 700
autovacuum = off
CONF
my $db = connect_to($node);
my $older = connect_to($node);
my %mirror;
my @prepared;

# Prepares so many transactions of one or two rows.
sub prepare
{
	my ($n) = @_;

	foreach (1 .. $n)
	{
		my $id = 10_000 + 10 * @prepared;

		$db->do('BEGIN');
		$db->do('INSERT INTO items VALUES (?), (?)', undef, $id, $id + 1);
		$db->do("PREPARE TRANSACTION '$id'");
		push @prepared, $id;
	}
	return;
}

sub finish
{
	my ($n) = @_;

	foreach my $id (splice @prepared, 0, $n)
	{
		$db->do((rand() < 0.9 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$id'");
	}
	return;
}

# A mirror that begins with the table as it is, and a new cursor.
sub mirror_from_now
{
	my $mirror;

	$db->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$mirror = PollMirror->new('items', fetch_value($db, q{SELECT poll.current_cursor('{items}')}));
	$mirror->{rows} = table_rows($db, 'items');
	$db->do('COMMIT');
	return $mirror;
}

# Each mirror polls until it has no more; what each cursor lists is limited.
sub poll_all
{
	foreach my $name (sort keys %mirror)
	{
		my $open;

		if (rand() < 0.5)
		{
			$mirror{$name}->poll($db, log_uniform(20));
			$mirror{$name}->poll($older, log_uniform(100));
		}
		$mirror{$name}->drain($db, 100);
		$open = fetch_value($db, 'SELECT cardinality(open_xids) FROM poll.cursor_info(?)',
			$mirror{$name}{cursor});
		$mirror{$name}{most} = $open if $open > ($mirror{$name}{most} // 0);
	}
	return;
}

srand(random_seed());
create_items($db);
$mirror{'from before'} = mirror_from_now();
$mirror{'of the early'} = mirror_from_now();

prepare(100);
$db->do('INSERT INTO items VALUES (5000)');
$mirror{'of the early'}->drain($db, 100);
prepare($ROOM);
$db->do('INSERT INTO items VALUES (5001)');
prepare(50);
$db->do('INSERT INTO items VALUES (5002)');
$mirror{'full sync'} = PollMirror->new('items');
$mirror{'from now'} = mirror_from_now();

# ---- too many ----

poll_all();
foreach my $name (sort keys %mirror)
{
	my $delivered = $mirror{$name}{delivered};
	my $page = $mirror{$name}->poll($db, 100);

	ok(!$page->{has_more}, "$name: does not poll in circles");
	is($mirror{$name}{delivered}, $delivered, "$name: got all that it can get");
	ok(!fetch_value($db, 'SELECT poll.has_changes(ARRAY[?], ?)', 'items', $page->{cursor}),
		"$name: has_changes agrees");
}
ok($mirror{'from before'}{rows}{5000}, 'what has few open transactions below it is delivered');
ok(!$mirror{'from before'}{rows}{$_}, "what has too many waits: $_") foreach 5001, 5002;
ok($mirror{'full sync'}{rows}{$_}, "a full sync has it: $_") foreach 5001, 5002;

# what is visible has a tag of its own, also above what a cursor has room for
my $tag = fetch_value($db, q{SELECT poll.feed_etag('{items}')});
$db->do('INSERT INTO items VALUES (5003)');
isnt(fetch_value($db, q{SELECT poll.feed_etag('{items}')}), $tag, 'with too many: a change makes another tag');

# ---- fewer and fewer, in any order ----

@prepared = shuffle(@prepared);
while (@prepared)
{
	$older->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$older->do('SELECT 1');
	finish(1 + int(rand(40)));
	$db->do('UPDATE items SET v = v + 1 WHERE id % 7 = ?', undef, int(rand(7)));
	poll_all();
	if (@prepared && @prepared <= $ROOM && !$mirror{'fewer'})
	{
		ok($mirror{'from before'}{rows}{$_}, "when there is room, it is delivered: $_")
		  foreach 5001, 5002;
		$mirror{fewer} = PollMirror->new('items');
	}
	$older->do('COMMIT');
}
poll_all();
poll_all();

cmp_ok($mirror{$_}{most}, '<=', $ROOM, "$_: listed $mirror{$_}{most} at most") foreach sort keys %mirror;

check_mirrors($db, map { $mirror{$_}->report } sort keys %mirror);

# ---- too many, while the log is trimmed: who begins then lists them all ----

sub listed { return fetch_value($db, 'SELECT cardinality(open_xids) FROM poll.cursor_info(?)', $_[0]{cursor}); }

foreach (1 .. $ROOM + 50)
{
	$db->do($_) foreach 'BEGIN', 'SELECT pg_current_xact_id()', "PREPARE TRANSACTION 'silent $_'";
}
my $writer = connect_to($node);
$writer->do('BEGIN');
$writer->do('UPDATE items SET v = v + 1 WHERE id % 7 = 3');
$db->do('UPDATE items SET v = v + 1 WHERE id % 7 = 1');
ok(wait_for($db, q(SELECT count(*) FILTER (WHERE state = 'empty') = 2 FROM poll.trim('0'))), 'the log was trimmed');
my $since = fetch_value($db, 'SELECT clock_timestamp()');
my @new = (PollMirror->new('items'), mirror_from_now());
foreach my $mirror (@new)
{
	$mirror->drain($db, 100);
	cmp_ok(listed($mirror), '>', $ROOM, 'a new client lists them');
}
$db->do('UPDATE items SET v = v + 1 WHERE id % 7 = 2');
$writer->do('COMMIT');
$_->drain($db, 100) foreach @new;
$db->do("ROLLBACK PREPARED 'silent $_'") foreach 1 .. $ROOM + 50;
$_->drain($db, 100) foreach @new;
check_mirrors($db, map { $_->report } @new);
is(fetch_value($db, q(SELECT poll.has_changes('{items}', ?::timestamptz)), $since), 1, 'and a time from then is good');

done_testing();
