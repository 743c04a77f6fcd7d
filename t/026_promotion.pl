# After a promotion, or a recovery to a point in time, a cursor goes on if all that
# it has seen has happened on the new timeline, too; if not, it has expired.
#
# POLL_TEST_ROUNDS	promotions under load, 4 by default
# POLL_TEST_SEED	to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = random_seed();
srand($seed);

sub cursor_of { return fetch_value($_[0], q(SELECT poll.current_cursor(ARRAY[?])), $_[1]); }

# One of a page that was cut, in a feed of at least two rows.
sub sync_cursor { return fetch_value($_[0], q(SELECT poll.poll(ARRAY[?], max_rows => 1)->>'cursor'), $_[1]); }

# What a poll with the cursor brings: keys, or the SQLSTATE.
sub poll_with
{
	my ($session, $feed, $cursor) = @_;
	my $rows = eval {
		$session->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changes(?, ?) WHERE op <> 'skip'), undef, $feed, $cursor);
	};

	return $rows ? join ' ', @$rows : $session->state;
}

sub wait_for_tick
{
	my ($session) = @_;

	sleep 1.2;
	ok(wait_for($session, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'poll_ext worker')), 'the last tick is written');
	return;
}

sub new_standby
{
	my ($primary, $name, $conf) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$primary->backup("for_$name");
	$standby->init_from_backup($primary, "for_$name", has_streaming => 1);
	$standby->append_conf('postgresql.conf', $conf) if $conf;
	$standby->start;
	return $standby;
}

# ---- each kind of cursor ----

my $old = new_node('old', streaming => 1);
my $on_old = connect_to($old);
$on_old->do(<<'SQL');
CREATE TABLE quiet (id int PRIMARY KEY);
CREATE TABLE busy (id int PRIMARY KEY);
CREATE TABLE late (id int PRIMARY KEY);
INSERT INTO quiet VALUES (1), (2), (3);
INSERT INTO busy VALUES (1), (2), (3);
SELECT poll.track('quiet'), poll.track('busy'), poll.track('late');
INSERT INTO quiet VALUES (4);
INSERT INTO busy VALUES (4);
SQL
my $new = new_standby($old, 'new');
my $on_new = connect_to($new);

my %before = (silent => cursor_of($on_old, 'quiet'), cut => sync_cursor($on_old, 'busy'), position => cursor_of($on_old, 'busy'));
$on_old->do('INSERT INTO busy VALUES (5), (6)');
$before{page} = fetch_value($on_old, q(SELECT poll.poll('{busy}', ?, 1)->>'cursor'), $before{position});
my $open = connect_to($old);
$open->begin_work;
$open->do('INSERT INTO busy VALUES (7)');
my $late = connect_to($old);
$late->begin_work;
$late->do('INSERT INTO late VALUES (1)');
$on_old->do('INSERT INTO late VALUES (2)');
$on_old->do(q(BEGIN; INSERT INTO busy VALUES (8); PREPARE TRANSACTION 'prepared'));
$on_old->do('INSERT INTO busy VALUES (9)');
wait_for_tick($on_old);
$before{complete} = cursor_of($on_old, 'busy');
$before{late} = cursor_of($on_old, 'late');
$before{standby} = do { $old->wait_for_catchup($new, 'replay', $old->lsn('insert')); cursor_of($on_new, 'busy') };
is($before{standby}, $before{complete}, 'both servers have the same cursor');

my $last_tick = fetch_value($on_old, 'SELECT max(at) FROM poll.tick');

# What a poll since a time brings: keys, or the SQLSTATE; and the time of its answer.
sub keys_since
{
	my ($session, $at) = @_;
	my $rows = eval { $session->selectcol_arrayref(q(SELECT key->>'id' FROM poll.changes_since('busy', ?) WHERE op <> 'skip'), undef, $at) };

	return $rows ? join ' ', @$rows : $session->state;
}

sub time_of { return fetch_value($_[0], q(SELECT poll.poll('{busy}', ?)->>'timestamp'), cursor_of($_[0], 'busy')); }

# from here on they go apart
$old->wait_for_catchup($new, 'replay', $old->lsn('insert'));
$new->promote;
$on_new = connect_to($new);
my %after;
$on_old->do('INSERT INTO busy VALUES (10)');
$after{'late cut'} = sync_cursor($on_old, 'busy');
# its position is that of the first page, its rows are newer
$after{'end of a sync'} = fetch_value($on_old, q(SELECT poll.poll('{busy}', ?, 1000)->>'cursor'), $before{cut});
$after{'new change'} = cursor_of($on_old, 'busy');
$after{'part of it'} = fetch_value($on_old, q(SELECT poll.poll('{busy}', ?, 1)->>'cursor'), $before{page});
$open->commit;
$after{'late commit'} = cursor_of($on_old, 'busy');
$late->commit;
$after{'late commit of what was open at the last tick'} = cursor_of($on_old, 'late');
$on_old->do(q(ROLLBACK PREPARED 'prepared'));
$after{'rolled back there'} = fetch_value($on_old, q(SELECT poll.poll('{busy}', ?)->>'cursor'), $before{complete});
$on_old->do('INSERT INTO quiet VALUES (20)');
$after{'not silent any more'} = cursor_of($on_old, 'quiet');

