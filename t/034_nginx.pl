# nginx in front of the gateway, as in examples/nginx: what is public is asked for
# once a second, whoever polls; what may be for one client alone is never another's;
# and mirrors have the table in the end.
#
# POLL_TEST_DURATION	seconds, 15 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::Socket::INET;
use PollGateway;
use PollNginx;
use PollStress;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

skip_without_gateway();
skip_without_nginx();

# An answer is fresh for so long, and may be served as long again while a newer one is
# fetched.  nginx counts whole seconds, and the one that has begun is over then.
my $max_age = 1;
my $oldest = 2 * $max_age + 1;

my $node = new_node('nginx');
my $db = connect_to($node);

create_items($db);
$db->do(<<"SQL");
CREATE TABLE messages (id int PRIMARY KEY, body text);
INSERT INTO messages SELECT i, 'message ' || i FROM generate_series(1, 500) AS i;
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'of somebody');
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON notes USING (true);
SELECT poll.track('messages'), poll.track('notes');
CREATE ROLE gateway LOGIN;
GRANT SELECT ON items, messages, notes TO gateway;
GRANT EXECUTE ON FUNCTION poll.respond TO gateway;
ALTER ROLE gateway SET poll_ext.public_max_age = $max_age;
SQL

sub gateway
{
	return start_gateway($node, '-d', sprintf('host=%s port=%d dbname=postgres user=gateway', $node->host, $node->port), '--trusted-proxies', 1, @_);
}
my $gateway = gateway();
my $nginx = start_nginx($gateway);

# Sends requests; returns how many the gateway got.
sub reached
{
	my ($function) = @_;
	my $before = $gateway->polls;

	$function->();
	return $gateway->polls - $before;
}

