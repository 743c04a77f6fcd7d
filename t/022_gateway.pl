# The gateway carries what poll.respond() says: each status with its headers, and
# only those; functions, files and numbers; and who a client is.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollGateway;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

skip_without_gateway();

my $node = new_node('gateway');
my $db = connect_to($node);

$db->do(<<'SQL');
CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL CHECK (body <> 'bad'));
INSERT INTO messages (body) SELECT 'hello ' || i FROM generate_series(1, 5) AS i;
SELECT poll.track('messages');
CREATE SCHEMA api;
CREATE FUNCTION api.echo(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION api.say(jsonb) RETURNS json LANGUAGE sql AS
	$$ INSERT INTO public.messages (body) VALUES ($1->>'body') RETURNING to_json(messages) $$;
CREATE FUNCTION api.fail(jsonb) RETURNS json LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'failed' USING errcode = $1->>'code', detail = 'why', hint = 'what to do'; END $$;
CREATE FUNCTION api."odd "" name"(json) RETURNS int LANGUAGE sql AS 'SELECT 42';
CREATE FUNCTION api.secret(jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
SQL

my $files = PostgreSQL::Test::Utils::tempdir();
mkdir "$files/$_" foreach qw(site site/sub site/.git site/node_modules);
append_to_file("$files/$_->[0]", $_->[1])
  foreach ['site/index.html', '<p>home'], ['site/sub/index.html', '<p>sub'], ['site/a.js', 'let a;'], ['site/empty.css', ''],
  ['site/.git/config', 'secret'], ['site/.env', 'secret'], ['site/node_modules/x.js', 'secret'], ['outside.txt', 'secret'];

my $gateway = start_gateway($node, '-s', "$files/site", '--timeout', 2, map { ('-f', "api.$_") } 'echo', 'say', 'fail', 'odd " name');

# The status and the headers, which are all that there are but for those that the
# HTTP library adds.
sub has_shape
{
	my ($answer, $status, $headers, $name) = @_;

	is(join(' ', $answer->{status}, sort grep { !/^(content-length|date)$/ } keys %{ $answer->{headers} }),
		join(' ', $status, sort split ' ', $headers), $name);
	return;
}

my $problem = 'cache-control content-type';
my $cors = 'access-control-allow-origin access-control-expose-headers';
my $cursor = fetch_value($db, q(SELECT poll.current_cursor('{messages}')));

# ---- every status ----

my $answer = $gateway->get('/poll?feeds=messages&max_rows=2');
has_shape($answer, 200, "$cors cache-control content-type etag link vary", '200, with more to come');
is(scalar @{ decode_json($answer->{body})->{changes}{messages} }, 2, 'and its body');
my ($next) = $answer->{headers}{link} =~ /^<(\?[^>]+)>; rel="next"$/;
is(scalar @{ decode_json($gateway->get("/poll$next")->{body})->{changes}{messages} }, 2, 'the link leads on');

$answer = $gateway->get("/poll?feeds=messages&cursor=$cursor");
has_shape($answer, 200, "$cors cache-control content-type etag vary x-poll-interval", '200, an empty one');
is($answer->{headers}{'content-type'}, 'application/json', 'JSON');
my $tag = $answer->{headers}{etag};

$answer = $gateway->get("/poll?feeds=messages&cursor=$cursor", 'If-None-Match' => $tag);
has_shape($answer, 304, "$cors cache-control etag vary x-poll-interval", 'status 304');
is($answer->{body}, '', 'without a body');
ok(!$answer->{headers}{'content-length'}, 'and with no length but 0, if any');
is($answer->{headers}{etag}, $tag, 'with its tag');

foreach ([ 304, $tag =~ s/^W\///r ], [ 304, '*' ], [ 304, qq("x,y", $tag) ], [ 200, '"x"' ], [ 200, 'malformed' ], [ 200, "\xff" ])
{
	my ($status, $value) = @$_;
	is($gateway->get("/poll?feeds=messages&cursor=$cursor", 'If-None-Match' => $value)->{status}, $status, "If-None-Match: $value");
}
is($gateway->exchange("GET /poll?feeds=messages&cursor=$cursor HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"x\"\r\nif-none-match: $tag\r\n\r\n")->{status},
	304, 'If-None-Match in two lines');

foreach (
	[ 400, "$cors $problem", 'GET', '/poll' ],
	[ 400, "$cors $problem", 'GET', '/poll?feeds=messages&cursor=nonsense' ],
	[ 400, "$cors $problem", 'GET', '/poll?feeds=%00' ],
	[ 400, "$cors $problem", 'POST', '/poll', '{"feeds"' ],
	[ 400, "$problem", 'GET', "/poll?feeds=\xff" ],
	[ 400, "$problem", 'POST', '/poll', "\0" ],
	[ 404, "$cors $problem", 'GET', '/poll?feeds=nonsense' ],
	[ 404, "$problem", 'GET', '/nonsense' ],
	[ 404, "$problem", 'GET', '/poll/' ],
	[ 405, "$cors allow $problem", 'DELETE', '/poll?feeds=messages' ],
	[ 405, "$cors allow $problem", 'get', '/poll?feeds=messages' ],
	[ 405, "allow $problem", 'PUT', '/a.js' ],
	[ 413, "$problem connection", 'POST', '/poll', '"' . 'x' x 65536 ])
{
	my ($status, $headers, $method, $path, $body) = @$_;
	$answer = $gateway->request($method, $path, body => $body);
	has_shape($answer, $status, $headers, "$method " . substr($path, 0, 40));
	is($answer->{headers}{'content-type'}, 'application/problem+json', 'a problem');
	is(decode_json($answer->{body})->{status}, $answer->{status}, 'with its status');
}

$answer = $gateway->request('OPTIONS', '/poll');
has_shape($answer, 200, 'access-control-allow-headers access-control-allow-methods access-control-allow-origin access-control-max-age allow', 'OPTIONS');

my $get = $gateway->get("/poll?feeds=messages&cursor=$cursor");
$answer = $gateway->request('HEAD', "/poll?feeds=messages&cursor=$cursor");
has_shape($answer, 200, join(' ', grep { !/^(Content-Length|Date)$/ } @{ $get->{names} }) =~ tr/A-Z/a-z/r, 'HEAD has the headers of GET');
is($answer->{headers}{etag}, $tag, 'its tag');
cmp_ok(abs($answer->{headers}{'content-length'} - length $get->{body}), '<=', 6, 'its length (fractions of a second differ)');
is($answer->{body}, '', 'and no body');

$answer = $gateway->request('POST', '/poll', body => '{"feeds": ["messages"], "max_rows": 1}');
has_shape($answer, 200, "$cors cache-control content-type etag link vary", 'POST');
is($gateway->request('POST', '/rpc/poll', body => '{"feeds": ["messages"]}')->{status}, 200, '/rpc/poll is the same');

$db->do(q(SELECT poll.track('messages', 'others')));
my $old = fetch_value($db, q(SELECT poll.current_cursor('{others}')));
$db->do(q(SELECT poll.untrack('others'), poll.track('messages', 'others')));
$answer = $gateway->get("/poll?feeds=others&cursor=$old");
has_shape($answer, 410, "$cors $problem link", 'status 410');
is($answer->{headers}{link}, '<?feeds=others>; rel="first"', 'says where to begin');

$db->do(q(SELECT poll.set_rate_policy('poll', 2, '1 minute', 'strict')));
$answer = $gateway->get('/poll?feeds=messages');
has_shape($answer, 200, "$cors cache-control content-type etag ratelimit ratelimit-policy vary x-poll-interval", '200 with a limit');
$gateway->get('/poll?feeds=messages');
$answer = $gateway->get('/poll?feeds=messages');
has_shape($answer, 429, "$cors $problem ratelimit ratelimit-policy retry-after", 'status 429');
cmp_ok($answer->{headers}{'retry-after'}, '>=', 54, 'says when');
is(decode_json($answer->{body})->{retry_after}, $answer->{headers}{'retry-after'}, 'also in the body');

# a page that is not empty is paid for, also by 304
$answer = $gateway->get('/poll?feeds=messages', 'If-None-Match' => '*');
is($answer->{status}, 429, 'who has spent his quota gets nothing, whatever he has');
$db->do(q(SELECT poll.set_rate_policy('poll', 2, '1 minute', 'gcra', 2)));
is(join(' ', map { $gateway->get('/poll?feeds=messages', 'If-None-Match' => '*')->{status} } 1 .. 3), '304 304 429', 'a page that is not sent again is paid for');
$db->do(q(SELECT poll.set_rate_policy('poll', 2, '1 hour', 'strict')));
is(join(' ', map { $gateway->get("/poll?feeds=messages&cursor=$cursor", 'If-None-Match' => '*')->{status} } 1 .. 4), '304 304 304 304', 'an empty one is free');
$db->do(q(SELECT poll.set_rate_policy('poll', 2, '1 minute', 'strict')));
is(join(' ', map { $gateway->get('/poll?feeds=messages')->{status} } 1 .. 3), '200 200 429', 'a new policy');

# ---- who a client is: each has its own quota of 2 ----

sub exhaust
{
	my ($gw, %headers) = @_;

	return join ' ', map { $gw->get('/poll?feeds=messages', %headers)->{status} } 1 .. 3;
}
is(exhaust($gateway, 'X-Forwarded-For' => '198.51.100.1', 'X-User' => 'ann'), '429 429 429', 'without a proxy, nobody is believed');

my $named = start_gateway($node, '--client-header', 'X-User');
is(exhaust($named, 'x-user' => 'ann'), '200 200 429', 'a client by name');
is(exhaust($named, 'X-User' => 'bob'), '200 200 429', 'another');
is(exhaust($named), '429 429 429', 'without the header: the address');
$named->stop;

my $proxied = start_gateway($node, '--trusted-proxies', 2, '-c', 1);
is(exhaust($proxied, 'X-Forwarded-For' => '1.1.1.1, 198.51.100.7, 10.0.0.1'), '200 200 429', 'the second from the end');
is(exhaust($proxied, 'X-Forwarded-For' => '9.9.9.9,198.51.100.7 ,10.0.0.2'), '429 429 429', 'whatever is before it');
is(exhaust($proxied, 'X-Forwarded-For' => '198.51.100.8:4711, 10.0.0.1'), '200 200 429', 'with a port');
is(exhaust($proxied, 'X-Forwarded-For' => '198.51.100.8, 10.0.0.1'), '429 429 429', 'which is not a part of it');
is(exhaust($proxied, 'X-Forwarded-For' => '[2001:db8::1]:80, 10.0.0.1'), '200 200 429', 'IPv6');
is(exhaust($proxied, 'X-Forwarded-For' => '2001:db8::2, 10.0.0.1'), '429 429 429', 'of the same network');
is(exhaust($proxied, 'X-Forwarded-For' => "$_"), '429 429 429', "\"$_\": the peer")
  foreach '198.51.100.9', 'unknown, 10.0.0.1', ', 10.0.0.1', "\xff, x", '';
is($proxied->exchange("GET /poll?feeds=messages HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")->{status},
	429, 'in two lines');
$proxied->stop;
$db->do(q(SELECT poll.drop_rate_policy('poll')));

# ---- functions ----

is($gateway->call('echo', '{"a": "ä"}')->{body}, '{"a": "ä"}', 'a function');
has_shape($gateway->call('echo', '{}'), 200, 'cache-control content-type', 'its headers');
is($gateway->call('say', '{"body": "new"}')->{status}, 200, 'one that writes');
like($gateway->get("/poll?feeds=messages&cursor=$cursor")->{body}, qr/"body":"new"/, 'which is there at once');
is($gateway->call('odd%20%22%20name', '{}')->{body}, '42', 'an odd name');
is($gateway->call('secret', '{}')->{status}, 404, 'only those that were named');
is($gateway->get('/rpc/echo')->{status}, 405, 'by POST');
is($gateway->request('POST', '/rpc/echo', body => '{}')->{status}, 415, 'of JSON');
is($gateway->request('POST', '/rpc/echo', body => '{}', headers => { 'Content-Type' => $_->[0] })->{status}, $_->[1], $_->[0])
  foreach [ 'text/plain', 415 ], [ 'application/jsonx', 415 ], [ 'application/json; charset=utf-8', 200 ], [ 'Application/JSON', 200 ];
is($gateway->call('echo', $_->[0])->{status}, $_->[1], "body $_->[0]")
  foreach [ '{', 400 ], [ '', 400 ], [ "\xff", 400 ], [ "\0", 400 ], [ 'null', 200 ], [ '"\u0000"', 400 ];
is($gateway->call('say', '{}')->{status}, 400, 'a constraint');
foreach ([ P0001 => 400 ], [ PT418 => 418 ], [ PT410 => 410 ], [ PT200 => 500 ], [ PT4x4 => 500 ], [ 42501 => 403 ], [ 40001 => 503 ],
	[ 53300 => 503 ], [ XX000 => 500 ], [ '42P01' => 500 ])
{
	my ($code, $status) = @$_;
	$answer = $gateway->call('fail', qq({"code": "$code"}));
	is($answer->{status}, $status, "SQLSTATE $code");
	my $said = decode_json($answer->{body});
	is(join('|', map { $said->{$_} // '' } qw(detail reason hint code)), $status < 500 ? "failed|why|what to do|$code" : '|||',
		$status < 500 ? 'is said' : 'is nobody\'s business');
	is($answer->{headers}{'retry-after'}, $status == 503 ? 1 : undef, 'and whether to try again');
}
like($gateway->log, qr/^poll-gateway: failed \(XX000\)$/m, 'but in the log');

# what a policy says when it fails may tell of rows
$db->do(<<'SQL');
CREATE ROLE gateway_user LOGIN;
CREATE TABLE notes (id int PRIMARY KEY, v text);
INSERT INTO notes VALUES (1, 'a secret');
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY fails ON notes USING (v::int > 0);
SELECT poll.track('notes');
GRANT SELECT ON notes TO gateway_user;
GRANT EXECUTE ON FUNCTION poll.respond TO gateway_user;
SQL
my $limited = start_gateway($node, '-d', sprintf('host=%s port=%d dbname=postgres user=gateway_user', $node->host, $node->port));
$answer = $limited->get('/poll?feeds=notes');
is($answer->{status}, 500, 'an error while reading is nobody\'s business');
unlike($answer->{body}, qr/secret/, 'nor what it says');
like($limited->log, qr/a secret/, 'but in the log');
$limited->stop;

# ---- files ----

is($gateway->get($_->[0])->{body}, $_->[1], $_->[0]) foreach [ '/', '<p>home' ], [ '/index.html', '<p>home' ], [ '/sub/', '<p>sub' ], [ '/a.js', 'let a;' ], [ '/empty.css', '' ];
$answer = $gateway->get('/a.js');
has_shape($answer, 200, 'cache-control content-security-policy content-type etag x-content-type-options', 'the headers of a file');
is($answer->{headers}{'content-type'}, 'text/javascript; charset=utf-8', 'and its type');
is($gateway->get('/a.js', 'If-None-Match' => $answer->{headers}{etag})->{status}, 304, 'not again');
$answer = $gateway->get('/sub');
is("$answer->{status} $answer->{headers}{location}", '301 sub/', 'a folder');
is($gateway->get($_)->{status}, 404, $_)
  foreach '/.env', '/.git/config', '/node_modules/x.js', '/../outside.txt', '/%2e%2e/outside.txt', '/sub/../../outside.txt', '//a.js', '/a.js/';

# ---- health and numbers; one round trip each ----

is($gateway->get('/healthz')->{body}, "ok\n", '/healthz');
my $metrics = $gateway->get('/metrics');
like($metrics->{headers}{'content-type'}, qr{^application/openmetrics-text}, '/metrics');
is(join('', grep { !/^(# (TYPE|HELP|EOF)|poll_gateway_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")?\})? [0-9.]+$)/ } split /^/m, $metrics->{body}),
	'', 'each line is OpenMetrics');
like($metrics->{body}, qr/# EOF\n\z/, 'to the end');

my $socket = $gateway->connection;
my $count = 'SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()';
my $requests = $gateway->metric('poll_gateway_requests_total{route="poll",status="200"}');
is(join(' ', map { $gateway->request('GET', '/poll?feeds=messages', socket => $socket)->{status} } 1 .. 20),
	join(' ', (200) x 20), 'on a connection that is kept');
is($gateway->metric('poll_gateway_requests_total{route="poll",status="200"}'), $requests + 20, 'requests are counted');
$gateway->stop;

# The number of its transaction within the session
$db->do(<<'SQL');
CREATE FUNCTION api.transaction(jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT split_part(virtualtransaction, '/', 2) FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1 $$;
SQL
my $single = start_gateway($node, '-c', 1, '-f', 'api.transaction');
my $first = $single->call('transaction', '{}')->{body};
$single->get('/poll?feeds=messages') foreach 1 .. 20;
is($single->call('transaction', '{}')->{body} - $first, 21, 'each request is one transaction');
$single->stop;

done_testing();
