# Random writers and pollers at the same time, and what must be true afterwards.
#
# The writers do everything that makes polling hard: transactions of any length
# that commit late, roll back, roll back to savepoints, prepare, time out and
# deadlock, on a table so small that they often meet.  The pollers poll with
# pages of any size, under snapshots old and new, go on from the middle of a
# page, and start again with a full sync.

package PollStress;

use strict;
use warnings;

use Exporter 'import';
use PollTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  create_items tolerated older_connection random_poll unless_expired try_poll rotator
  start_writers writer_summary check_cursors check_mirrors stress
);

my $KEYS = 300;

# Was the last error one that a writer may run into?  Unique violation,
# serialization failure, deadlock, lock timeout.
sub tolerated
{
	my ($db) = @_;

	return $db->state =~ /^(23505|40001|40P01|55P03)$/;
}

sub create_items
{
	my ($db) = @_;

	$db->do('CREATE TABLE items (id bigint PRIMARY KEY, v int, body text)');
	$db->do("INSERT INTO items SELECT g, 0, 'first' FROM generate_series(1, ?::int, 2) AS g", undef, $KEYS);
	$db->do(q{SELECT poll.track('items')});
	return;
}

sub random_key { return 1 + int(rand($KEYS)); }

# One random statement of a transaction; depth: of open savepoints.
sub random_statement
{
	my ($db, $depth) = @_;
	my $r = rand();

	if ($r < 0.35)
	{
		$db->do('INSERT INTO items VALUES (?, ?, repeat(?, ?))'
			  . ' ON CONFLICT (id) DO UPDATE SET v = excluded.v, body = excluded.body',
			undef, random_key(), int(rand(1000)), 'x', int(rand(40)));
	}
	elsif ($r < 0.58)
	{
		$db->do('UPDATE items SET v = v + 1 WHERE id = ?', undef, random_key());
	}
	elsif ($r < 0.73)
	{
		$db->do('DELETE FROM items WHERE id = ?', undef, random_key());
	}
	elsif ($r < 0.83)
	{
		$db->do('UPDATE items SET id = ? WHERE id = ?', undef, random_key(), random_key());
	}
	elsif ($r < 0.87)
	{
		my $key = random_key();
		$db->do('UPDATE items SET v = v + 1 WHERE id BETWEEN ? AND ?', undef, $key, $key + 20);
	}
	elsif ($r < 0.872)
	{
		# several chunks
		$db->do('UPDATE items SET v = v + 1') foreach 1 .. 4;
	}
	elsif ($r < 0.94)
	{
		$db->do('SAVEPOINT s');
		$$depth++;
	}
	elsif ($$depth > 0)
	{
		$db->do('ROLLBACK TO s') if rand() < 0.5;
		$db->do('RELEASE s');
		$$depth--;
	}
	return;
}

