# The gateway under malformed and fuzzed requests, slow clients, floods of
# connections, and a database that goes away: it answers or closes, forgets
# nothing, and goes on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::Socket::INET;
use PollGateway;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

skip_without_gateway();

my $node = new_node('gateway_faults');
my $db = connect_to($node);

$db->do(<<'SQL');
CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
INSERT INTO messages (body) SELECT repeat('x', 1000) FROM generate_series(1, 10000) AS i;
SELECT poll.track('messages');
CREATE SCHEMA api;
CREATE FUNCTION api.nap(jsonb) RETURNS json LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_sleep(($1->>'seconds')::float); RETURN '"slept"'; END $$;
CREATE FUNCTION api.pid(jsonb) RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()';
SQL

srand(random_seed());

my @functions = map { ('-f', "api.$_") } 'nap', 'pid';
my $gateway = start_gateway($node, @functions, '-c', 4, '--timeout', 2, '--client-timeout', 1, '--max-clients', 200);
my $poll = "GET /poll?feeds=messages&max_rows=1 HTTP/1.1\r\nHost: x\r\n";

sub alive
{
	my ($name) = @_;

	is($gateway->get('/poll?feeds=messages&max_rows=1')->{status}, 200, $name);
	return;
}

# Within 10 seconds
sub recovers
{
	foreach (1 .. 100)
	{
		return 1 if $gateway->get('/healthz')->{status} == 200;
		sleep 0.1;
	}
	return 0;
}

# Until the other side closes, in seconds
sub seconds_until_closed
{
	my ($socket) = @_;
	my $start = time;
	my $bytes;

	local $SIG{ALRM} = sub { die "not closed within 10 seconds\n" };
	alarm 10;
	1 while sysread $socket, $bytes, 65536;
	alarm 0;
	return time - $start;
}

# ---- malformed ----

