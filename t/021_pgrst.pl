# examples/postgrest: what PostgREST does for a request, statement by statement,
# gets the right status, headers and body, and never a stale 304; in READ ONLY
# transactions, for roles without further rights, on a standby, with a quiet log.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_node('primary', streaming => 1);
$primary->psql('postgres', slurp_file('examples/postgrest/api.sql'), on_error_die => 1);
# the clock of the limits stands still
$primary->safe_psql('postgres', 'ALTER DATABASE postgres SET poll_ext.debug_rate_clock = 1000');
my $admin = connect_to($primary);
$admin->do(q{SELECT poll.set_rate_policy('poll', 1000, '1 min'), poll.set_rate_policy('default', 1000, '1 min')});

sub connect_as_authenticator
{
	my $db = connect_to($_[0]);

	$db->do('SET SESSION AUTHORIZATION authenticator');
	return $db;
}

my $db = connect_as_authenticator($primary);

# The headers as PostgREST sends them: names in lower case, values of the same
# name joined.
sub join_headers
{
	my %result;

	foreach my $header (@_)
	{
		my ($name, $value) = %$header;

		push @{ $result{ lc $name } }, $value;
	}
	return { map { $_ => join ', ', @{ $result{$_} } } keys %result };
}

# What PostgREST makes of an error.
sub error_answer
{
	my ($db) = @_;
	my ($state, $message, $detail, $hint) =
	  map { $db->pg_error_field($_) } qw(sqlstate message_primary message_detail message_hint);

	if ($state eq 'PGRST')
	{
		my $answer = decode_json($detail);

		return { status => $answer->{status}, body => decode_json($message),
			headers => join_headers(map { { $_ => $answer->{headers}{$_} } } keys %{ $answer->{headers} }) };
	}
	return { status => $state =~ /^PT(\d{3})$/ ? $1 : $state, headers => {},
		body => { code => $state, message => $message, details => $detail, hint => $hint } };
}