is(poll_with($on_new, 'quiet', $before{silent}), '', 'a feed that was silent: nothing new');
is(poll_with($on_new, 'busy', $before{complete}), '', 'nor in one that has been quiet for a while');
is(poll_with($on_new, 'late', $before{late}), '', 'what was open and has not been seen has not happened');
is(poll_with($on_new, 'busy', $before{position}), '5 6 9', 'an older cursor has missed nothing');
is(poll_with($on_new, 'busy', $before{page}), '6 9', 'a page that was cut goes on');
is(poll_with($on_new, 'busy', $before{cut}), '2 3 4 5 6 9', 'so does a full sync');
foreach my $kind (sort keys %after)
{
	is(poll_with($on_new, $kind =~ /silent/ ? 'quiet' : $kind =~ /last tick/ ? 'late' : 'busy', $after{$kind}), 'PT410', "who has seen what never happened here starts again: $kind");
}

# the same by time: up to the last tick that both have
my $parted = time_of($on_old);
is(keys_since($on_new, $last_tick), '', 'a time that both have is good');
is(keys_since($on_new, $parted), 'PT410', 'one of the old server is not');
is(keys_since($on_new, 'now'), 'PT410', 'nor one that may be its');
is(time_of($on_new), undef, 'so the new one gives none');
ok(wait_for($on_new, q(SELECT poll.poll('{quiet}')->>'timestamp' IS NOT NULL)), 'until its worker has written a tick, though nobody writes');

# the new server uses the xids again, and delivers what it does
my $adopted = fetch_value($on_new, q(SELECT poll.poll('{busy}', ?)->>'cursor'), $before{complete});
isnt($adopted, $before{complete}, 'a cursor that goes on is one of the new timeline');
is(fetch_value($on_new, 'SELECT current FROM poll.cursor_info(?)', $adopted), 1, 'which is shown');
$on_new->do('INSERT INTO busy VALUES (?)', undef, $_) foreach 31 .. 40;
$on_new->do(q(COMMIT PREPARED 'prepared'));
is(poll_with($on_new, 'busy', $_), '8 ' . join(' ', 31 .. 40), 'everything new, and what was prepared') foreach $before{complete}, $adopted;
is(fetch_value($on_new, q(SELECT poll.poll('{busy}', ?)->>'cursor'), $before{complete}),
	cursor_of($on_new, 'busy'), 'and the cursor behind it is that of all others');
# also where nothing is open, and the second poll knows that there is nothing new
is(fetch_value($on_new, q(SELECT current FROM poll.poll('{quiet}', ?) p, poll.cursor_info(p->>'cursor')), $before{silent}), 1,
	'a cursor goes on as one of the new timeline, each time') foreach 1 .. 3;
is(fetch_value($on_new, q(SELECT poll.has_changes('{busy}', ?)), $before{complete}), 1, 'poll.has_changes() goes on, too');
wait_for_tick($on_new);
my $here = time_of($on_new);
ok(defined $here, 'then it gives times');
is(keys_since($on_new, $here), '', 'which are good');
is(keys_since($on_new, $last_tick), '8 ' . join(' ', 31 .. 40), 'so is the one that both have');
is(keys_since($on_new, $parted), 'PT410', 'and that of the old server is as before');

# a standby of the new primary, and one that follows it over the switch, agree
my $third = new_standby($new, 'third');
$new->wait_for_catchup($third, 'replay', $new->lsn('insert'));
my $on_third = connect_to($third);
is(poll_with($on_third, 'busy', $before{complete}), '8 ' . join(' ', 31 .. 40), 'a standby of the new primary goes on with old cursors');
is(poll_with($on_third, 'busy', $after{'new change'}), 'PT410', 'or not');

