# Dumps, copies and upgrades of a database: tracking goes on at once, under the
# same registry, and the cursors from before are expired.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP ();
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @FEEDS = qw(hashed parted plain plain.ids projected quoted replicated scoped);
my $SCOPE = '{"room": 1, "I,d": "x\"1"}';

# What each feed shows, as SQL: key and data.
my %SHOWN = (
	'hashed' => q{SELECT '{"id":' || id || '}', row_to_json(t) FROM hashed AS t},
	'parted' => q{SELECT '{"id":' || id || '}', row_to_json(t) FROM parted AS t},
	'plain' => q{SELECT '{"id":' || id || '}', row_to_json(t) FROM plain AS t},
	'plain.ids' => q{SELECT '{"id":' || id || '}', '{"id":' || id || '}' FROM plain},
	'projected' => q{SELECT '{"id":' || id || '}', '{"id":' || id || ',"body":' || to_json(body) || '}' FROM projected},
	'quoted' => q{SELECT json_build_object('I,d', "I,d", 'Co\l', "Co\l"), json_build_object('body', body, 'Co\l', "Co\l")
		FROM "Sch ema"."Ta ""ble" WHERE "I,d" = 'x"1'},
	'replicated' => q{SELECT '{"id":' || id || '}', row_to_json(t) FROM replicated AS t},
	'scoped' => q{SELECT '{"id":' || id || '}', row_to_json(t) FROM scoped AS t WHERE room = 1});

my $TRACK = <<'SQL';
SELECT poll.track('hashed');
SELECT poll.track('parted', always => true);
SELECT poll.track('plain');
SELECT poll.track('plain', 'plain.ids', columns => '{id}');
SELECT poll.track('projected', columns => '{id,body}', expose_deletes => true);
SELECT poll.track('"Sch ema"."Ta ""ble"', 'quoted', columns => ARRAY['body', 'Co\l'], scope => ARRAY['I,d']);
SELECT poll.track('replicated', always => true);
SELECT poll.track('scoped', scope => '{room}');
SQL

