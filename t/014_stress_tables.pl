# The stress of 001 on tables that are truncated, altered and partitioned, with
# feeds of rooms and of some columns.  A mirror starts again on PT410; it is told
# so only for a reason, which is looked for in the log afterwards.
#
# POLL_TEST_DURATION	seconds, 10 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use List::Util qw(sum0);
use PollStress qw(check_cursors);
use PollTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $KEYS = 80;

# short, or all would wait for locks most of the time
my $PAUSE = 0.05;

my $node = new_node('tables', conf => "autovacuum_naptime = '1s'\n");
my $db = connect_to($node);

# What the mirrors of a poller poll: feeds, scope, and the rows of that scope.
my @KINDS = (
	[ ['messages'] ],
	[ ['bodies'] ],
	[ [ 'events', 'messages' ] ],
	[ ['events'] ],
	(map { [ ['rooms'], qq({"room": $_}), "t.room = $_" ] } 1, 2),
	[ ['rooms'], '{"room": null}', 't.room IS NULL' ],
	[ ['room_bodies'], '{"room": "1"}', 't.room = 1' ],
	(map { [ ['regions'], qq({"region": $_}), "t.region = $_" ] } 1, 3));

sub create_tables
{
	$db->do($_) foreach split /;\n/, <<'SQL';
CREATE TABLE messages (id int PRIMARY KEY, room int, v int, body text);
CREATE TABLE events (region int, id int, v int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
CREATE TABLE events_3 PARTITION OF events FOR VALUES IN (3) PARTITION BY RANGE (id);
CREATE TABLE events_3a PARTITION OF events_3 FOR VALUES FROM (MINVALUE) TO (40);
CREATE TABLE events_3b PARTITION OF events_3 FOR VALUES FROM (40) TO (MAXVALUE);
CREATE TABLE elsewhere (id int);
SELECT poll.track('messages');
SELECT poll.track('messages', 'bodies', columns => '{id,body}');
SELECT poll.track('messages', 'rooms', scope => '{room}');
SELECT poll.track('messages', 'room_bodies', columns => '{v}', scope => '{room}');
SELECT poll.track('events');
SELECT poll.track('events', 'regions', scope => '{region}')
SQL
	return;
}

# ---- statements ----

sub number { return int(rand($_[0])); }
sub key { return 1 + number($KEYS); }
sub region { return 1 + number(3); }
sub room { return rand() < 0.2 ? undef : 1 + number(3); }

# with the transaction's id: it may reset feeds
sub resetting
{
	my ($work, $db, $sql) = @_;

	$db->do($sql);
	$work->{resets}{ fetch_value($db, 'SELECT pg_current_xact_id()') } = 1;
	return;
}

# Which partition, when there are others inside it.
sub partition
{
	my $region = region();

	return "events_$region" . ($region == 3 ? ('', 'a', 'b')[ number(3) ] : '');
}

my @ROWS = (
	[ 20, 'INSERT INTO messages VALUES (?, ?, ?, repeat(?, ?))'
		  . ' ON CONFLICT (id) DO UPDATE SET room = excluded.room, v = excluded.v',
		sub { key(), room(), number(1000), 'x', number(40) } ],
	[ 8, 'UPDATE messages SET v = v + 1 WHERE id = ?', sub { key() } ],
	[ 6, 'UPDATE messages SET body = body || ? WHERE id = ?', sub { 'y', key() } ],
	[ 8, 'UPDATE messages SET room = ? WHERE id = ?', sub { room(), key() } ],
	[ 4, 'UPDATE messages SET room = room % 3 + 1 WHERE id BETWEEN $1 AND $1::int + 5', sub { key() } ],
	[ 6, 'UPDATE messages SET id = ? WHERE id = ?', sub { key(), key() } ],
	[ 10, 'DELETE FROM messages WHERE id = ?', sub { key() } ],
	[ 20, 'INSERT INTO events VALUES (?, ?, ?) ON CONFLICT (region, id) DO UPDATE SET v = excluded.v',
		sub { region(), key(), number(1000) } ],
	[ 8, 'UPDATE events SET v = v + 1 WHERE id = ?', sub { key() } ],
	[ 8, 'UPDATE events SET region = region % 3 + 1 WHERE id = ?', sub { key() } ],
	[ 6, 'UPDATE events SET id = ? WHERE region = ? AND id = ?', sub { key(), region(), key() } ],
	[ 8, 'DELETE FROM events WHERE region = ? AND id = ?', sub { region(), key() } ],
	[ 3, 'INSERT INTO events_2 VALUES (2, ?, ?)', sub { key(), number(1000) } ],
	[ 3, 'DELETE FROM events_3a WHERE id = ?', sub { key() } ],
	[ 2, 'INSERT INTO elsewhere VALUES (?)', sub { key() } ]);

my @TRUNCATES = (
	map({ my $sql = $_; sub { $_[1]->do($sql) } }
		'TRUNCATE messages', 'TRUNCATE messages', 'TRUNCATE events', 'TRUNCATE messages, events'),
	sub { resetting(@_, 'TRUNCATE ' . partition()) });

# DDL; some of it finds nothing to do, and fails
my @DDL = map({ my $sql = $_; sub { resetting(@_, $sql) } }
	('ALTER TABLE messages ADD COLUMN extra int DEFAULT 7') x 3,
	'ALTER TABLE messages RENAME extra TO more',
	'ALTER TABLE messages DROP COLUMN IF EXISTS extra',
	'ALTER TABLE messages DROP COLUMN IF EXISTS more',
	(map { ("ALTER TABLE messages ALTER v TYPE $_", "ALTER TABLE messages ALTER room TYPE $_") }
		  'int', 'bigint', 'numeric'),
	'ALTER TABLE messages ALTER id TYPE bigint',
	'ALTER TABLE messages ALTER body SET DEFAULT now()',
	'ALTER TABLE messages DROP COLUMN body',
	'ALTER TABLE events ADD COLUMN extra text',
	'ALTER TABLE events DROP COLUMN extra',
	'ALTER TABLE events ALTER v TYPE bigint',
	'ALTER TABLE events_3 DETACH PARTITION events_3b',
	'ALTER TABLE events_3 ATTACH PARTITION events_3b FOR VALUES FROM (40) TO (MAXVALUE)',
	'DROP TABLE events_3a',
	('CREATE TABLE events_3a PARTITION OF events_3 FOR VALUES FROM (MINVALUE) TO (40)') x 3,
	'DROP TABLE events_2',
	('CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2)') x 3,
	(map { "ALTER TABLE events DETACH PARTITION events_$_" } 1 .. 3),
	# so that most of them are there most of the time
	(map { ("ALTER TABLE events ATTACH PARTITION events_$_ FOR VALUES IN ($_)") x 3 } 1 .. 3));

sub random_row
{
	my ($work, $db) = @_;
	my $at = rand(sum0(map { $_->[0] } @ROWS));

	foreach my $row (@ROWS)
	{
		$at -= $row->[0];
		next if $at >= 0;
		$db->do($row->[1], undef, $row->[2]->());
		last;
	}
	return;
}

# ---- writers ----

# Beside what 001 expects: no partition for the row (or one that has become
# another's), and tables, columns and partitions that are not there, or are
# there, or in use.  And what INSERT ON CONFLICT says when a partition is
# detached concurrently: the server's own race.
sub tolerated
{
	my ($db) = @_;

	return PollStress::tolerated($db)
	  || $db->errstr =~ /invalid arbiter index list/
	  || $db->state =~ /^(23514|2BP01|42P01|42P07|42P17|42701|42703|42804|42809|55000|55006)$/;
}

# One statement, sometimes in a savepoint that may be rolled back.
sub statement
{
	my ($work, $db, $statement) = @_;
	my $nested = rand() < 0.3;

	$db->do('SAVEPOINT s') if $nested;
	if (!eval { $statement->($work, $db); 1 })
	{
		die $@ unless $nested && tolerated($db);
		$db->do('ROLLBACK TO s');
	}
	elsif ($nested)
	{
		$db->do(rand() < 0.3 ? 'ROLLBACK TO s' : 'RELEASE s');
	}
	return;
}

sub transaction
{
	my ($work, $db, $gid) = @_;

	$db->do(rand() < 0.1 ? 'BEGIN ISOLATION LEVEL REPEATABLE READ' : 'BEGIN');
	# an early id, and a late write
	if (rand() < 0.2)
	{
		random_row($work, $db);
		sleep rand($PAUSE);
	}
	foreach (1 .. 1 + number(5))
	{
		my $of = rand() < $work->{special} ? $work->{statements} : [ \&random_row ];

		statement($work, $db, $of->[ number(scalar @$of) ]);
	}
	return PollStress::random_end($db, $gid, $PAUSE);
}

# Two transactions of its own, each with a reset, of which the second may fail:
# then the partition is half gone.
sub detach_concurrently
{
	my ($work, $db) = @_;
	my $region = region();

	foreach my $how ('CONCURRENTLY', 'FINALIZE')
	{
		$work->{count}{'concurrent detaches'}++;
		eval { $db->do("ALTER TABLE events DETACH PARTITION events_$region $how"); 1 }
		  or tolerated($db)
		  or die $@;
	}
	return;
}

# special: how often a statement is one of these.
sub writer
{
	my ($number, $seed, $until, $special, $statements) = @_;
	my $db = connect_to($node);
	my $work = { special => $special, statements => $statements, detaches => $statements == \@DDL,
		resets => {}, count => {} };
	my $n = 0;

	srand($seed);
	$db->do('SET lock_timeout = ' . ($special > 0 ? 200 : 100));
	while (time < $until)
	{
		my $end = eval { transaction($work, $db, "w$number-" . $n++) };

		if (!defined $end)
		{
			die $@ unless tolerated($db);
			$db->do('ROLLBACK');
			$end = 'failed';
		}
		$work->{count}{$end}++;
		detach_concurrently($work, $db) if $work->{detaches} && rand() < 0.05;
		sleep rand(0.02);
	}
	return { resets => [ keys %{ $work->{resets} } ], count => $work->{count} };
}

# ---- pollers ----

# An old snapshot may find a table that was rewritten since, or be the one that
# gives way.
sub poll_once
{
	my ($mirror, $db) = @_;

	return if eval { PollStress::random_poll($mirror, $db); 1 };
	my ($state, $error) = ($db->state, $@);

	if ($state eq 'PT410')
	{
		$mirror->expire;
	}
	elsif ($state !~ /^(40001|40P01)$/)
	{
		die $error;
	}
	return $state;
}

# Polls until there is no more.
sub drain
{
	my ($mirror, $db) = @_;

	foreach (1 .. 20)
	{
		return if eval { $mirror->drain($db, 1000); 1 };
		die $@ if $db->state ne 'PT410';
		$mirror->expire;
	}
	$mirror->fault('expires again and again');
	return;
}

sub poller
{
	my ($seed, $stop_file) = @_;
	my $newest = connect_to($node);
	my $older = { db => connect_to($node), until => 0 };
	my @mirrors = map { PollMirror->new($_->[0], undef, scope => $_->[1]) } @KINDS;

	srand($seed);
	while (!-e $stop_file)
	{
		my $mirror = $mirrors[ number(scalar @mirrors) ];

		# a full sync begins under the newest snapshot: so it is behind the
		# barrier that has ended the last one
		if (!defined $mirror->{cursor} || rand() < 0.6)
		{
			poll_once($mirror, $newest);
		}
		elsif (poll_once($mirror, PollStress::older_connection($older, 2 * $PAUSE)))
		{
			$older->{db}->do('ROLLBACK');
			$older->{until} = 0;
		}
		$mirror->restart if rand() < 0.001;
		sleep rand(0.004);
	}
	$older->{db}->do('ROLLBACK');
	drain($_, $newest) foreach @mirrors;
	return [ map { $_->report } @mirrors ];
}

# ---- reasons ----

sub take_varint
{
	my ($bytes) = @_;
	my ($value, $shift) = (0, 0);

	while (length $$bytes)
	{
		my $byte = ord substr $$bytes, 0, 1, '';

		$value |= ($byte & 127) << $shift;
		last if $byte < 128;
		$shift += 7;
	}
	return $value;
}

# The barriers in the log of each feed: {reset, xid, version, late}; late: of the
# transactions that were open at a TRUNCATE, those that wrote to the feed.
sub read_barriers
{
	my %writes;
	my %barriers;
	my $chunks = $db->selectall_arrayref(<<'SQL');
SELECT coalesce(f.name, 'of a scope'), c.xid, c.version, c.entries
  FROM poll.change c LEFT JOIN poll.feed f ON f.id = c.channel
SQL

	$writes{ $_->[0] }{ $_->[1] } = 1 foreach @$chunks;
	foreach my $chunk (@$chunks)
	{
		my ($feed, $xid, $version, $entries) = @$chunk;

		while (length $entries)
		{
			my $head = take_varint(\$entries);
			my $payload = substr $entries, 0, $head >> 2, '';
			my @late;

			while (($head & 3) == 2 && length $payload)
			{
				my $low = $xid - take_varint(\$payload);
				push @late, $low if $writes{$feed}{$low} || $writes{'of a scope'}{$low};
			}
			push @{ $barriers{$feed} },
			  { reset => ($head & 3) == 3, xid => $xid, version => $version, late => \@late }
			  if ($head & 3) >= 2;
			$version++;
		}
	}
	return \%barriers;
}

# Is the barrier ahead of the cursor?
sub unseen
{
	my ($barrier, $cursor) = @_;
	my ($next, $open, $xid, $version) = @{ $cursor->{info} };

	return $barrier->{version} > $version if defined $xid && $xid == $barrier->{xid};
	return $barrier->{xid} >= $next || grep { $_ == $barrier->{xid} } @$open;
}

sub check_reasons
{
	my ($mirror, $name, $barriers) = @_;
	my @reasons = grep { $_->{reset} || @{ $_->{late} } } map { @{ $barriers->{$_} // [] } } @{ $mirror->{feeds} };
	my $without = 0;

	foreach my $cursor (@{ $mirror->{expired} })
	{
		my $info = $db->selectrow_arrayref(
			'SELECT next_xid, open_xids::text[], at_xid, at_version FROM poll.cursor_info(?)', undef, $cursor);

		$without++ if !grep { unseen($_, { info => $info }) } @reasons;
	}
	is($without, 0, "$name: each PT410 had a barrier ahead");
	cmp_ok(scalar @{ $mirror->{expired} }, '<=', scalar @reasons, "$name: and each barrier made one at most");
	return;
}

# ---- the end ----

# Again and again, until nobody is in the way for too long: a poller may wait for
# a lock behind us while another connection of its own has the one that we want.
sub insist
{
	my (@statements) = @_;

	$db->do(q{SET lock_timeout = '100ms'});
	foreach (1 .. 100)
	{
		return if eval { $db->do('BEGIN'); $_->() foreach @statements; $db->do('COMMIT'); 1 };
		die $@ unless tolerated($db);
		$db->do('ROLLBACK');
	}
	die 'somebody is in the way';
}

# What was left half done.
sub finish_detaching
{
	foreach my $partition (
		@{ $db->selectcol_arrayref('SELECT inhrelid::regclass FROM pg_inherits WHERE inhdetachpending') })
	{
		insist(sub { $db->do("ALTER TABLE events DETACH PARTITION $partition FINALIZE") });
	}
	return;
}

# One of each barrier that no later change hides.  The feeds of some columns are
# not reset by the second, so that they show what became of the first.
sub finale
{
	my $work = { resets => {} };
	my $late = connect_to($node);
	my ($partition) = grep { fetch_value($db, q{SELECT relispartition FROM pg_class WHERE relname = ?}, $_)
		  && fetch_value($db, "SELECT EXISTS (SELECT FROM $_)") } map { "events_$_" } 1 .. 3;

	$late->do('BEGIN');
	$late->do('INSERT INTO elsewhere VALUES (1)');
	insist(sub { $db->do('TRUNCATE messages') });
	$late->do('INSERT INTO messages (id, room) SELECT g, g % 3 + 1 FROM generate_series(1, 20) g');
	$late->do('COMMIT');
	insist(sub { resetting($work, $db, 'ALTER TABLE messages ADD COLUMN at_the_end int DEFAULT 1') });
	insist(sub { resetting($work, $db, "ALTER TABLE events DETACH PARTITION $partition") }) if $partition;
	return keys %{ $work->{resets} };
}

# ---- all together ----

my $seed = random_seed();
my $until = time + ($ENV{POLL_TEST_DURATION} // 10);
my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';

create_tables();
my @writers;
foreach my $number (1 .. 6)
{
	my ($special, $statements) = $number <= 3 ? (0, []) : $number <= 4 ? (0.2, \@TRUNCATES) : (0.4, \@DDL);

	push @writers, start_child("writer $number",
		sub { writer($number, $seed + $number, $until, $special, $statements) });
}
my @pollers = map {
	my $number = $_;
	start_child("poller $number", sub { poller($seed + 100 + $number, $stop_file) })
} 1 .. 3;

my @work = finish_children(@writers);
note 'transactions: ' . PollStress::writer_summary(map { $_->{count} } @work);
finish_detaching();
my @finale = finale();
append_to_file($stop_file, '');
my @reports = finish_children(@pollers);

my $barriers = read_barriers();
my $concurrently = 2 * sum0(map { $_->{count}{'concurrent detaches'} // 0 } @work) + 1;
my %may_reset = map { $_ => 1 } @finale, map { @{ $_->{resets} } } @work;
foreach my $feed (sort keys %$barriers)
{
	my @of = @{ $barriers->{$feed} };

	cmp_ok(scalar(grep { $_->{reset} && !$may_reset{ $_->{xid} } } @of),
		'<=', $feed =~ /^(events|regions)$/ ? $concurrently : 0, "$feed: only DDL resets");
	note sprintf '%s: %d resets, %d TRUNCATEs, %d of them out of order', $feed,
	  scalar(grep { $_->{reset} } @of), scalar(grep { !$_->{reset} } @of), scalar(grep { @{ $_->{late} } } @of);
}

foreach my $k (0 .. $#KINDS)
{
	my ($feeds, $scope, $where) = @{ $KINDS[$k] };
	my $name = join ' ', @$feeds, $scope // ();
	my @mirrors = map { $_->[$k] } grep { defined } @reports;
	my $rows = feed_rows($db, $feeds, $where);
	my %cursors = map { $_->{cursor} => 1 } @mirrors;

	foreach my $mirror (@mirrors)
	{
		is(differences($mirror->{rows}, $rows), '', "$name: the mirror equals the table");
		is(join("\n", @{ $mirror->{faults} }), '', "$name: nothing wrong with what it got");
		check_reasons($mirror, $name, $barriers);
		note sprintf '%s: %d polls, %d behind, %d syncs, %d expired, %d truncates, %d changes', $name,
		  @$mirror{qw(polls behind syncs)}, scalar @{ $mirror->{expired} }, @$mirror{qw(truncates delivered)};
	}
	check_cursors($db, $feeds, $scope, $name, keys %cursors);
}

ok((grep { $_->{truncates} } map { @$_ } @reports), 'there were TRUNCATEs');
ok((grep { @{ $_->{expired} } } map { @$_ } @reports), 'and resets');

done_testing();