# a second promotion: cursors of the first timeline, and of the second
wait_for_tick($on_new);
my $second = cursor_of($on_new, 'busy');
$new->wait_for_catchup($third, 'replay', $new->lsn('insert'));
$third->promote;
$on_third = connect_to($third);
is(poll_with($on_third, 'busy', $second), '', 'after another promotion, cursors of the one before go on');
is(poll_with($on_third, 'busy', $before{complete}), '8 ' . join(' ', 31 .. 40), 'and those of the one before that');
is(poll_with($on_third, 'busy', $after{'late commit'}), 'PT410', 'or not');
is(keys_since($on_third, $here), '', 'so are times of the one before');
is(keys_since($on_third, $parted), 'PT410', 'but none that may be of a server that is lost');
is(poll_with($on_old, 'busy', $second), 'PT410', 'one from the future has expired');

# a folder that is put back keeps its timeline, but not what was done since
$on_third->disconnect;
$third->stop;
rename $third->data_dir, $third->data_dir . '.now' or die;
system_or_bail('cp', '-a', $third->data_dir . '.now', $third->data_dir);
$third->start;
$on_third = connect_to($third);
$on_third->do('INSERT INTO busy VALUES (?)', undef, $_) foreach 51 .. 60;
my $future = cursor_of($on_third, 'busy');
$on_third->disconnect;
$third->stop;
rename $third->data_dir, $third->data_dir . '.later' or die;
rename $third->data_dir . '.now', $third->data_dir or die;
$third->start;
$on_third = connect_to($third);
is(poll_with($on_third, 'busy', $future), 'PT410', 'a cursor above the next transaction has expired');
$_->disconnect foreach $on_old, $on_new, $on_third, $open, $late;
$_->stop foreach $old, $new, $third;

# ---- a standby that lags, with more open transactions than a cursor lists ----

my $many = new_node('many', streaming => 1, conf => 'max_prepared_transactions = 600');
my $on_many = connect_to($many);
$on_many->do('CREATE TABLE busy (id int PRIMARY KEY, v int)');
$on_many->do('INSERT INTO busy VALUES (1, 1)');
$on_many->do(q(SELECT poll.track('busy')));
my $older = connect_to($many);
$older->do('BEGIN');
$older->do('UPDATE busy SET v = 7');
foreach (1 .. 520)
{
	$on_many->do($_) foreach 'BEGIN', 'SELECT pg_current_xact_id()', "PREPARE TRANSACTION '$_'";
}
# a younger one that has ended, or snapshots would end before them
$on_many->do('CREATE TABLE other ()');
my $lagging = new_standby($many, 'lagging');
my $on_lagging = connect_to($lagging);
$many->wait_for_catchup($lagging, 'replay', $many->lsn('insert'));
$lagging->append_conf('postgresql.conf', q(primary_conninfo = ''));
$lagging->reload;
ok(wait_for($on_lagging, 'SELECT count(*) = 0 FROM pg_stat_wal_receiver'), 'the standby gets nothing more');
$on_many->do("ROLLBACK PREPARED '$_'") foreach 1 .. 520;
$older->do('COMMIT');
my $seen = cursor_of($on_many, 'busy');
my $passed_on = fetch_value($on_lagging, q(SELECT poll.poll('{busy}', ?)->>'cursor'), $seen);
$_->disconnect foreach $on_many, $older, $on_lagging;
$lagging->promote;
$on_lagging = connect_to($lagging);
is(poll_with($on_lagging, 'busy', $_), 'PT410', 'who has seen what is lost starts again, also if he polled here meanwhile') foreach $seen, $passed_on;
$on_lagging->disconnect;
$_->stop foreach $many, $lagging;

# ---- recovery to a point in time ----

my $archived = PostgreSQL::Test::Cluster->new('archived');
$archived->init(has_archiving => 1, allows_streaming => 1);
$archived->append_conf('postgresql.conf', "shared_preload_libraries = 'poll_ext'\n");
$archived->start;
my $db = connect_to($archived);
$db->do(<<'SQL');
CREATE EXTENSION poll_ext;
CREATE TABLE busy (id int PRIMARY KEY);
SELECT poll.track('busy');
SQL
$archived->backup('base');
$db->do('INSERT INTO busy VALUES (1), (2)');
wait_for_tick($db);
my $good = cursor_of($db, 'busy');
$db->do(q(SELECT pg_create_restore_point('here')));
$db->do('INSERT INTO busy VALUES (3), (5)');
my $lost = cursor_of($db, 'busy');
my $lost_page = fetch_value($db, q(SELECT poll.poll('{busy}', ?, 1)->>'cursor'), $good);
wait_for_tick($db);
$db->do('SELECT pg_switch_wal()');
$archived->poll_query_until('postgres', q(SELECT last_archived_wal IS NOT NULL FROM pg_stat_archiver))
  or die "nothing is archived\n";