# A request.  Options:
#	user, headers	who asks, and with what
#	args			of a function
#	main			the query, instead of that of the path
#	before			what another pre-request function has set
#	between			a function that is called between pre-request and the query
# The answer says whether the main query ran.
sub request
{
	my ($db, $method, $path, %option) = @_;
	my $claims = $option{user} ? qq({"role": "web_user", "sub": "$option{user}"}) : '{"role": "web_anon"}';
	my %args = %{ $option{args} // {} };
	my @names = sort keys %args;
	my $body = $method eq 'HEAD' ? 'NULL::text' : $path =~ m{^/rpc/} ? 'pgrst_scalar::text' : q{coalesce(json_agg(to_jsonb(pgrst_source) ORDER BY id), '[]')::text};
	my $source = $option{main} ? $option{main} : $path =~ m{^/rpc/(\w+)$} ? "api.$1(" . join(', ', map { "$_ => ?" } @names) . ')' : undef;
	my $sql = $source ? "SELECT $source AS pgrst_scalar" : 'SELECT * FROM api.' . substr($path, 1);
	my $answer;

	$db->do('BEGIN ISOLATION LEVEL READ COMMITTED READ ' . ($method eq 'POST' ? 'WRITE' : 'ONLY'));
	$db->do(q{SELECT set_config('search_path', '"api", "public"', true), set_config('role', ?, true), set_config('request.jwt.claims', ?, true),
		set_config('request.method', ?, true), set_config('request.path', ?, true), set_config('request.headers', ?, true), set_config('request.cookies', '{}', true)},
		undef, $option{user} ? 'web_user' : 'web_anon', $claims, $method, $path, encode_json($option{headers} // {}));
	$db->do(q{SELECT set_config('response.headers', ?, true)}, undef, $option{before}) if $option{before};
	$answer = eval {
		$db->do('SELECT api.pre_request()');
		$option{between}->() if $option{between};
		my ($text, $headers, $status) = $db->selectrow_array(<<SQL, undef, @args{@names});
WITH pgrst_source AS ($sql)
SELECT $body, nullif(current_setting('response.headers', true), ''), nullif(current_setting('response.status', true), '') FROM pgrst_source
SQL
		$db->do('COMMIT');
		{ status => $status // 200, headers => join_headers(@{ decode_json($headers // '[]') }), body => defined $text ? decode_json($text) : undef, ran => 1 };
	};
	if (!$answer)
	{
		$answer = error_answer($db);
		$db->do('ROLLBACK');
	}
	return $answer;
}

sub encode_json { return JSON::PP->new->canonical->encode($_[0]); }

sub get { my ($path, %option) = @_; return request($option{db} // $db, 'GET', $path, %option); }

# GET /rpc/poll; the rest is as in request()
sub poll
{
	my ($args, %option) = @_;

	return request($option{db} // $db, $option{method} // 'GET', '/rpc/poll', args => $args, %option);
}

# The status of a request that has the tag.
sub status_with
{
	my ($path, $tag, %option) = @_;

	return get($path, %option, headers => { %{ $option{headers} // {} }, 'if-none-match' => $tag })->{status};
}

sub bodies { return join ' ', map { $_->{body} } @{ $_[0]{body} }; }

sub is_tag { like($_[0]{headers}{etag}, qr{^W/"[pf]1\.[A-Za-z0-9_-]{22}"$}, $_[1]); }

# ---- polls ----

sub test_poll
{
	my $first = poll({ feeds => '{announcements}', max_rows => 2 });

	is($first->{status}, 200, 'poll: 200');
	is(scalar @{ $first->{body}{changes}{announcements} }, 2, 'a page');
	is_tag($first, 'with a tag');
	is($first->{body}{etag}, $first->{headers}{etag}, 'that is in the body, too');
	is($first->{headers}{'cache-control'}, 'private, no-cache', 'Cache-Control');
	like($first->{headers}{vary}, qr/\b$_\b/, "Vary has $_") foreach qw(Authorization Accept Prefer Range);
	like($first->{headers}{'access-control-expose-headers'}, qr/ETag.*Retry-After/, 'the headers are exposed');
	like($first->{headers}{'ratelimit-policy'}, qr/^"poll";q=1000;w=60$/, 'RateLimit-Policy: charged once, for the poll');

	my ($query) = $first->{headers}{link} =~ /^<\?(.*)>; rel="next"$/;
	my %next = map { s/%(..)/chr hex $1/egr } map { split /=/, $_, 2 } split /&/, $query;
	is($next{feeds}, '{announcements}', 'Link has the feeds as PostgREST takes them');
	my $second = poll(\%next);
	is(join(' ', map { $_->{data}{body} } @{ $second->{body}{changes}{announcements} }), 'No coffee', 'and leads to the rest');
	ok(!exists $second->{headers}{link}, 'which is the last page');

	my %args = (feeds => '{announcements}', cursor => $second->{body}{cursor});
	my $quiet = poll(\%args);
	my %same = (headers => { 'if-none-match' => $quiet->{headers}{etag} });
	my $unchanged = poll(\%args, %same);
	is($unchanged->{status}, 304, 'nothing new: 304');
	is($unchanged->{body}, undef, 'without a body');
	is($unchanged->{headers}{'content-length'}, '0', 'Content-Length');
	is($unchanged->{headers}{etag}, $quiet->{headers}{etag}, 'and the tag');
	is(poll(\%args, %same, method => 'HEAD')->{status}, 304, 'HEAD: 304');
	is(poll(\%args, %same, method => 'POST')->{status}, 200, 'POST: 200');

	my $head = poll(\%args, method => 'HEAD');
	is($head->{status}, 200, 'HEAD: 200');
	is($head->{headers}{etag}, $quiet->{headers}{etag}, 'with the tag of GET');
	is($head->{body}, undef, 'without a body');
	$admin->do(q{CREATE FUNCTION api.stable_poll(feeds text[]) RETURNS json LANGUAGE plpgsql STABLE AS 'BEGIN RETURN poll.pgrst_poll(feeds); END'});
	is(request($db, 'HEAD', '/rpc/stable_poll', args => { feeds => '{announcements}' })->{headers}{etag}, undef, '(a STABLE function is not called for HEAD)');
	is_tag(request($db, 'GET', '/rpc/stable_poll', args => { feeds => '{announcements}' }), '(but for GET)');
	$admin->do('DROP FUNCTION api.stable_poll');

	$admin->do(q{UPDATE app.announcement SET body = 'Coffee!' WHERE id = 3});
	my $changed = poll(\%args, %same);
	is($changed->{status}, 200, 'after a change: 200');
	is($changed->{body}{changes}{announcements}[0]{data}{body}, 'Coffee!', 'with the change');

	is(poll(\%args, before => '[{"X-Trace": "7"}]')->{headers}{'x-trace'}, '7', 'what others have set stays');
	is(poll({ feeds => '{announcements}', since => $second->{body}{timestamp} })->{status}, 200, 'since a time');
	return;
}

sub test_errors
{
	my $cursor = poll({ feeds => '{announcements}', cursor => 'now' })->{body}{cursor};

	is(poll({ feeds => '{announcements}', cursor => "x\ny" })->{status}, 400, 'no cursor: 400');
	is(poll({ feeds => '{announcements}', max_rows => 0 })->{status}, 400, 'max_rows: 400');
	is(poll({ feeds => '{messages}', cursor => $cursor })->{status}, 404, 'a feed that the role may not read: 404');
	is(poll({ feeds => '{messages}', cursor => $cursor }, user => 'ann')->{status}, 400, 'a cursor of other feeds: 400');
	my $unknown = poll({ feeds => qq({"a\r\nSet-Cookie: x"}) });
	is($unknown->{status}, 404, 'no feed: 404');
	is($unknown->{body}{message}, 'unknown feed', 'whose message has nothing of the request');
	$admin->do(q{SELECT poll.untrack('announcements')});
	$admin->do(q{SELECT poll.track('app.announcement', 'announcements')});
	is(poll({ feeds => '{announcements}', cursor => $cursor })->{status}, 410, 'tracked again: 410');
	return;
}

sub test_limit_of_polls
{
	my @ann = (user => 'ann');
	my %args = (feeds => '{messages}', cursor => poll({ feeds => '{messages}', cursor => 'now' }, @ann)->{body}{cursor});
	my $tag = poll(\%args, @ann)->{headers}{etag};

	is(fetch_value($admin, q{SELECT has_function_privilege('web_user', 'poll.rate_check(text, text, int)', 'EXECUTE')}), 0, 'without the right to call rate_check');
	$admin->do(q{SELECT poll.set_rate_policy('poll', 2, '1 minute', 'strict')});
	is(poll(\%args, @ann, headers => { 'if-none-match' => $tag })->{status}, 304, '304 costs nothing') foreach 1 .. 3;
	is(poll(\%args, @ann)->{headers}{ratelimit}, qq("poll";r=$_;t=66), "$_ remain") foreach 1, 0;
	my $refused = poll(\%args, @ann);
	is($refused->{status}, 429, 'then 429');
	is($refused->{headers}{'retry-after'}, '66', 'Retry-After');
	is($refused->{headers}{'cache-control'}, 'no-store', 'Cache-Control');
	is($refused->{headers}{ratelimit}, '"poll";r=0;t=66', 'RateLimit');
	is($refused->{body}{retry_after}, 66, 'and in the body');
	is($refused->{body}{code}, 'PT429', 'which is like that of an error');
	is(poll(\%args, user => 'bob')->{status}, 200, 'others may ask');
	is(poll({ feeds => '{announcements}' }, headers => { 'x-forwarded-for' => '203.0.113.7' })->{status}, $_, "of an address: $_") foreach 200, 200, 429;
	$admin->do(q{SELECT poll.set_rate_policy('poll', 1000, '1 minute')});
	return;
}

# ---- pages ----

sub test_pages
{
	my @ann = (user => 'ann');
	my $page = get('/messages', @ann);
	my $tag = $page->{headers}{etag};

	is($page->{status}, 200, 'page: 200');
	is(bodies($page), 'hello hi', 'as the user sees it');
	is_tag($page, 'with a tag');
	is($page->{headers}{'cache-control'}, 'private, no-cache', 'Cache-Control');
	my $unchanged = get('/messages', @ann, headers => { 'if-none-match' => $tag });
	is($unchanged->{status}, 304, 'then 304');
	ok(!$unchanged->{ran}, 'without the query');
	is($unchanged->{headers}{etag}, $tag, 'with the tag');
	is($unchanged->{headers}{'content-length'}, '0', 'Content-Length');
	is(request($db, 'HEAD', '/messages', @ann)->{headers}{etag}, $tag, 'HEAD: the same tag');
	is(request($db, 'POST', '/messages', @ann)->{headers}{etag}, undef, 'POST: none');
	is(get('/members', @ann, main => 'NULL')->{headers}{etag}, undef, 'a path that is not listed: none');

	is(bodies(get('/messages', user => 'bob')), 'hello hi anybody here?', 'another user sees other rows');
	is(status_with('/messages', $tag, user => 'bob'), 200, 'and has another tag');
	foreach my $name (qw(accept accept-profile prefer range))
	{
		is(status_with('/messages', $tag, @ann, headers => { $name => 'x' }), 200, "$name has another tag");
	}
	my $public = get('/announcements')->{headers}{etag};
	is(status_with('/announcements', $public), 304, 'anonymous: 304');
	is(status_with('/announcements', $public, @ann), 200, 'another role has another tag');

	$admin->do(q{INSERT INTO app.announcement (body) VALUES ('Tea')});
	is(status_with('/messages', $tag, @ann), 304, 'a change elsewhere: 304');
	is(status_with('/announcements', $public), 200, 'and there: 200');
	$admin->do(q{INSERT INTO app.message (room_id, author, body) VALUES (1, 'ann', 'anything new?')});
	is(status_with('/messages', $tag, @ann), 200, 'a change: 200');
	$tag = get('/messages', @ann)->{headers}{etag};
	$admin->do(q{INSERT INTO app.member VALUES (2, 'ann')});
	my $joined = get('/messages', @ann, headers => { 'if-none-match' => $tag });
	is($joined->{status}, 200, 'a change of the membership: 200');
	is(bodies($joined), 'hello hi anybody here? anything new?', 'with what is to be seen now');
	$admin->do(q{DELETE FROM app.member WHERE room_id = 2 AND name = 'ann'});
	is(status_with('/messages', $joined->{headers}{etag}, @ann), 200, 'and back: 200');
	return;
}

# The tag is that of the state before, so the change is not missed.
sub test_change_in_between
{
	my @ann = (user => 'ann');
	my $page = get('/messages', @ann, between => sub { $admin->do(q{UPDATE app.message SET body = 'HELLO' WHERE id = 1}); });
	my $next;

	is(bodies($page), 'HELLO hi anything new?', 'a change after pre-request is in the answer');
	$next = get('/messages', @ann, headers => { 'if-none-match' => $page->{headers}{etag} });
	is($next->{status}, 200, 'which is sent again');
	is(status_with('/messages', $next->{headers}{etag}, @ann), 304, 'once');

	$page = get('/messages', @ann, between => sub { $admin->do(q{UPDATE app.message SET body = 'hello' WHERE id = 1}); },
		headers => { 'if-none-match' => $page->{headers}{etag} });
	is(bodies($page), 'hello hi anything new?', 'and back');
	is(bodies(get('/messages', @ann, headers => { 'if-none-match' => $page->{headers}{etag} })), 'hello hi anything new?', 'it is not taken for what was before');
	return;
}

sub test_limit_of_requests
{
	my @carl = (user => 'carl');
	my $tag = get('/messages', @carl)->{headers}{etag};

	$admin->do(q{SELECT poll.set_rate_policy('default', 2, '1 minute', 'strict')});
	is(status_with('/messages', $tag, @carl), 304, '304 costs nothing') foreach 1 .. 3;
	is(get('/messages', @carl)->{headers}{ratelimit}, qq("default";r=$_;t=66), "$_ remain") foreach 1, 0;
	my $refused = get('/messages', @carl);
	is($refused->{status}, 429, 'then 429');
	ok(!$refused->{ran}, 'without the query');
	is($refused->{headers}{'retry-after'}, '66', 'Retry-After');
	is($refused->{headers}{'cache-control'}, 'no-store', 'Cache-Control');
	is($refused->{body}{code}, 'PT429', 'code');
	is(decode_json($refused->{body}{details})->{retry_after}, 66, 'details');
	is(status_with('/messages', $tag, @carl), 304, 'still 304');
	is(request($db, 'POST', '/messages', @carl)->{status}, 429, 'POST, too');
	is(poll({ feeds => '{messages}', cursor => 'now' }, @carl)->{status}, 200, 'polls have a quota of their own');
	$admin->do(q{SELECT poll.set_rate_policy('default', 1000, '1 minute')});
	return;
}

# ---- the log, and a standby ----

sub test_log
{
	my ($node, $db) = @_;
	my $log = slurp_file($node->logfile);

	unlike($log, qr/PT304/, '304 is not in the log');
	unlike($log, qr/PT429/, '429 is not either');
	eval { $db->do(q{DO 'BEGIN RAISE SQLSTATE ''PGRST'' USING MESSAGE = ''{"code": "mine"}'', DETAIL = ''{"status": 418}''; END'}); };
	eval { $db->do(q{SELECT set_config('request.headers', 'no json', false), set_config('request.method', 'GET', false), set_config('role', 'web_anon', false)}); $db->do(q{SELECT poll.pgrst_poll('{announcements}')}); };
	like(slurp_file($node->logfile, length $log), qr/ERROR:  \{"code": "mine"\}.*ERROR:  invalid input syntax for type json/s, 'errors of others are, and other errors');
	return;
}

sub test_standby
{
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	my $here = $db;
	my @ann = (user => 'ann');
	my $there;
	my %args = (feeds => '{messages}', cursor => poll({ feeds => '{messages}', cursor => 'now' }, @ann)->{body}{cursor});

	$primary->backup('backup');
	$standby->init_from_backup($primary, 'backup', has_streaming => 1);
	$standby->start;
	$there = connect_as_authenticator($standby);
	$admin->do(q{UPDATE app.message SET body = 'hello!' WHERE id = 1});
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

	my $answer = poll(\%args, @ann, db => $there);
	is($answer->{body}{changes}{messages}[0]{data}{body}, 'hello!', 'standby: a poll');
	is(poll(\%args, @ann, db => $there, headers => { 'if-none-match' => $answer->{headers}{etag} })->{status}, 304, 'standby: 304');
	is(poll(\%args, @ann, headers => { 'if-none-match' => $answer->{headers}{etag} })->{status}, 304, 'on the primary with the tag of the standby, too');
	my $tag = get('/messages', @ann, db => $there)->{headers}{etag};
	is($tag, get('/messages', @ann)->{headers}{etag}, 'standby: the tag of a page is the same');
	is(status_with('/messages', $tag, @ann, db => $there), 304, 'standby: 304 of a page');
	is(poll({ feeds => '{announcements}', cursor => 'x' }, db => $there)->{status}, 400, 'standby: 400');

	$admin->do(q{SELECT poll.set_rate_policy('poll', 1, '1 minute'), poll.set_rate_policy('default', 1, '1 minute')});
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	is(poll(\%args, db => $there, user => 'dora')->{status}, $_, "standby: $_ for a poll") foreach 200, 429;
	is(get('/messages', db => $there, user => 'dora')->{status}, $_, "standby: $_ for a page") foreach 200, 429;
	test_log($standby, $there);
	return;
}

test_poll();
test_errors();
test_limit_of_polls();
test_pages();
test_change_in_between();
test_limit_of_requests();
test_standby();
test_log($primary, $db);

done_testing();