foreach (
	"\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\r\n\r\n",
	"GET /poll?feeds=%FF%FE HTTP/1.1\r\nHost: x\r\n\r\n", "GET /poll?%%%&&&=== HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /poll HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
	"POST /poll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	"POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n",
	"GET /" . 'x' x 20000 . " HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n" . "A: b\r\n" x 5000 . "\r\n",
	"GET / HTTP/1.1\r\nHost: x\r\nA: " . 'x' x 20000 . "\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n",
	"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
{
	my $answer = $gateway->exchange($_);
	ok(!$answer || $answer->{status} =~ /^4\d\d$/ || $answer->{status} == 505, 'malformed: ' . (substr($_, 0, 40) =~ s/[^ -~]/./gr))
	  or diag $answer->{status};
}
my $socket = $gateway->connection;
print $socket "POST /poll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
$socket->flush;
local $SIG{PIPE} = 'IGNORE';
print $socket "4000\r\n" . 'x' x 0x4000 . "\r\n" foreach 1 .. 5;
cmp_ok(seconds_until_closed($socket), '<', 0.9, 'a body in chunks that is too large');
is($gateway->exchange("POST /poll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"feeds\":\r\n13\r\n[\"messages\"],\"max_r\r\n7\r\nows\":1}\r\n0\r\n\r\n")->{status},
	200, 'one that is not');
$socket = $gateway->connection;
is($gateway->exchange("$poll\r\n$poll\r\n", socket => $socket)->{status}, 200, 'two requests at once');
is($gateway->receive($socket)->{status}, 200, 'two answers');
alive('after malformed requests');

# there is always room for an answer, however large the request was
foreach my $part ('/poll?feeds=nonsense&x=%s HTTP/1.1', "/poll?feeds=nonsense HTTP/1.1\r\nX: %s")
{
	my %count;
	foreach my $size (map { $_ * 97 } 150 .. 300)
	{
		my $got = $gateway->exchange('GET ' . sprintf($part, 'x' x $size) . "\r\nHost: x\r\n\r\n");
		$count{ $got ? $got->{status} : 'closed' }++;
	}
	is(join(' ', sort keys %count), '404 431', 'requests up to more than the limit are answered');
}

# ---- fuzz: what is nearly right ----

sub fuzz
{
	my ($text) = @_;

	foreach (1 .. int rand 4)
	{
		my $at = int rand length $text;
		my $how = int rand 4;
		substr($text, $at, $how == 0 ? 1 : 0) = $how == 1 ? chr int rand 256 : ('%', '%00', '&', '=', '"', '\\', ',', "\xc3", '{', ']')[ rand 10 ];
		substr($text, $at, int rand 10) = '' if $how == 2;
	}
	return $text;
}

my $cursor = fetch_value($db, q(SELECT poll.current_cursor('{messages}')));
my %statuses;
foreach (1 .. 3000)
{
	my $query = rand() < 0.5 ? "cursor=$cursor&max_rows=10" : 'scope=%7B%22room%22:1%7D&since=2026-01-01T00:00:00Z';
	my $tags = fuzz('W/"p1.4cj-wp74KKo85n0NRJ_fYg", "abc" , *');
	my $body = fuzz('{"feeds": ["messages"], "cursor": null, "max_rows": 10' . (rand() < 0.5 ? '}' : ', "scope": {"room": "x"}}'));
	my $line = fuzz("feeds=messages&$query") =~ s/[\r\n ]/+/gr;
	my $request = rand() < 0.5
	  ? "GET /poll?$line HTTP/1.1\r\nHost: x\r\nIf-None-Match: " . ($tags =~ s/[\r\n]//gr) . "\r\nConnection: close\r\n\r\n"
	  : "POST /poll HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
	$request = fuzz($request) . "\r\n\r\n" if rand() < 0.1;
	my $answer = $gateway->exchange($request);
	$statuses{ $answer ? $answer->{status} : 'closed' }++;
}
# 301 is how libmicrohttpd 1.0 answers a target with a space in it.
note join ', ', map { "$_: $statuses{$_}" } sort keys %statuses;
is(join(' ', grep { !/^(200|301|304|400|404|405|410|closed|411|413|414|431|505|501|415)$/ } keys %statuses), '', 'fuzzed requests get 2xx to 4xx');
cmp_ok($statuses{200} // 0, '>', 100, 'some are right');
alive('after fuzzed requests');

# ---- slow clients ----

foreach ([ 'says nothing', '' ], [ 'stops in the first line', 'GET /po' ], [ 'stops in a header', $poll ],
	[ 'stops in the body', "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc" ], [ 'is idle after a request', "$poll\r\n" ])
{
	my ($what, $bytes) = @$_;
	$socket = $gateway->connection;
	print $socket $bytes;
	$socket->flush;
	my $seconds = seconds_until_closed($socket);
	cmp_ok(abs($seconds - 1.1), '<', 0.5, "a client that $what is closed after a second");
}

# a byte now and then does not help
$socket = $gateway->connection;
my $sent = 0;
my $start = time;
while (time - $start < 5)
{
	last if !defined syswrite $socket, substr("${poll}X-Slow: " . 'x' x 1000, $sent++, 1);
	sleep 0.05;
	my $closed = '';
	vec($closed, fileno($socket), 1) = 1;
	last if select($closed, undef, undef, 0);
}
cmp_ok(time - $start, '<', 2, 'nor one that sends a byte now and then');

# nor does a client hold an answer of some 10 MB that it does not read
$socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gateway->{port});
print $socket "GET /poll?feeds=messages&max_rows=10000 HTTP/1.1\r\nHost: x\r\n\r\n";
$socket->flush;
sleep 5;
my $got = 0;
my $bytes;
while (my $n = sysread $socket, $bytes, 65536) { $got += $n; }
cmp_ok($got, '<', 9_000_000, 'an answer that is not taken is given up');
alive('after slow clients');

# however many of these there are, they do not fill memory
my $small = start_gateway($node, '-c', 2, '--max-sending', 30, '--timeout', 60);
$small->get('/poll?feeds=messages&max_rows=10000') foreach 1 .. 3;
my $before = rss($small->{pid});
my @takers = map { my $s = $small->connection; print $s "GET /poll?feeds=messages&max_rows=10000 HTTP/1.1\r\nHost: x\r\n\r\n"; $s->flush; $s } 1 .. 20;
foreach (1 .. 100)
{
	last if $small->metric('poll_gateway_request_seconds_count{route="poll"}') == 23;
	sleep 0.2;
}
my $more = rss($small->{pid}) - $before;
note sprintf '%.0f MB, and %.0f MB more', $before, $more;
cmp_ok($more, '<', 80, '20 answers of 10 MB that nobody takes are not all kept');
is(length($small->receive($takers[-1])->{body}) > 9_000_000, 1, 'the last one is still there');
@takers = ();

# nor those that were asked for in the same statement and are taken
$small->stop;
$small = start_gateway($node, '-c', 2, '--max-sending', 120, '--timeout', 60);
my $page = decode_json($small->get('/poll?feeds=messages&max_rows=10')->{body})->{cursor};
$before = rss($small->{pid});
foreach (1 .. 8)
{
	kill 'STOP', $small->{pid};
	my @together = map { my $s = $small->connection; print $s "GET /poll?feeds=messages&max_rows=10000&wait=1&cursor=$page HTTP/1.1\r\nHost: x\r\n\r\n"; $s->flush; $s } 1 .. 6;
	kill 'CONT', $small->{pid};
	$small->receive($_) foreach @together[ 1 .. 5 ];
	push @takers, $together[0];
}
$more = rss($small->{pid}) - $before;
note sprintf '%.0f MB more', $more;
cmp_ok($more, '<', 200, 'one of six answers of a batch that nobody takes does not keep the others');
@takers = ();
$small->stop;

# ---- many connections ----

sub flood
{
	my ($count) = @_;

	foreach (1 .. $count / 100)
	{
		my @sockets = map { $gateway->connection } 1 .. 100;
		print $_ rand() < 0.5 ? $poll : "$poll\r\n" foreach @sockets;
		$_->flush foreach @sockets;
	}
	return;
}
# A leak of 500 bytes a connection would show each time; what memory is freed late
# does not.
my @memory;
foreach (1 .. 5)
{
	flood(2000);
	push @memory, rss($gateway->{pid});
}
alive('after 10,000 connections that were dropped');
note 'memory: ' . join ' ', map { sprintf '%.1f MB', $_ } @memory;
cmp_ok((sort { $a <=> $b } map { $memory[$_] - $memory[ $_ - 1 ] } 1 .. $#memory)[0], '<', 1, 'memory is flat');

my @idle = map { $gateway->connection } 1 .. 250;
alive('when all connections are in use, the one that is idle for longest makes room');
is($gateway->exchange("$poll\r\n", socket => $idle[-1])->{status}, 200, 'not the last one');
@idle = ();

# ---- a database that is slow, or away ----

my $began = time;
is($gateway->call('nap', '{"seconds": 30}')->{status}, 503, 'what takes too long is ended');
cmp_ok(abs(time - $began - 2), '<', 0.8, 'after the timeout');
is(fetch_value($db, q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%nap%' AND state = 'active' AND pid <> pg_backend_pid())), 0,
	'also in the server');

# all connections are busy: who waits for one gets it, or is told so in time
my @naps = map { my $s = $gateway->connection; my $json = '{"seconds": 0.9}';
	print $s "POST /rpc/nap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " . length($json) . "\r\n\r\n$json"; $s->flush; $s } 1 .. 16;
is(join(' ', sort map { $gateway->receive($_)->{status} } @naps), join(' ', (200) x 12, (503) x 4),
	'16 naps of 0.9 s on 4 connections: 4 do not get one within 2 s');

# who has waited for a connection has all of the time for his statement
my $single = start_gateway($node, @functions, '-c', 1, '--timeout', 2);
@naps = map { my $s = $single->connection; my $json = '{"seconds": 1.8}';
	print $s "POST /rpc/nap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " . length($json) . "\r\n\r\n$json"; $s->flush; $s } 1 .. 2;
is(join(' ', map { $single->receive($_)->{status} } @naps), '200 200', 'two naps of 1.8 s on one connection, within 2 s each');
unlike($single->log, qr/gave up/, 'and no connection is given up');
$single->stop;

# a backend that hangs, so that even the server's timeout does not come
my $pid = $gateway->call('pid', '{}')->{body};
kill 'STOP', $pid;
$began = time;
my @answers = map { my $s = $gateway->connection; print $s "$poll\r\n"; $s->flush; $s } 1 .. 8;
is(join(' ', sort map { $gateway->receive($_)->{status} } @answers), join(' ', (200) x 7, 503), 'a backend that hangs costs one answer');
cmp_ok(time - $began, '<', 5, 'in time');
kill 'CONT', $pid;
alive('after that');

$node->stop('fast');
is($gateway->get('/healthz')->{status}, 503, 'without a database it is not healthy');
my $answer = $gateway->get('/poll?feeds=messages');
is("$answer->{status} $answer->{headers}{'retry-after'}", '503 1', 'and says so');
$node->start;
ok(recovers(), 'it connects again');
alive('and answers');

# restarts under load
my @children = map {
	start_child("load $_", sub {
		my %count;
		my $end = time + 6;
		while (time < $end)
		{
			my $got = $gateway->get('/poll?feeds=messages&max_rows=1');
			$count{ $got ? $got->{status} : 'closed' }++;
		}
		return \%count;
	})
} 1 .. 4;
foreach (1 .. 3)
{
	sleep 1;
	$node->restart;
}
$db = connect_to($node);
my %count;
foreach my $result (finish_children(@children))
{
	$count{$_} += $result->{$_} foreach keys %$result;
}
note join ', ', map { "$_: $count{$_}" } sort keys %count;
is(join(' ', grep { $_ ne '200' && $_ ne '503' } keys %count), '', 'restarts under load: answers are 200 or 503');
cmp_ok($count{200}, '>', 100, 'mostly 200');
ok(recovers(), 'and it connects again');
alive('after restarts');

# ---- a graceful stop ----

# one that does not read its answer keeps it from ending, and others go on asking
$single = start_gateway($node, @functions, '-c', 4, '--timeout', 2);
$socket = $single->connection;
print $socket "GET /poll?feeds=messages&max_rows=10000 HTTP/1.1\r\nHost: x\r\n\r\n";
$socket->flush;
sleep 1.5;
my @asking = map { $single->connection } 1 .. 4;
is($single->exchange("$poll\r\n", socket => $_)->{status}, 200, 'a client is there') foreach @asking;
kill 'TERM', $single->{pid};
sleep 2.25;
foreach (@asking)
{
	print $_ "POST /rpc/nap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" . '{"seconds": 1.9}';
	$_->flush;
}
$single->stop(5, 1);

$socket = $gateway->connection;
print $socket "POST /rpc/nap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" . '{"seconds": 1.0}';
$socket->flush;
my $kept = $gateway->connection;
is($gateway->exchange("$poll\r\n", socket => $kept)->{status}, 200, 'a connection is kept');
sleep 0.2;
kill 'TERM', $gateway->{pid};
sleep 0.2;
ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gateway->{port}, Timeout => 1), 'when it stops, no new connections');
my $last = $gateway->receive($socket);
is("$last->{status} $last->{headers}{connection}", '200 close', 'but the answers to what was asked');
$gateway->stop(5, 1);

done_testing();