# another timeline begins after that: the recovery has it in its history
my $promoted = new_standby($archived, 'promoted');
$archived->wait_for_catchup($promoted, 'replay', $archived->lsn('insert'));
$promoted->promote;
$promoted->safe_psql('postgres', 'INSERT INTO busy VALUES (6); SELECT pg_switch_wal()');
# in which order, nobody knows
$promoted->poll_query_until('postgres', "SELECT count(*) FILTER (WHERE name = '00000002.history') = 1 AND count(*) > 1" .
	" FROM pg_ls_dir('" . $archived->archive_dir . "') AS name WHERE name LIKE '00000002%'")
  or die "nothing is archived\n";
$promoted->stop;
$db->disconnect;
$archived->stop;

my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($archived, 'base', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target_name = 'here'\nrecovery_target_action = 'promote'\n");
$recovered->start;
$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die "it recovers for too long\n";
$db = connect_to($recovered);
is(fetch_value($db, 'SELECT count(*) FROM busy'), 2, 'recovered to a point in time');
is(poll_with($db, 'busy', $good), '', 'a cursor from before it goes on');
is(poll_with($db, 'busy', $lost), 'PT410', 'one from after it has expired');
is(poll_with($db, 'busy', $lost_page), 'PT410', 'so has one in the middle of a page');
is(fetch_value($db, 'SELECT timeline_id FROM pg_control_checkpoint()'), 3, 'in spite of what another server did after that');
$db->do('INSERT INTO busy VALUES (4)');
is(poll_with($db, 'busy', $good), '4', 'and gets what is new');
$db->disconnect;
$recovered->stop;

# ---- under load: a primary dies, a standby that lags takes over ----

my ($adopted_total, $expired_total) = (0, 0);

sub round
{
	my ($n) = @_;
	my $primary = new_node("primary$n", streaming => 1);
	my $session = connect_to($primary);
	create_items($session);
	$session->do('CREATE TABLE slow (id int PRIMARY KEY)');
	$session->do(q(SELECT poll.track('slow')));
	my $standby = new_standby($primary, "standby$n", "recovery_min_apply_delay = '300ms'\n");
	my @at = ($session, connect_to($standby));
	my @mirrors = map { PollMirror->new('items') } 1 .. 12;
	my @slow = map { PollMirror->new('slow') } 1 .. 4;

	my @writers = start_writers($primary, 4, $seed + 10 * $n, 6, may_crash => 1);
	my $end = time + 4;
	while (time < $end)
	{
		random_poll($mirrors[ rand @mirrors ], $at[ rand @at ]);
		$slow[ rand @slow ]->poll($at[ rand @at ], 10) if rand() < 0.1;
		$session->do('INSERT INTO slow VALUES (?)', undef, int(rand(1e9))) if rand() < 0.002;
		# some have stopped a while ago
		$#mirrors-- if @mirrors > 6 && rand() < 0.01 && push @slow, $mirrors[-1];
		sleep rand(0.01);
	}
	my @stopped = grep { $_->{feeds}[0] eq 'items' } @slow;
	@slow = grep { $_->{feeds}[0] eq 'slow' } @slow;
	$at[1]->disconnect;
	# the standby keeps what it has received, and has not seen the end
	$standby->promote;
	random_poll($mirrors[ rand @mirrors ], $session) foreach 1 .. 50;
	$primary->stop('immediate');
	finish_children(@writers);
	my $db_new = connect_to($standby);
	$db_new->do("ROLLBACK PREPARED '$_'") foreach @{ $db_new->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts') };
	foreach my $mirror (@mirrors, @stopped, @slow)
	{
		next if eval { $mirror->drain($db_new, 1000); 1 };
		die $@ if $db_new->state ne 'PT410';
		$mirror->expire;
		$expired_total++;
		$mirror->drain($db_new, 1000);
	}
	$adopted_total += grep { !@{ $_->{expired} } } @mirrors, @stopped, @slow;

	# and the new primary writes with the same xids
	@writers = start_writers($standby, 4, $seed + 10 * $n + 5, 2);
	$end = time + 2;
	while (time < $end)
	{
		random_poll($mirrors[ rand @mirrors ], $db_new);
		sleep rand(0.01);
	}
	finish_children(@writers);
	$_->drain($db_new, 1000) foreach @mirrors, @stopped, @slow;
	check_mirrors($db_new, map { $_->report } @mirrors, @stopped);
	is(differences($_->{rows}, table_rows($db_new, 'slow')), '', 'a slow feed is right, too') foreach @slow;
	$db_new->disconnect;
	$standby->stop;
	return;
}

round($_) foreach 1 .. $ENV{POLL_TEST_ROUNDS} // 4;
note "$adopted_total went on, $expired_total have expired";
cmp_ok($adopted_total, '>', 0, 'some went on');
cmp_ok($expired_total, '>', 0, 'some have expired');

done_testing();