# The ids of the feeds differ from the order of their names and have a gap.
my $SOURCE = <<'SQL' . $TRACK;
CREATE EXTENSION poll_ext;
CREATE TABLE plain (id bigint PRIMARY KEY, body text);
CREATE TABLE projected (id bigint PRIMARY KEY, body text, secret text);
CREATE TABLE replicated (id bigint PRIMARY KEY, body text);
CREATE TABLE scoped (id bigint PRIMARY KEY, room int NOT NULL, body text);
CREATE SCHEMA "Sch ema";
CREATE TABLE "Sch ema"."Ta ""ble" ("I,d" text NOT NULL, "Co\l" int NOT NULL, body text);
CREATE UNIQUE INDEX "in dex" ON "Sch ema"."Ta ""ble" ("I,d", "Co\l");
ALTER TABLE "Sch ema"."Ta ""ble" REPLICA IDENTITY USING INDEX "in dex";
CREATE TABLE parted (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE parted_high_1 PARTITION OF parted_high FOR VALUES FROM (100) TO (200);
CREATE TABLE a_partition (body text, dropped int, id bigint NOT NULL);
ALTER TABLE a_partition DROP dropped;
ALTER TABLE parted_high ATTACH PARTITION a_partition FOR VALUES FROM (200) TO (1000);
CREATE TABLE hashed (id bigint PRIMARY KEY, body text) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT poll.track('scoped', 'gone');
SELECT poll.untrack('gone');
SQL

my $ROWS = <<'SQL';
INSERT INTO hashed SELECT g, 'first' FROM generate_series(1, 10) AS g;
INSERT INTO parted SELECT g, 'first' FROM generate_series(10, 400, 10) AS g;
INSERT INTO plain SELECT g, 'first' FROM generate_series(1, 40) AS g;
INSERT INTO projected SELECT g, 'first', 'secret' FROM generate_series(1, 40) AS g;
INSERT INTO "Sch ema"."Ta ""ble" SELECT 'x"' || g % 2, g, 'first' FROM generate_series(1, 40) AS g;
INSERT INTO replicated SELECT g, 'first' FROM generate_series(1, 40) AS g;
INSERT INTO scoped SELECT g, g % 2, 'first' FROM generate_series(1, 40) AS g;
SQL

my $WRITES = <<'SQL';
INSERT INTO hashed VALUES (50, 'new');
DELETE FROM hashed WHERE id = 10;
INSERT INTO parted VALUES (500, 'new');
UPDATE parted SET id = 155 WHERE id = 10;
DELETE FROM parted WHERE id = 400;
INSERT INTO plain VALUES (50, 'new');
UPDATE plain SET body = 'other' WHERE id = 1;
DELETE FROM plain WHERE id = 40;
INSERT INTO projected VALUES (50, 'new', 'new');
UPDATE projected SET secret = 'other';
DELETE FROM projected WHERE id = 40;
INSERT INTO "Sch ema"."Ta ""ble" VALUES ('x"0', 51, 'new'), ('x"1', 51, 'new');
DELETE FROM "Sch ema"."Ta ""ble" WHERE "Co\l" IN (38, 39);
INSERT INTO replicated VALUES (50, 'new');
DELETE FROM replicated WHERE id = 40;
INSERT INTO scoped VALUES (50, 0, 'new'), (51, 1, 'new');
UPDATE scoped SET room = 2 WHERE id IN (36, 37);
SQL

# plain.ids: only what it shows; scoped and quoted: only what is in the scope
my $CHANGES = <<'TEXT';
hashed: upsert {"id":50}
hashed: delete {"id":10}
parted: upsert {"id":500}
parted: delete {"id":10}
parted: upsert {"id":155}
parted: delete {"id":400}
plain: upsert {"id":50}
plain: upsert {"id":1}
plain: delete {"id":40}
plain.ids: upsert {"id":50}
plain.ids: delete {"id":40}
projected: upsert {"id":50}
projected: delete {"id":40}
quoted: upsert {"Co\\l":51,"I,d":"x\"1"}
quoted: delete {"Co\\l":39,"I,d":"x\"1"}
replicated: upsert {"id":50}
replicated: delete {"id":40}
scoped: upsert {"id":51}
scoped: delete {"id":37}
TEXT

# As logical replication would write.
my $REPLICATED = <<'SQL';
SET session_replication_role = replica;
INSERT INTO hashed VALUES (501);
INSERT INTO parted VALUES (501);
INSERT INTO plain VALUES (501);
INSERT INTO projected VALUES (501);
INSERT INTO "Sch ema"."Ta ""ble" VALUES ('x"1', 501);
INSERT INTO replicated VALUES (501);
INSERT INTO scoped VALUES (501, 1);
RESET session_replication_role;
SQL

my $IDS = 'SELECT id, name FROM poll.feed ORDER BY id';

my $json = JSON::PP->new->canonical->allow_nonref;
my $tempdir = PostgreSQL::Test::Utils::tempdir();
my ($node, %before, $last_id, @copies);

# The value, or the SQLSTATE of the error.
sub outcome
{
	my ($db, $sql, @values) = @_;
	my $value = eval { fetch_value($db, $sql, @values) };

	return $@ ? $db->state : $value;
}

# One page of all feeds, or of some.
sub page_of
{
	my ($db, $cursor, $max_rows, @feeds) = @_;

	@feeds = @FEEDS if !@feeds;
	return decode_json(fetch_value($db, 'SELECT poll.poll(?, ?, ?, ?)',
			\@feeds, $cursor, $max_rows, scope_of(@feeds)));
}

# A scope must not name what no feed is divided by.
sub scope_of
{
	my %of = (quoted => 'I,d', scoped => 'room');
	my %wanted = map { $of{$_} ? ($of{$_} => 1) : () } @_;
	my $scope = decode_json($SCOPE);

	delete $scope->{$_} foreach grep { !$wanted{$_} } keys %$scope;
	return $json->encode($scope);
}

sub now_of { return page_of($_[0], 'now', 1, @_[ 1 .. $#_ ])->{cursor}; }

# Polls to the end; applies it to the copy, and returns cursor and changes.
sub follow
{
	my ($db, $cursor, $copy) = @_;
	my %lines;

	foreach (1 .. 100)
	{
		my $page = page_of($db, $cursor, 25);

		foreach my $feed (@FEEDS)
		{
			foreach my $change (@{ $page->{changes}{$feed} })
			{
				my $key = $json->encode($change->{key});

				push @{ $lines{$feed} }, "$feed: $change->{op} $key\n";
				delete $copy->{"$feed $key"};
				$copy->{"$feed $key"} = $json->encode($change->{data}) if $change->{op} eq 'upsert';
			}
		}
		$cursor = $page->{cursor};
		last if !$page->{has_more};
	}
	return ($cursor, join '', map { @{ $lines{$_} // [] } } @FEEDS);
}

# What a copy should be.
sub shown
{
	my ($db) = @_;
	my %rows;

	foreach my $feed (@FEEDS)
	{
		foreach my $row (@{ $db->selectall_arrayref($SHOWN{$feed}) })
		{
			my ($key, $data) = map { $json->encode(decode_json($_)) } @$row;
			$rows{"$feed $key"} = $data;
		}
	}
	return \%rows;
}

sub lines
{
	my ($db, $sql, @values) = @_;

	return join "\n", map { join '|', map { $_ // '' } @$_ } @{ $db->selectall_arrayref($sql, undef, @values) };
}

# What must be the same in a copy.
sub registry
{
	my ($db) = @_;

	return lines($db, 'SELECT f::text FROM poll.feeds AS f ORDER BY feed') . "\n"
	  . lines($db, $IDS) . "\n"
	  . lines($db, <<'SQL') . "\n" . lines($db, 'SELECT evtname, evtevent, evtenabled FROM pg_event_trigger ORDER BY 1');
SELECT tgrelid::regclass, tgname, tgenabled, tgparentid <> 0 FROM pg_trigger
 WHERE tgname ~ '^poll_|^invalidate$' ORDER BY tgrelid::regclass::text, tgname
SQL
}

# Cursors of each kind; cut: after a part of the rows that were written since.
sub cursors_of
{
	my ($db, $since) = @_;

	return (
		'complete' => now_of($db),
		'full sync' => page_of($db, undef, 1)->{cursor},
		defined $since ? ('cut' => page_of($db, $since, 1)->{cursor}) : ());
}

sub check_expired
{
	my ($how, $db, %cursors) = @_;
	my $scope = scope_of(@FEEDS);

	foreach my $state (sort keys %cursors)
	{
		is( outcome($db, 'SELECT poll.poll(?, ?, 100, ?)', \@FEEDS, $cursors{$state}, $scope),
			'PT410', "$how: a cursor from before, $state, is expired");
		is(outcome($db, 'SELECT poll.has_changes(?, ?, ?)', \@FEEDS, $cursors{$state}, $scope),
			'PT410', "$how: and has_changes says so");
	}
	return;
}

# What is written right after it comes, exactly.
sub check_goes_on
{
	my ($how, $db) = @_;
	my %copy;
	my $now = now_of($db);
	my ($cursor) = follow($db, undef, \%copy);
	my (undef, $changes);

	is($cursor, $now, "$how: a full sync ends where now is");
	is(differences(\%copy, shown($db)), '', "$how: it gives the tables");
	$db->do($WRITES);
	($cursor, $changes) = follow($db, $cursor, \%copy);
	is($changes, $CHANGES, "$how: what is written after it is delivered");
	is(differences(\%copy, shown($db)), '', "$how: the copy equals the tables");

	$db->do($REPLICATED);
	(undef, $changes) = follow($db, $cursor, \%copy);
	is($changes, qq(parted: upsert {"id":501}\nreplicated: upsert {"id":501}\n),
		"$how: what replication writes is delivered where it was asked for");
	return;
}

# What a command does to those who poll a feed: ops, or the SQLSTATE.
sub effect_of
{
	my ($db, $sql, $feed) = @_;
	my $cursor = now_of($db, $feed);
	my $page;

	return $db->state if !eval { $db->do($sql); 1 };
	$page = eval { page_of($db, $cursor, 100, $feed) };
	return $@ ? $db->state : join ' ', map { $_->{op} } @{ $page->{changes}{$feed} };
}

sub check_barriers
{
	my ($how, $db) = @_;
	my @expected = (
		[ 'plain', 'VACUUM (FULL, FREEZE) poll.feed', '' ],
		[ 'plain', 'ALTER TABLE plain SET (fillfactor = 50)', '' ],
		[ 'quoted', 'ALTER TABLE "Sch ema"."Ta ""ble" SET (fillfactor = 50)', '' ],
		[ 'parted', 'ALTER TABLE parted ALTER body SET STATISTICS 10', '' ],
		[ 'hashed', 'ALTER TABLE hashed ALTER body SET STATISTICS 10', '' ],
		[ 'plain', 'ALTER TABLE plain ADD extra int', 'PT410' ],
		[ 'plain.ids', 'ALTER TABLE plain ADD extra_2 int', '' ],
		[ 'quoted', 'ALTER TABLE "Sch ema"."Ta ""ble" RENAME "I,d" TO other', '2BP01' ],
		[ 'quoted', 'ALTER TABLE "Sch ema"."Ta ""ble" ALTER body TYPE varchar', 'PT410' ],
		[ 'scoped', 'ALTER TABLE scoped DROP room', '2BP01' ],
		[ 'plain.ids', 'TRUNCATE plain', 'truncate' ],
		[ 'replicated', 'TRUNCATE replicated', 'truncate' ],
		[ 'parted', 'TRUNCATE a_partition', 'PT410' ],
		[ 'parted', 'TRUNCATE parted', 'truncate' ],
		[ 'hashed', 'TRUNCATE hashed', 'truncate' ]);

	foreach (@expected)
	{
		my ($feed, $sql, $effect) = @$_;
		is(effect_of($db, $sql, $feed), $effect, "$how: $feed after $sql");
	}
	return;
}

sub check_track
{
	my ($how, $db) = @_;
	my $cursor = now_of($db, 'plain');

	$db->do('SELECT poll.untrack(feed) FROM poll.feeds');
	is( fetch_value($db, q{SELECT count(*) FROM pg_trigger WHERE tgname ~ '^poll_'}), 0,
		"$how: untrack leaves no trigger");
	is(outcome($db, q{SELECT poll.poll('{plain}', ?)}, $cursor), 'PT404', "$how: nor a feed");
	$db->do("CREATE TABLE another (id int PRIMARY KEY); SELECT poll.track('another'); $TRACK");
	is(outcome($db, q{SELECT poll.poll('{plain}', ?)}, $cursor),
		'PT410', "$how: tracked again, the cursor is expired");
	is( lines($db, $IDS),
		join("\n", map { ++$last_id . "|$_" } 'another', @FEEDS),
		"$how: with new ids");
	$last_id -= 1 + @FEEDS;
	is(effect_of($db, 'INSERT INTO plain VALUES (1)', 'plain'), 'upsert', "$how: and delivered");
	return;
}

sub check_copy
{
	my ($how, $node, $database, %cursors) = @_;
	my $db = connect_to($node, $database);

	is(registry($db), $before{registry}, "$how: the registry is the same");
	check_expired($how, $db, %{ $before{cursors} }, %cursors);
	check_goes_on($how, $db);
	check_barriers($how, $db);
	check_track($how, $db);
	$db->disconnect;
	return;
}

# Runs a command, which must not complain.  (PostgreSQL cannot drop the keys of
# partitions one by one, and knows the role that initdb made.)
sub run_well
{
	my ($how, @command) = @_;
	my (undef, $errors) = run_command(\@command);

	$errors =~ s/^pg_restore: error: .*cannot drop inherited constraint.*\nCommand was: .*\n+//mg;
	$errors =~ s/^pg_restore: warning: errors ignored.*//m;
	$errors =~ s/^psql:.*ERROR:  role "\w+" already exists$//m;
	is($errors, '', "$how: no errors");
	return;
}

sub psql_file { return ('psql', '-Xq', '-o', "$tempdir/output", '-f', "$tempdir/$_[0]"); }

# Returns how to connect to it.
sub create_database
{
	my ($name, $option) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name " . ($option // ''));
	push @copies, $name;
	return $node->connstr($name);
}

sub cursors_of_database
{
	my ($server, $database) = @_;
	my $db = connect_to($server, $database);
	my %cursors = cursors_of($db);

	$db->disconnect;
	return map { ("$_, of the database before" => $cursors{$_}) } keys %cursors;
}

$node = new_node('old');
$node->safe_psql('postgres', 'DROP EXTENSION poll_ext; DROP SCHEMA poll');
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', $SOURCE);
my $db = connect_to($node, 'shop');
my $start = now_of($db);
$db->do($ROWS);
$before{cursors} = { cursors_of($db, $start) };
$before{registry} = registry($db);
$before{ids} = lines($db, $IDS);
like($before{registry}, qr/^$_\|A/m, "$_ is enabled always")
  foreach 'poll.feed\|invalidate', 'parted\|poll_capture_3', 'parted_low\|poll_truncate_3', 'poll_ddl_end\|ddl_command_end',
  'poll_ddl_drop\|sql_drop', 'poll_ddl_rewrite\|table_rewrite';
$last_id = fetch_value($db, 'SELECT last_value FROM poll.feed_id_seq');
$db->disconnect;

# ---- a dump as a script ----

run_well('dump', 'pg_dump', '-d', $node->connstr('shop'), '-f', "$tempdir/dump.sql");
run_well('psql', psql_file('dump.sql'), '-v', 'ON_ERROR_STOP=1', '-d', create_database('restored'));
check_copy('psql', $node, 'restored');

# ---- an archive, in parallel, and once more into the same database ----

run_well('dump -Fc', 'pg_dump', '-d', $node->connstr('shop'), '-Fc', '-f', "$tempdir/dump.fc");
my $parallel = create_database('parallel');
# section by section: else a partition's data may come after the root's trigger, and
# before its key
run_well('-j', 'pg_restore', '--exit-on-error', '-j', '2', "--section=$_", '-d', $parallel, "$tempdir/dump.fc")
  foreach 'pre-data', 'data', 'post-data';
create_database($_, 'TEMPLATE parallel') foreach qw(cleaned kept);
check_copy('-j', $node, 'parallel');

my @clean = ('pg_restore', '--clean', '--if-exists', "$tempdir/dump.fc", '-d');
my %cursors = cursors_of_database($node, 'cleaned');
run_well('--clean', @clean, $node->connstr('cleaned'));
check_copy('--clean', $node, 'cleaned', %cursors);

# ---- an archive, in orders that a parallel restore may happen upon ----

# triggers before the keys, and what they belong to before or after them
my ($list) = run_command([ 'pg_restore', '-l', "$tempdir/dump.fc" ]);
my (@registry, @data, @triggers, @tables, @rest);
foreach (split /^/m, "$list\n")
{
	push @{ /(TABLE DATA|SEQUENCE SET) poll / ? \@registry : / TABLE DATA / ? \@data : / TRIGGER / ? \@triggers
		: / (CONSTRAINT|INDEX|INDEX ATTACH) / ? \@rest : \@tables }, $_;
}
my %order = (
	'registry first' => [ @tables, @registry, @data, @triggers, @rest ],
	'registry last' => [ @tables, @data, @triggers, @rest, reverse @registry ]);
foreach my $how (sort keys %order)
{
	my $name = $how =~ tr/ /_/r;

	append_to_file("$tempdir/$name", join '', @{ $order{$how} });
	run_well($how, 'pg_restore', '--exit-on-error', '-L', "$tempdir/$name", '-d', create_database($name),
		"$tempdir/dump.fc");
	check_copy($how, $node, $name);
}

# ---- once more into a database that keeps the extension ----

# Another tracked table keeps the extension, and with it the epoch; the feeds
# have the ids that they had before, and come when their triggers are there.
$db = connect_to($node, 'kept');
$db->do('CREATE TABLE another (id int PRIMARY KEY)');
$db->do(q{SELECT poll.track('another')});
my %now = map { $_ => now_of($db, $_) } @FEEDS;
$db->do('DELETE FROM plain');
$db->disconnect;
like((run_command([ @clean, $node->connstr('kept'), '-L', "$tempdir/registry_last" ]))[1],
	qr/cannot drop extension poll_ext/, '--clean: the extension stays, since another table is tracked');
$db = connect_to($node, 'kept');
is(lines($db, $IDS), "$before{ids}\n" . ($last_id + 1) . '|another', '--clean: with the same ids');
foreach my $feed (@FEEDS)
{
	is(outcome($db, 'SELECT poll.poll(ARRAY[?], ?, 100, ?)', $feed, $now{$feed}, scope_of($feed)),
		'PT410', "--clean: the cursor of $feed is expired all the same");
}
$db->disconnect;

# ---- a table without the registry ----

# Its triggers log nothing, not in a feed that has their number either, and are
# no obstacle to tracking it.
run_well('dump -t', 'pg_dump', '-t', 'plain', '-t', 'replicated', '-d', $node->connstr('shop'),
	'-f', "$tempdir/table.sql");
create_database('table_only');
$node->safe_psql('table_only', 'CREATE EXTENSION poll_ext; CREATE TABLE other (id int PRIMARY KEY)');
run_well('-t', psql_file('table.sql'), '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('table_only'));
$db = connect_to($node, 'table_only');
my $triggers = q{SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = ?::regclass AND tgname ~ '^poll_' ORDER BY 1};
is(lines($db, $triggers, 'plain'), <<'TEXT' =~ s/\n$//r, '-t: the table has its triggers');
poll_capture_4|O
poll_capture_5|O
poll_truncate_4|O
poll_truncate_5|O
TEXT
$db->do(q{SELECT poll.track('other', 'other.' || g) FROM generate_series(1, 4) AS g});
is(effect_of($db, 'INSERT INTO plain VALUES (60); TRUNCATE plain', 'other.4'), '', '-t: they log nothing');
is(effect_of($db, 'INSERT INTO other VALUES (60)', 'other.4'),
	'upsert', '-t: which other.4, of the same id, would show');
$db->do(q{SELECT poll.track('plain'), poll.track('other', 'other.6'), poll.track('other', 'other.7')});
$db->do(q{SELECT poll.track('replicated')});
is(effect_of($db, 'INSERT INTO plain VALUES (61)', 'plain'), 'upsert', '-t: it can be tracked');
is(effect_of($db, 'TRUNCATE plain', 'plain'), 'truncate', '-t: with TRUNCATE');
is(lines($db, $triggers, 'replicated'), "poll_capture_8|O\npoll_truncate_8|O", '-t: with always as it was asked for');
$db->disconnect;

# ---- only data, past the triggers ----

create_database('data_only', 'TEMPLATE shop');
$db = connect_to($node, 'data_only');
$db->do('DELETE FROM replicated');
$db->do('DELETE FROM parted_low');
%now = map { $_ => now_of($db, $_) } qw(parted replicated);
$db->disconnect;
run_well('--data-only', 'pg_restore', '--data-only', '--disable-triggers', '-t', 'replicated', '-t', 'parted_low',
	'--exit-on-error', '-d', $node->connstr('data_only'), "$tempdir/dump.fc");
$db = connect_to($node, 'data_only');
foreach my $feed (sort keys %now)
{
	is(outcome($db, 'SELECT poll.poll(ARRAY[?], ?)', $feed, $now{$feed}),
		'PT410', "--data-only: what came without a trigger expires the cursor of $feed");
}
$db->disconnect;
check_copy('--data-only', $node, 'data_only');

# ---- a copy ----

create_database('copy', 'TEMPLATE shop');
check_copy('TEMPLATE', $node, 'copy');

# ---- an upgrade; then everything into that cluster ----

$node->safe_psql('postgres', "DROP DATABASE $_") foreach @copies;
run_well('pg_dumpall', 'pg_dumpall', '--no-sync', '-d', $node->connstr('postgres'), '-f', "$tempdir/all.sql");
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'poll_ext'\n");
$node->stop;
chdir $tempdir;
run_well('pg_upgrade', 'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir,
	'-b', $node->config_data('--bindir'), '-B', $new->config_data('--bindir'),
	'-s', $new->host, '-p', $node->port, '-P', $new->port);
$new->start;
%cursors = cursors_of_database($new, 'shop');
check_copy('pg_upgrade', $new, 'shop');

$new->safe_psql('postgres', 'DROP DATABASE shop');
run_well('pg_dumpall', psql_file('all.sql'), '-d', $new->connstr('postgres'));
check_copy('pg_dumpall', $new, 'shop', %cursors);

done_testing();