# The end of a transaction: one of many.  Returns what it was.  pause: seconds
# that some wait before it.
sub random_end
{
	my ($db, $gid, $pause) = @_;
	my $r = rand();

	if ($r < 0.12)
	{
		$db->do('ROLLBACK');
		return 'rolled back';
	}
	if ($r < 0.30)
	{
		$db->do('SELECT pg_sleep(?)', undef, rand($pause));
		$db->do('COMMIT');
		return 'committed late';
	}
	if ($r < 0.45)
	{
		my $commits = rand() < 0.8;
		$db->do("PREPARE TRANSACTION '$gid'");
		sleep rand($pause);
		$db->do(($commits ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
		return 'prepared';
	}
	$db->do('COMMIT');
	return 'committed';
}

sub random_transaction
{
	my ($db, $gid, $settings) = @_;
	my $statements = 1 + int(60 * rand()**3);
	my $depth = 0;

	$db->do((rand() < 0.1 ? 'BEGIN ISOLATION LEVEL REPEATABLE READ' : 'BEGIN') . "; $settings");
	foreach (1 .. $statements)
	{
		next if eval { random_statement($db, \$depth); 1 };
		die $@ unless $depth > 0 && tolerated($db);
		$db->do('ROLLBACK TO s');
	}
	return random_end($db, $gid, 0.3);
}

# A writer: random transactions until then.  Counts what became of them.  With
# may_crash, the server may go away, and that is the end.
sub writer
{
	my ($node, $number, $seed, $until, %option) = @_;
	my $db = connect_to($node);
	my %count;
	my $n = 0;

	# of each transaction: behind a pooler the next one has another session
	my $settings = "SET LOCAL lock_timeout = '200ms'; SET LOCAL synchronous_commit = " . ($number % 2 ? 'off' : 'on');

	srand($seed);
	while (time < $until)
	{
		my $gid = "w$number-" . $n++;
		my $end = eval { random_transaction($db, $gid, $settings) };

		if (!defined $end)
		{
			my ($error, $tolerated) = ($@, tolerated($db));
			my $alive = eval { $db->do('ROLLBACK') };

			last if !$alive && $option{may_crash};
			die $error unless $alive && $tolerated;
			$end = 'failed';
		}
		$count{$end}++;
		sleep rand(0.02);
	}
	return \%count;
}

sub start_writers
{
	my ($node, $how_many, $seed, $duration, %option) = @_;
	my $until = time + $duration;

	return map {
		my $number = $_;
		start_child("writer $number",
			sub { writer($node, $number, $seed + $number, $until, %option) })
	} 1 .. $how_many;
}

# Counts of all writers as one line.
sub writer_summary
{
	my %sum;

	foreach my $count (grep { defined } @_)
	{
		$sum{$_} += $count->{$_} foreach keys %$count;
	}
	return join ', ', map { "$sum{$_} $_" } sort keys %sum;
}

# A connection with a snapshot up to half a second old, or another time.
sub older_connection
{
	my ($older, $age) = @_;

	if (time > $older->{until})
	{
		$older->{db}->do('COMMIT') if $older->{until};
		$older->{db}->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
		$older->{db}->do('SELECT 1');
		$older->{until} = time + rand($age // 0.5);
	}
	return $older->{db};
}

sub random_poll
{
	my ($mirror, $db) = @_;
	my $max_rows = log_uniform(1000);

	if (rand() < 0.2 && @{ $mirror->{feeds} } == 1)
	{
		$mirror->poll_rows($db, $max_rows, sub { rand() < 0.5 ? $_[0] : int(rand($_[0] + 1)) });
	}
	else
	{
		$mirror->poll($db, $max_rows);
	}
	return;
}

# The same while the log is trimmed: the cursor may have expired, or the snapshot be
# too old.
sub try_poll
{
	my ($mirror, $db) = @_;

	return if eval { random_poll($mirror, $db); 1 };
	my ($error, $state) = ($@, $db->state);
	die $error if $state !~ /^(PT410|40001)$/;
	$mirror->expire if $state eq 'PT410';
	$db->do('ROLLBACK') if !$db->{AutoCommit} || $db->ping == 3 || $db->ping == 4;
	return;
}

# Trims what is older than so many seconds, again and again, until the file is
# there, and counts what was done.
sub rotator
{
	my ($node, $age, $stop_file) = @_;
	my $db = connect_to($node);
	my %count;

	while (!-e $stop_file)
	{
		$count{ $_ // 'nothing' }++ foreach @{ $db->selectcol_arrayref('SELECT action FROM poll.trim(?)', undef, "$age s") };
		sleep 0.05;
	}
	return \%count;
}

# Does it, and starts the mirror again if its cursor has expired; true if not.  A
# cursor may expire only if it has not seen all that was trimmed; once that is so,
# it stays so.
sub unless_expired
{
	my ($mirror, $db, $poll) = @_;

	return 1 if eval { $poll->(); 1 };
	die $@ if $db->state ne 'PT410';
	my $due = fetch_value($db, <<'SQL', $mirror->{cursor});
SELECT c.next_xid < h.x OR EXISTS (SELECT FROM unnest(c.open_xids) AS o WHERE o < h.x AND o <> ALL (h.p))
  FROM poll.cursor_info(?) AS c,
	   (SELECT x, p FROM poll.segment WHERE state <> 'closed' ORDER BY x DESC LIMIT 1) AS h
SQL
	$mirror->fault("has expired, and should not: $mirror->{cursor}") if !$due;
	$mirror->expire;
	return 0;
}

# A poller: polls until the file is there, and then what is left.
sub poller
{
	my ($node, $seed, $stop_file) = @_;
	my $newest = connect_to($node);
	my $older = { db => connect_to($node), until => 0 };
	my $mirror = PollMirror->new('items');

	srand($seed);
	sleep rand(2);
	while (!-e $stop_file)
	{
		my $db = rand() < 0.5 ? $newest : older_connection($older);

		try_poll($mirror, $db);
		$older->{until} = 0 if $db != $newest && $db->state;
		$mirror->restart if rand() < 0.002;
		sleep rand(0.008);
	}
	$older->{db}->do('ROLLBACK') if $older->{until};
	try_poll($mirror, $newest);
	$mirror->drain($newest, 1000);
	return $mirror->report;
}

# The cursors of those who have seen everything: the same one, which is complete.
sub check_cursors
{
	my ($db, $feeds, $scope, $name, @cursors) = @_;
	my %cursors = map { $_ => 1 } @cursors;

	# complete cursors move on when a segment of the log is closed, and those were
	# not polled at the same time
	if (fetch_value($db, q{SELECT EXISTS (SELECT FROM poll.segment WHERE x > '1')}))
	{
		$db->do('BEGIN');
		%cursors = map { fetch_value($db, q{SELECT poll.poll(?, ?, 1, ?::jsonb)->>'cursor'}, $feeds, $_, $scope) => 1 }
		  keys %cursors;
		$db->do('COMMIT');
	}
	is(scalar keys %cursors, 1, "$name: all ended with the same cursor")
	  or diag map { "$_\n" } @{ $db->selectcol_arrayref(
		'SELECT poll.cursor_info(c)::text FROM unnest(?::text[]) AS c', undef, [ keys %cursors ]) };
	my ($cursor) = keys %cursors;
	is(fetch_value($db, 'SELECT (state, open_xids)::text FROM poll.cursor_info(?)', $cursor),
		'(complete,{})', 'which is complete');
	ok(!fetch_value($db, 'SELECT poll.has_changes(?::text[], ?::text, ?::jsonb)', $feeds, $cursor, $scope),
		'and has seen everything');
	return;
}

# After the writers: every mirror is the table, nothing came twice, and all
# have ended with the same, complete cursor.
sub check_mirrors
{
	my ($db, @reports) = @_;
	my $table = table_rows($db, 'items');
	my $n = 0;

	foreach my $report (@reports)
	{
		$n++;
		next unless defined $report;
		is(differences($report->{rows}, $table), '', "mirror $n equals the table");
		is(join("\n", @{ $report->{faults} }), '', "nothing wrong with what mirror $n got");
		note sprintf 'mirror %d: %d polls, %d behind, %d syncs, %d changes',
		  $n, @$report{qw(polls behind syncs delivered)};
	}

	check_cursors($db, ['items'], undef, 'items', map { $_->{cursor} } grep { defined } @reports);
	return;
}

# Everything together, on a node with the extension and without a table items.
# Options:
#	clients		what they connect to instead of the node
#	retention	trims what is older, in seconds; returns what the rotator did
sub stress
{
	my ($node, $seed, $duration, %option) = @_;
	my ($stop_file, $end_file) = map { PostgreSQL::Test::Utils::tempdir() . "/$_" } 'stop', 'end';
	my $clients = $option{clients} // $node;
	my $db = connect_to($node);

	create_items($db);
	my @writers = start_writers($clients, 8, $seed, $duration);
	my @pollers = map {
		my $number = $_;
		start_child("poller $number", sub { poller($clients, $seed + 100 + $number, $end_file) })
	} 1 .. 4;
	my @rotators = map {
		my $age = $_;
		start_child('rotator', sub { rotator($node, $age, $stop_file) })
	} grep { defined } $option{retention};

	note 'transactions: ' . writer_summary(finish_children(@writers));
	append_to_file($stop_file, '');
	my @steps = finish_children(@rotators);
	append_to_file($end_file, '');
	check_mirrors($db, finish_children(@pollers));
	return @steps;
}

1;
