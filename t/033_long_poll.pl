# Long polls: a request with wait= is answered when there is news, or that time is over;
# one session of a gateway waits for all.  Commits, savepoints, two-phase commits, other
# scopes; cancel, termination, restart, standby; clients that go away; and mirrors.
#
# POLL_TEST_DURATION	seconds of the stress, 8 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DBD::Pg ':async';
use IO::Select;
use PollGateway;
use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

skip_without_gateway();
# sessions are to be told by their program
delete $ENV{PGAPPNAME};
# whoever uses memory that was freed shall notice
$ENV{MALLOC_PERTURB_} = 165;

my $seed = random_seed();
my $duration = $ENV{POLL_TEST_DURATION} // 8;
srand($seed);

my $node = new_node('long_poll', streaming => 1);
my $db = connect_to($node);
$db->do(<<'SQL');
CREATE TABLE rooms (id int PRIMARY KEY, room int, v int DEFAULT 0);
INSERT INTO rooms SELECT i, i % 10 FROM generate_series(1, 100) AS i;
SELECT poll.track('rooms'), poll.track('rooms', 'room', scope => '{room}');
SQL

sub cursor_of { my ($feed, $scope) = @_; return fetch_value($db, 'SELECT poll.current_cursor(?, ?::jsonb)', "{$feed}", $scope); }

# ---- poll.respond() alone ----

my $other = connect_to($node);