sub statuses { my (@paths) = @_; return join ' ', map { $nginx->get($_)->{status} } @paths; }
sub header { my ($answer, $name) = @_; return $answer->{headers}{$name} // ''; }

# ---- what is shared ----

my $page = '/poll?feeds=messages&max_rows=10';
my ($answer, $tag);

is(reached(sub { is(statuses(($page) x 50), join(' ', (200) x 50), 'a page') }), 1, 'is asked for once, not 50 times');
$answer = $nginx->get($page);
is(header($answer, 'x-cache'), 'HIT', 'it is in the cache');
is(header($answer, 'cache-control'), "max-age=$max_age, stale-while-revalidate=$max_age", 'for how long, the gateway has said');
is($answer->{body} =~ s/"timestamp.*//r, $gateway->get($page)->{body} =~ s/"timestamp.*//r, 'and is what the gateway says');
is(reached(sub { $nginx->request('HEAD', $page) }), 0, 'HEAD, too');
is(reached(sub { statuses(map { "$page&x=$_" } 1 .. 3) }), 3, 'another query is another page');
is(reached(sub { $nginx->request('POST', '/poll', body => '{"feeds": ["messages"]}') foreach 1 .. 2 }), 2, 'POST is not shared');

# a tag: 304, as the gateway says, of which the first is not in the cache
my $cursor = fetch_value($db, q(SELECT poll.current_cursor('{messages}')));
my $poll = "/poll?feeds=messages&cursor=$cursor";

$tag = header($nginx->get($poll), 'etag');
is(reached(
		sub {
			my @answers = map { $nginx->get($poll, 'If-None-Match' => $tag) } 1 .. 3;

			is(join(' ', map { "$_->{status} $_->{body}" . (header($_, 'etag') eq $tag) } @answers), '304 1 304 1 304 1', 'a tag: 304');
		}),
	1, 'also once');
is($nginx->get($poll, 'If-None-Match' => '"x"')->{status}, 200, 'another tag: 200');

# no older than that, also where nobody has asked for a while
$nginx->get($poll, 'If-None-Match' => $tag);
$db->do(q(UPDATE messages SET body = 'changed' WHERE id = 1));
is($nginx->get($poll, 'If-None-Match' => $tag)->{status}, 304, 'an answer may be old');
sleep $oldest + 0.1;
$answer = $nginx->get($poll, 'If-None-Match' => $tag);
is($answer->{status}, 200, 'but not that old');
is(scalar @{ decode_json($answer->{body})->{changes}{messages} }, 1, 'the change is there');

# who asks while the first one waits for the answer waits, too, but not for long: so it
# is tried until the machine is fast enough
my $lock_db = connect_to($node);
my $fetched = 10;
foreach my $attempt (1 .. 20)
{
	$lock_db->do('BEGIN');
	$lock_db->do('LOCK TABLE messages');
	$fetched = reached(
		sub {
			my @sockets = map { $nginx->connection } 1 .. 10;

			print $_ "GET $page&attempt=$attempt HTTP/1.1\r\nHost: test\r\n\r\n" foreach @sockets;
			$_->flush foreach @sockets;
			sleep 0.03;
			$lock_db->do('COMMIT');
			$nginx->receive($_) foreach @sockets;
		});
	last if $fetched == 1;
}
is($fetched, 1, 'ten who ask at once: one fetches');

# the old one goes on being served while a newer one is fetched
my $start = time;
my %seen;
while (time < $start + 4 * $max_age)
{
	$seen{ header($nginx->get($poll), 'x-cache') }++;
	sleep 0.01;
}
note join ', ', map { "$_: $seen{$_}" } sort keys %seen;
cmp_ok($seen{MISS} // 0, '<=', 1, 'nobody waits while others ask, too');
cmp_ok($seen{STALE} // 0, '>=', 2, 'it is served while a newer one is fetched');

# ---- what is not ----

is(reached(sub { is(statuses((map { "/poll?feeds=$_" } 'nonsense', 'messages&cursor=x') x 2), '404 400 404 400', 'errors') }), 4, 'are not shared');
my $private = '/poll?feeds=notes';
$tag = header($nginx->get($private), 'etag');
is(reached(
		sub {
			is(header($nginx->get($private), 'cache-control'), 'private, no-cache', 'under row-level security');
			is(header($nginx->get("$private,messages"), 'cache-control'), 'private, no-cache', 'also with others');
			is($nginx->get($private, 'If-None-Match' => $tag)->{status}, 304, 'a tag is passed on') foreach 1 .. 2;
		}),
	4, 'nothing is shared');
foreach my $name (qw(Authorization Cookie))
{
	is(reached(
			sub {
				is($nginx->get($page, $name => $_)->{status}, 200, "$name: $_") foreach qw(a b a b);
				is($nginx->get($poll, $name => 'a', 'If-None-Match' => '*')->{status}, 304, 'a tag is passed on');
			}),
		5, "requests with $name are not answered for others");
}

# even if what is behind it would let everybody have it
my $naive = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1') // die "$@";
my $server = { pid => fork() // die "fork: $!" };
if ($server->{pid} == 0)
{
	while (my $client = $naive->accept)
	{
		local $/ = "\r\n\r\n";
		my ($who) = (readline($client) // '') =~ /^(?:Authorization|Cookie): (\w+)\r$/m;

		$who //= 'nobody';
		print $client "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: ", length $who, "\r\nConnection: close\r\n\r\n$who";
		close $client;
	}
	POSIX::_exit(0);
}
end_with_test($server);
my $other = start_nginx({ port => $naive->sockport });
my @who = map { my $round = $_; map { [ $_ => "user$round" ] } qw(Authorization Cookie) } 1 .. 3;
is(join(' ', map { $other->get($page, @$_)->{body} } (@who, []) x 2), join(' ', (map { $_->[1] // 'nobody' } @who, []) x 2),
	'nobody gets what another one has got');
is($other->get($page)->{headers}{'x-cache'}, 'HIT', 'while the cache is used');
$other->stop;

# ---- limits: whoever makes the database work pays ----

sub from
{
	my ($address, $path) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $nginx->{port}, LocalAddr => $address) // die "$@";

	return $nginx->request('GET', $path, socket => $socket);
}

$db->do(q(SELECT poll.set_rate_policy('poll', 3, '1 hour', 'strict')));
is(join(' ', map { from('127.0.0.1', "$page&n=$_")->{status} } 1 .. 4), '200 200 200 429', 'a client has spent what it has');
is(header(from('127.0.0.1', "$page&n=4"), 'cache-control'), 'no-store', 'that is said to nobody else');
$answer = from('127.0.0.2', "$page&n=4");
is($answer->{status}, 200, 'another one gets an answer');
is(join(' ', grep { /^ratelimit/ } keys %{ $answer->{headers} }), '', 'which does not say what is left to him');
is(join(' ', map { from('127.0.0.1', "$page&n=4")->{status} } 1 .. 5), '200 200 200 200 200', 'and which costs nothing now');
is($nginx->get('/poll?feeds=notes')->{status}, 429, 'what is not shared does');
$db->do(q(SELECT poll.drop_rate_policy('poll')));

is($nginx->get('/metrics')->{status}, 404, 'the numbers stay inside');
is($nginx->get('/healthz')->{status}, 200, 'the rest is passed on');

# ---- a gateway that is gone for a while ----

my $port = $gateway->{port};
$nginx->get($page);
$gateway->stop;
is($nginx->get($page)->{status}, 200, 'without the gateway: what is there');
sleep $oldest + 0.1;
is($nginx->get($page)->{status}, 502, 'but nothing that is older than it may be');
is($nginx->get($page, Authorization => 'a')->{status}, 502, 'nor anything else');
$gateway = gateway('-l', "127.0.0.1:$port");
foreach (1 .. 100)
{
	last if $nginx->get('/healthz')->{status} == 200;
	sleep 0.05;
}
is($nginx->get($page)->{status}, 200, 'and it is there again');

# ---- many mirrors, while others write ----

my $stop_file = PostgreSQL::Test::Utils::tempdir() . '/stop';
my $seed = random_seed();

sub poller
{
	my ($number) = @_;
	my $client = http_mirror('items');

	srand($seed + 200 + $number);
	while (!-e $stop_file)
	{
		http_poll($client, $nginx, 100);
		$client->{mirror}->restart if rand() < 0.001;
		sleep rand(0.02);
	}
	# from now on no answer is older than the last change
	sleep $oldest + 0.1;
	foreach (1 .. 1000)
	{
		last if !http_poll($client, $nginx, 100);
	}
	return { %{ $client->{mirror}->report }, status => $client->{status} };
}

my @reports;
my $reached = reached(
	sub {
		my @writers = start_writers($node, 2, $seed, $ENV{POLL_TEST_DURATION} // 15);
		my @pollers = map { my $number = $_; start_child("mirror $number", sub { poller($number) }) } 1 .. 6;

		note 'transactions: ' . writer_summary(finish_children(@writers));
		append_to_file($stop_file, '');
		@reports = finish_children(@pollers);
	});
check_mirrors($db, @reports);
my $polls = 0;
foreach my $status (map { $_->{status} } @reports)
{
	note join ', ', map { "$_: $status->{$_}" } sort keys %$status;
	$polls += $_ foreach values %$status;
}
note "$reached of $polls polls have reached the gateway";
cmp_ok($reached, '<', $polls / 3, 'most polls are answered by the cache');
$nginx->stop;
$gateway->stop;

done_testing();