# Calls poll.respond() in another session, does something meanwhile, and returns status,
# number of changes, and how long it took.
sub respond_while
{
	my ($query, $do, %option) = @_;
	my $statement = $other->prepare(q(SELECT status, body::json->'changes'->'rooms' AS changes FROM poll.respond(jsonb_build_object('method', ?::text, 'query', ?::text))),
		{ pg_async => PG_ASYNC });
	my $start = time;

	$statement->execute($option{method} // 'GET', $query);
	wait_for($db, q(SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = ?), $other->{pg_pid}) if $do;
	$do->() if $do;
	# newer drivers do not die of an error here
	eval { $statement->pg_result };
	my ($status, $changes) = eval { $statement->fetchrow_array };
	return $statement->state || $other->state if !defined $status;
	return ($status, $changes ? scalar @{ decode_json($changes) } : undef, time - $start);
}

my $cursor = cursor_of('rooms');
my ($status, $changes, $seconds) = respond_while("feeds=rooms&cursor=$cursor&wait=20", sub { $db->do('UPDATE rooms SET v = 1 WHERE id = 1') });
is("$status $changes", '200 1', 'it waits for news');
cmp_ok($seconds, '<', 10, 'and no longer');
$cursor = cursor_of('rooms');
($status, $changes, $seconds) = respond_while("feeds=rooms&cursor=$cursor&wait=0.3", undef);
is("$status $changes", '200 0', 'or for that time');
cmp_ok($seconds, '>=', 0.29, 'not less');
foreach (["cursor=$cursor&wait=0", 200], ['wait=20', 200], ['cursor=now&wait=20', 200], ["cursor=$cursor&wait=-1", 400], ["cursor=$cursor&wait=x", 400],
	["cursor=$cursor&wait=NaN", 400], ['cursor=x&wait=20', 400])
{
	my ($query, $want) = @$_;
	($status, $changes, $seconds) = respond_while("feeds=rooms&$query", undef);
	is($status, $want, "$query: $want");
	cmp_ok($seconds, '<', 5, 'at once');
}
isnt((respond_while("feeds=rooms&cursor=$cursor&wait=20", sub { $db->do('SELECT pg_cancel_backend(?)', undef, $other->{pg_pid}) }))[0], 200, 'it can be canceled');
$other->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
($status, $changes, $seconds) = respond_while("feeds=rooms&cursor=$cursor&wait=20", undef);
cmp_ok($seconds, '<', 5, 'who would see nothing new does not wait');
$other->do('ROLLBACK');

# many feeds, and news at once
$db->do("CREATE TABLE many_$_ (id int PRIMARY KEY); SELECT poll.track('many_$_')") foreach 1 .. 60;
my $feeds = join ',', map { "many_$_" } 1 .. 60;
$cursor = fetch_value($db, 'SELECT poll.current_cursor(?)', "{$feeds}");
$db->do('INSERT INTO many_7 VALUES (1)');
is((respond_while("feeds=$feeds&cursor=$cursor&wait=5", undef))[0], 200, 'news of one of many feeds');
$cursor = cursor_of('rooms');

# ---- signals ----

sub suspend
{
	my ($query, $ms) = @_;
	my $row = $db->selectrow_hashref(q(SELECT * FROM poll.respond(jsonb_build_object('query', ?::text, 'suspend', ?::int))), undef, $query, $ms // 10000);

	return $row->{status} // do { my ($left, $signals) = split / /, $row->{body}, 2; wantarray ? ($left, $signals) : $signals };
}

# Those of these signals that were sent, within that time.
sub changed
{
	my ($signals, $ms) = @_;

	return fetch_value($db, q(SELECT body FROM poll.respond(jsonb_build_object('wait_for', ?::text, 'timeout', ?::int))), $signals, $ms // 0);
}

$cursor = cursor_of('rooms');
my ($left, $signals) = suspend("feeds=rooms&cursor=$cursor&wait=20");
is($left, 10000, 'a gateway is told how long to wait');
like($signals, qr/^\d+:\d+$/, 'and for what');
is((suspend("feeds=rooms&cursor=$cursor&wait=5"))[0], 5000, 'as the client says');
is(changed($signals), '', 'nothing was sent');
$other->begin_work;
$other->do('UPDATE rooms SET v = 2 WHERE id = 1');
is(changed($signals), '', 'nor by what is not committed');
$other->rollback;
$other->begin_work;
$other->do('SAVEPOINT s');
$other->do('UPDATE rooms SET v = 2 WHERE id = 1');
$other->do('ROLLBACK TO s');
$other->commit;
is(changed($signals), '', 'or rolled back');
$other->begin_work;
$other->do(q(INSERT INTO rooms SELECT i, 1 FROM generate_series(1001, 600000) AS i));
$other->rollback;
is(changed($signals), '', 'also if much was written to the log before that');
is(suspend("feeds=rooms&cursor=$cursor&wait=20"), $signals, 'so it waits for the same');
$db->do('UPDATE rooms SET v = 2 WHERE id = 1');
isnt(changed($signals), '', 'a commit sends one');
is(suspend("feeds=rooms&cursor=$cursor&wait=20"), 200, 'then there is news');
$cursor = cursor_of('rooms');
$signals = suspend("feeds=rooms&cursor=$cursor&wait=20");
$db->do('BEGIN');
$db->do('UPDATE rooms SET v = 3 WHERE id = 1');
$db->do(q(PREPARE TRANSACTION 'p'));
is(changed($signals), '', 'what is prepared sends none');
$db->do(q(COMMIT PREPARED 'p'));
isnt(changed($signals), '', 'until it is committed');
my ($signal, $count) = split /:/, changed($signals);
$db->do('SELECT poll.respond(?::jsonb)', undef, qq({"wake": $signal}));
is(changed("$signal:$count"), "$signal:" . ($count + 1), 'a gateway can send one itself');
# a count of nobody: of a standby that was asked, while a primary waits
my $began = time;
is(changed("$signal:-1", 5000), "$signal:" . ($count + 1), 'a count that is not known is told');
cmp_ok(time - $began, '>=', 0.2, 'after a moment');
$signals = suspend("feeds=rooms&cursor=" . cursor_of('rooms') . '&wait=20');
my $others = ($signal + 1) % 262144;
$db->do('UPDATE rooms SET v = v + 1 WHERE id = 60');
$began = time;
like(changed("$others:-1 $signals", 5000), qr/^(?!$others:)\d+:\d+$/, 'others need not wait for that');
cmp_ok(time - $began, '<', 0.2, 'at all');
# too many scopes at once count for all
$signals = suspend('feeds=room&cursor=' . cursor_of('room', '{"room": 3}') . '&scope={"room": 3}&wait=20');
$db->do('INSERT INTO rooms SELECT i, i FROM generate_series(1001, 1063) AS i');
is(changed($signals), '', 'other scopes, as many as a commit remembers');
$db->do('INSERT INTO rooms SELECT i, i FROM generate_series(1101, 1200) AS i');
isnt(changed($signals), '', 'and more than that');
$db->do('DELETE FROM rooms WHERE id > 1000');
foreach my $bad ('x', '1', '1:', '262144:0', '-1:0', '1:2 ', '1:2  3:4', '1:x', '1:2;3:4', join ' ', ('1:1') x 524289)
{
	eval { changed($bad) };
	is($db->state, 'PT400', 'no signals: ' . substr $bad, 0, 10);
}

# the order: counts first, then a look; a commit in between is news, or another count
my $race = start_child('racer', sub {
	my $racer = connect_to($node);
	# the next one must not make up for one that was missed; with the lock, one commits
	foreach (1 .. 2000)
	{
		$racer->do('SELECT pg_advisory_lock(1)');
		$racer->do('UPDATE rooms SET v = v + 1 WHERE id = 50');
		$racer->do('SELECT pg_advisory_unlock(1)');
		sleep rand(0.003);
	}
	return 1;
});
$db->do(<<'SQL');
CREATE FUNCTION look(n int, OUT missed int, OUT looked int) LANGUAGE plpgsql AS $$
DECLARE
	seen text;
	answer record;
BEGIN
	missed := 0;
	looked := 0;
	FOR i IN 1 .. n LOOP
		seen := poll.current_cursor('{rooms}');
		SELECT * INTO answer FROM poll.respond(jsonb_build_object('query', 'feeds=rooms&wait=20&cursor=' || seen, 'suspend', 10000));
		CONTINUE WHEN answer.status IS NOT NULL;
		looked := looked + 1;
		CONTINUE WHEN NOT poll.has_changes('{rooms}'::text[], seen);
		-- what is visible is counted a moment later
		PERFORM pg_advisory_lock(1);
		SELECT missed + (body = '')::int INTO missed
			FROM poll.respond(jsonb_build_object('wait_for', split_part(answer.body, ' ', 2), 'timeout', 0));
		PERFORM pg_advisory_unlock(1);
	END LOOP;
END $$;
SQL
my ($missed, $looked) = $db->selectrow_array('SELECT * FROM look(60000)');
is($missed, 0, 'nothing comes unheard');
cmp_ok($looked, '>', 10000, 'in many looks');
finish_children($race);

# ---- the gateway ----

my $gateway = start_gateway($node, '-c', 4);

# who comes while others wait is waited for at once, also from the start, and if there is
# always news for somebody
sub room_path { my ($room) = @_; return poll_path(20, 'room', qq({"room": $room})); }
my $busy_end = PostgreSQL::Test::Utils::tempdir() . '/busy_end';
my $busy = start_child('busy', sub {
	my $writer = connect_to($node);
	until (-e $busy_end) { $writer->do('UPDATE rooms SET v = v + 1 WHERE id = 8'); sleep 0.15; }
	return 1;
});
my $follower = start_child('follower', sub {
	$db = connect_to($node);
	$gateway->get(room_path(8)) until -e $busy_end;
	return 1;
});
ok(wait_until_waiting(1), 'one waits');
my $late = 0;
foreach (1 .. 20)
{
	my $newcomer = start_request(room_path(7));

	sleep 0.02;
	my $changed_at = time;
	$db->do('UPDATE rooms SET v = v + 1 WHERE id = 7');
	$gateway->receive($newcomer);
	$late += time - $changed_at;
}
note sprintf 'after %.0f ms', $late * 50;
cmp_ok($late / 20, '<', 0.06, 'who comes later hears of a change as soon');
append_to_file($busy_end, '');
finish_children($busy, $follower);

END { diag $gateway->log if $gateway && $? != 0; }

# A client that waits
sub start_request
{
	my ($path, %headers) = @_;
	my $socket = $gateway->connection;

	print $socket "GET $path HTTP/1.1\r\nHost: test\r\n" . join('', map { "$_: $headers{$_}\r\n" } keys %headers) . "\r\n";
	$socket->flush;
	return $socket;
}

sub is_answered { my ($socket, $timeout) = @_; return IO::Select->new($socket)->can_read($timeout // 0) ? 1 : 0; }
sub wait_until_waiting { my ($n) = @_; foreach (1 .. 200) { return 1 if $gateway->metric('poll_gateway_waiting_clients') == $n; sleep 0.05; } return 0; }
sub changes_in { my ($answer, $feed) = @_; return $answer->{status} == 200 ? scalar @{ decode_json($answer->{body})->{changes}{ $feed // 'rooms' } } : $answer->{status}; }
sub poll_path { my ($wait, $feed, $scope) = @_; return "/poll?feeds=" . ($feed // 'rooms') . '&cursor=' . cursor_of($feed // 'rooms', $scope) . ($scope ? '&scope=' . $scope =~ s/"/%22/gr =~ s/ /%20/gr =~ s/\{/%7B/r =~ s/\}/%7D/r : '') . "&wait=$wait"; }

my $socket = start_request(poll_path(20));
ok(wait_until_waiting(1), 'a client waits');
ok(!is_answered($socket, 0.3), 'while there is no news');
$db->do('UPDATE rooms SET v = 4 WHERE id = 1');
is(changes_in($gateway->receive($socket)), 1, 'and gets it');
ok(wait_until_waiting(0), 'then it waits no more');
my $start = time;
$socket = start_request(poll_path(0.5));
is(changes_in($gateway->receive($socket)), 0, 'or nothing, when its time is over');
cmp_ok(time - $start, '>=', 0.45, 'not before');
my $path = poll_path(0.3);
my $tag = $gateway->get($path =~ s/&wait.*//r)->{headers}{etag};
$start = time;
$socket = start_request($path, 'If-None-Match' => $tag);
is($gateway->receive($socket)->{status}, 304, 'that is 304, if it has the tag');
cmp_ok(time - $start, '>=', 0.25, 'after its time, too');

# other methods
$path = poll_path(20);
foreach my $method ('HEAD', 'POST')
{
	my ($url, $body) = $method eq 'HEAD' ? ($path, '') : ('/poll', JSON::PP->new->encode({ feeds => ['rooms'], cursor => $path =~ s/.*cursor=([^&]*).*/$1/r, wait => 20 }));
	my $length = length $body;

	$socket = $gateway->connection;
	print $socket "$method $url HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n" . ($length ? "Content-Length: $length\r\n" : '') . "\r\n$body";
	$socket->flush;
	ok(wait_until_waiting(1), "$method waits");
	$db->do('UPDATE rooms SET v = v + 1 WHERE id = 1');
	is($gateway->receive($socket, $method eq 'HEAD')->{status}, 200, 'until there is news');
	$path = poll_path(20);
}

# a connection that goes on, and then goes away
$socket = $gateway->connection;
foreach my $n (1 .. 3)
{
	print $socket 'GET ' . poll_path(20) . " HTTP/1.1\r\nHost: test\r\n\r\n";
	$socket->flush;
	ok(wait_until_waiting(1), "the same connection, wait $n");
	next if $n == 3;
	$db->do('UPDATE rooms SET v = v + 1 WHERE id = 1');
	is(changes_in($gateway->receive($socket)), 1, 'its news');
}
close $socket;
ok(wait_until_waiting(0), 'its end');
# and one that goes away while it is asked for
$socket = $gateway->connection;
print $socket 'GET ' . poll_path(20) . " HTTP/1.1\r\nHost: test\r\n\r\n";
$socket->flush;
ok(wait_until_waiting(1), 'a client that waits');
$db->do('UPDATE rooms SET v = v + 1 WHERE id = 1');
is(changes_in($gateway->receive($socket)), 1, 'gets its news');
$path = poll_path(20);
my $sessions = $db->selectcol_arrayref(q(SELECT pid FROM pg_stat_activity WHERE application_name = 'poll-gateway'));
kill 'STOP', @$sessions;
print $socket "GET $path HTTP/1.1\r\nHost: test\r\n\r\n";
$socket->flush;
sleep 0.2;
close $socket;
sleep 0.2;
kill 'CONT', @$sessions;
sleep 0.5;
is($gateway->metric('poll_gateway_waiting_clients'), 0, 'asks again, goes, and is forgotten');
unlike($gateway->get('/metrics')->{body}, qr/status="503"/, 'without an answer');

# those of other scopes wait on
my %rooms = map { $_ => start_request(poll_path(20, 'room', qq({"room": $_}))) } 1 .. 5;
ok(wait_until_waiting(5), 'clients of different rooms');
$db->do('UPDATE rooms SET v = 5 WHERE id = 3');
is(changes_in($gateway->receive($rooms{3}), 'room'), 1, 'the one of the room gets it');
ok(!is_answered($rooms{$_}), 'another one does not') foreach 1, 2, 4, 5;
ok(wait_until_waiting(4), 'they wait on');
$db->do('UPDATE rooms SET v = 5 WHERE id IN (1, 2, 4, 5)');
is(changes_in($gateway->receive($rooms{$_}), 'room'), 1, 'until it is theirs') foreach 1, 2, 4, 5;

# many, one commit
my @many = map { start_request(poll_path(20)) } 1 .. 500;
ok(wait_until_waiting(500), '500 clients');
is(fetch_value($db, q(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'poll-gateway')), 5, 'for which five sessions are enough');
$db->do('UPDATE rooms SET v = 6 WHERE id = 1');
is(join(' ', keys %{ { map { changes_in($gateway->receive($_)) => 1 } @many } }), '1', 'all get what one commit brings');

# who goes away is forgotten
@many = map { start_request(poll_path(20)) } 1 .. 50;
ok(wait_until_waiting(50), 'clients wait');
close $_ foreach @many;
ok(wait_until_waiting(0), 'and go away');

# also in the moment in which there is news
@many = map { start_request(poll_path(20)) } 1 .. 20;
ok(wait_until_waiting(20), 'clients wait');
kill 'STOP', $gateway->{pid};
$db->do('UPDATE rooms SET v = 6 WHERE id = 2');
sleep 0.2;
close $_ foreach @many;
kill 'CONT', $gateway->{pid};
ok(wait_until_waiting(0), 'and go away when there is news');

# one that fails does not end the wait of others
$db->do(q(CREATE TABLE bad (id int PRIMARY KEY, v int); INSERT INTO bad VALUES (1, 1); SELECT poll.track('bad');
	CREATE ROLE gw LOGIN; GRANT EXECUTE ON FUNCTION poll.respond TO gw; GRANT SELECT ON rooms, bad TO gw;
	CREATE POLICY fails ON bad USING (1 / (v - v) = 0); ALTER TABLE bad ENABLE ROW LEVEL SECURITY));
my $strict = start_gateway($node, '-c', 2, '-d', sprintf('host=%s port=%d dbname=postgres user=gw', $node->host, $node->port));
my $lenient = $gateway;
$gateway = $strict;
ok(wait_for($db, q(SELECT count(*) = 3 FROM pg_stat_activity WHERE usename = 'gw')), 'another gateway');
my $bad_path = poll_path(20, 'bad');
$db->do('UPDATE bad SET v = 2');
kill 'STOP', $gateway->{pid};
@many = map { start_request($_) } (poll_path(20)) x 3, $bad_path, (poll_path(20)) x 2;
sleep 0.2;
kill 'CONT', $gateway->{pid};
is($gateway->receive($many[3])->{status}, 500, 'a poll that fails');
ok(wait_until_waiting(5), 'does not end those that came with it');
$gateway->stop;
$gateway = $lenient;

# answers that are shared for a time are no news
$db->do(q(ALTER ROLE CURRENT_USER SET poll_ext.cache_ttl = '2 s'));
$strict = start_gateway($node, '-c', 2);
$gateway = $strict;
$gateway->get(poll_path(0) =~ s/&wait.*//r);
$path = poll_path(10);
$socket = start_request($path);
ok(wait_until_waiting(1), 'a client waits, where answers are shared');
$db->do('UPDATE rooms SET v = v + 1 WHERE id = 3');
is(changes_in($gateway->receive($socket)), 1, 'and gets what is new');
$gateway->stop;
$gateway = $lenient;
$db->do(q(ALTER ROLE CURRENT_USER RESET poll_ext.cache_ttl));

# rate limits
$db->do(q(SELECT poll.set_rate_policy('poll', quota => 2, per => '1 hour', algorithm => 'strict')));
$socket = start_request(poll_path(20));
ok(wait_until_waiting(1), 'a wait costs nothing');
$db->do('UPDATE rooms SET v = 7 WHERE id = 1');
like($gateway->receive($socket)->{headers}{ratelimit}, qr/^"poll";r=1;/, 'until there is an answer');
$gateway->get(poll_path(0));
is($gateway->get(poll_path(20))->{status}, 429, 'who has spent his quota does not wait');
is(fetch_value($db, q(SELECT denials FROM poll.stat_rate WHERE endpoint = 'poll')), 1, 'which is counted');
$db->do(q(SELECT poll.drop_rate_policy('poll')));

# the session that waits goes away, and the server
$socket = start_request(poll_path(20));
ok(wait_until_waiting(1), 'a client waits');
foreach my $what ('pg_cancel_backend', 'pg_terminate_backend')
{
	ok(wait_for($db, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'poll-gateway' AND state = 'active')), 'in one session');
	$db->do("SELECT $what(pid) FROM pg_stat_activity WHERE application_name = 'poll-gateway' AND state = 'active'");
	sleep 0.1;
	ok(!is_answered($socket), "$what: it waits on");
}
ok(wait_for($db, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'poll-gateway' AND state = 'active')), 'in another one');
$db->do('UPDATE rooms SET v = 8 WHERE id = 1');
is(changes_in($gateway->receive($socket)), 1, 'and gets its news');

$path = poll_path(20);
$socket = start_request($path);
ok(wait_until_waiting(1), 'a client waits');
$db->disconnect;
$other->disconnect;
$node->restart;
$db = connect_to($node);
$db->do('UPDATE rooms SET v = 9 WHERE id = 1');
my $answer = $gateway->receive($socket);
$answer = $gateway->get($path) while $answer->{status} == 503 && sleep 0.1;
is(changes_in($answer), 1, 'a restart of the server');

# the gateway stops
$socket = start_request(poll_path(20));
ok(wait_until_waiting(1), 'a client waits');
$start = time;
kill 'TERM', $gateway->{pid};
is(changes_in($gateway->receive($socket)), 0, 'who waits is answered when the gateway stops');
cmp_ok(time - $start, '<', 5, 'at once');
$gateway->stop(10, 1);

# ---- on a standby ----

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('long_poll_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$gateway = start_gateway($standby);
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
$socket = start_request(poll_path(20));
ok(wait_until_waiting(1), 'a client waits at a standby');
$db->do('UPDATE rooms SET v = 10 WHERE id = 1');
is(changes_in($gateway->receive($socket)), 1, 'and gets what comes there');
$gateway->stop;

# half at a standby, half at a primary
$standby->stop;
$gateway = start_gateway($standby, '-c', 2, '-d',
	sprintf('host=%s,%s port=%d,%d dbname=postgres', $standby->host, $node->host, $standby->port, $node->port));
ok(wait_for($db, q(SELECT count(*) = 3 FROM pg_stat_activity WHERE application_name = 'poll-gateway')), 'all at the primary');
$standby->start;
my $at_standby = connect_to($standby);
my $poll = JSON::PP->new->encode({ feeds => ['rooms'], cursor => cursor_of('rooms'), wait => 20 });
my $post = sub {
	my $client = $gateway->connection;

	print $client "POST /poll HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: " . length($poll) . "\r\n\r\n$poll";
	$client->flush;
	return $client;
};
@many = $post->();
ok(wait_until_waiting(1), 'a client waits');
$db->do(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'poll-gateway' AND state = 'idle' LIMIT 1));
ok(wait_for($at_standby, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'poll-gateway')), 'one session goes to the standby');
push @many, map { $post->() } 1 .. 10;
ok(wait_until_waiting(11), 'more clients');
my $asked = $gateway->metric('poll_gateway_asked_again_total');
sleep 1;
$asked = $gateway->metric('poll_gateway_asked_again_total') - $asked;
note "$asked asked again";
cmp_ok($asked, '<', 100, 'are not asked for all the time');
$db->do('UPDATE rooms SET v = v + 1 WHERE id = 1');
is(join(' ', keys %{ { map { changes_in($gateway->receive($_)) => 1 } @many } }), '1', 'and get what is new');
$gateway->stop;
$at_standby->disconnect;
$standby->stop;

# ---- mirrors ----

create_items($db);
$gateway = start_gateway($node, '-c', 3);
my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';

sub long_poller
{
	my ($number) = @_;
	my $mirror = PollMirror->new('items');

	srand($seed + 300 + $number);
	while (1)
	{
		my $last = -e $stop_file;
		my $answer = $gateway->get("/poll?feeds=items&max_rows=" . (rand() < 0.8 ? 1000 : log_uniform(1000)) . '&wait=0.5'
			  . (defined $mirror->{cursor} ? "&cursor=$mirror->{cursor}" : ''));
		next if $answer->{status} == 503;
		if ($answer->{status} != 200)
		{
			$mirror->fault("status $answer->{status}");
			last;
		}
		my $page = decode_json($answer->{body});
		$mirror->take_page($page, 1000);
		last if $last && !$page->{has_more};
		$mirror->restart if rand() < 0.002;
	}
	return $mirror->report;
}

my @writers = start_writers($node, 4, $seed, $duration);
my @pollers = map { my $number = $_; start_child("client $number", sub { long_poller($number) }) } 1 .. 6;
note 'transactions: ' . writer_summary(finish_children(@writers));
append_to_file($stop_file, '');
check_mirrors($db, finish_children(@pollers));
$gateway->stop;
$db->disconnect;

done_testing();
