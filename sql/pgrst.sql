-- poll.pgrst_poll() and poll.pgrst_pre_request(): what they make of each setting of PostgREST, and which they set

\set VERBOSITY default
\set SHOW_CONTEXT errors
SET poll_ext.debug_rate_clock = 1000;

CREATE TABLE pgrst_message (id int PRIMARY KEY, room int, body text);
INSERT INTO pgrst_message SELECT i, i % 2, 'message ' || i FROM generate_series(1, 6) AS i;
CREATE TABLE pgrst_other (id int PRIMARY KEY);
SELECT poll.track('pgrst_message', 'messages'), poll.track('pgrst_message', 'rooms', scope => '{room}'), poll.track('pgrst_other', 'others');

-- cursors, tags and versions are not the same in each run
CREATE FUNCTION masked(value text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(value, '("poll_after":|X-Poll-Interval: )[0-9.]+', '\1...'), '"version":\d+', '"version":...'), '(cursor=|"cursor":")[A-Za-z0-9_-]+', '\1...'),
		'([pf]1)\.[A-Za-z0-9_-]{22}', '\1...', 'g'), '"timestamp":"[^"]*"', '"timestamp":"..."')
$$;
-- a request as PostgREST tells of it, and what the function has set
CREATE FUNCTION request(headers text, method text DEFAULT 'GET', path text DEFAULT '/rpc/poll', before text DEFAULT '') RETURNS void LANGUAGE sql AS $$
	SELECT set_config('request.headers', headers, false), set_config('request.method', method, false), set_config('request.path', path, false),
		set_config('response.headers', before, false), set_config('response.status', '', false)
$$;
CREATE FUNCTION answer() RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
	SELECT 'status ' || current_setting('response.status', true)
	UNION ALL SELECT masked(h.key || ': ' || h.value) FROM jsonb_array_elements(nullif(current_setting('response.headers', true), '')::jsonb) AS e, jsonb_each_text(e) AS h
$$;
CREATE FUNCTION header(name text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT e->>name FROM jsonb_array_elements(current_setting('response.headers')::jsonb) AS e WHERE e ? name
$$;
CREATE FUNCTION inm(tag text) RETURNS text LANGUAGE sql AS $$ SELECT jsonb_build_object('if-none-match', tag)::text $$;
-- settings are those of a transaction: each request is one
CREATE PROCEDURE get(headers text, feeds text[] DEFAULT '{messages}', cursor text DEFAULT NULL, method text DEFAULT 'GET', path text DEFAULT '/rpc/poll',
	before text DEFAULT '', max_rows int DEFAULT 100, scope jsonb DEFAULT NULL, client text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	body text;
	line text;
BEGIN
	PERFORM request(headers, method, path, before);
	body := poll.pgrst_poll(feeds, cursor, max_rows => max_rows, scope => scope, client => client);
	FOR line IN SELECT answer() LOOP RAISE INFO '%', line; END LOOP;
	RAISE INFO '%', coalesce(masked(body), 'no body');
END
$$;
\pset tuples_only on
\pset format unaligned

-- without PostgREST
SELECT masked(poll.pgrst_poll('{messages}', 'now')::text);
-- 200: with headers and without, and with the empty text, which a setting is after a transaction that had it
CALL get('{}', max_rows => 2);
CALL get('', cursor => 'now');
-- the tag is that of poll.respond(), and in the body, too; with a full page and an empty one
SELECT (b->>'etag') = header('ETag'), (b->>'etag') = headers->>'ETag', b::jsonb - 'etag' = body::jsonb
  FROM (SELECT request('{}'), poll.pgrst_poll('{messages}', max_rows => 3) AS b OFFSET 0) AS p, poll.respond('{"query": "feeds=messages&max_rows=3"}');
SELECT request('{}') \g /dev/null
BEGIN;
SELECT poll.pgrst_poll('{messages}', poll.current_cursor('{messages}'))->>'etag' = header('ETag');
COMMIT;
-- 304, for GET and HEAD
SELECT poll.current_cursor('{messages}') AS cursor \gset
SELECT poll.pgrst_poll('{messages}', :'cursor')->>'etag' AS tag \gset
CALL get(inm(:'tag'), cursor => :'cursor');
CALL get(inm('"x", ' || substr(:'tag', 3)), cursor => :'cursor', method => 'HEAD');
CALL get(inm('*'), cursor => :'cursor');
-- not for other methods, another tag, or what is none
CALL get(inm(:'tag'), cursor => :'cursor', method => 'POST');
CALL get(inm(:'tag'), cursor => :'cursor', method => '');
CALL get(inm('W/"p1.x"'), cursor => :'cursor');
CALL get(inm('nonsense'), cursor => :'cursor');
CALL get('{"if-none-match": null}', cursor => :'cursor');
CALL get('{"if-none-match": ["*"]}', cursor => :'cursor');
-- no stale 304 after a change
INSERT INTO pgrst_message VALUES (7, 1, 'new');
CALL get(inm(:'tag'), cursor => :'cursor');
SELECT poll.current_cursor('{messages}') AS cursor \gset
-- headers that were set before stay, in front
CALL get('{}', cursor => :'cursor', before => '[{"X-A": "b"}, {"Set-Cookie": "ü\"\n"}]');
CALL get('{}', cursor => :'cursor', before => '[]');
-- Link, if a function that is called so takes the parameters by these names
CREATE FUNCTION poll_feeds(feeds text[], cursor text, max_rows int DEFAULT 1, scope jsonb DEFAULT NULL) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION poll_feeds_only(feeds text[], cursor text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION poll_more(feeds text[], cursor text, max_rows int, room int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION poll_messages(cursor text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CALL get('{}', '{messages,others}', max_rows => 1, path => '/rpc/poll_feeds');
CALL get('{}', '{rooms}', max_rows => 1, scope => '{"room": 1}', path => '/rpc/poll_feeds');
SELECT path, header('Link') IS NOT NULL FROM unnest('{/rpc/poll_feeds, /rpc/poll_feeds_only, /rpc/poll_more, /rpc/poll_messages, /rpc/nonsense, /rpc/, /rpc, /poll_feeds, ""}'::text[] || ('/rpc/' || repeat('x', 100))) AS path,
	LATERAL (SELECT request('{}', path => path), poll.pgrst_poll('{messages}', max_rows => 2) OFFSET 0) AS r;
-- 429, and what remains
SELECT poll.set_rate_policy('poll', 2, '1 min', 'strict');
CALL get('{}', cursor => :'cursor', client => 'ann');
SELECT poll.pgrst_poll('{messages}', :'cursor')->>'etag' AS tag \gset
CALL get(inm(:'tag'), cursor => :'cursor', client => 'ann');
CALL get('{}', cursor => :'cursor', client => 'ann');
CALL get('{}', cursor => :'cursor', client => 'ann', before => '[{"X-A": "b"}]');
CALL get(inm(:'tag'), cursor => :'cursor', client => 'ann');
CALL get('{}', cursor => :'cursor');
CALL get('{}', cursor => :'cursor', client => '');
SELECT poll.drop_rate_policy('poll');
-- errors are raised
CALL get('{}', NULL);
CALL get('{}', '{}');
CALL get('{}', cursor => 'x');
CALL get('{}', cursor => 'now', max_rows => 0);
CALL get('{}', cursor => 'now', max_rows => NULL);
CALL get('{}', '{nonsense}');
SELECT poll.pgrst_poll('{messages}', 'now', now());
SELECT poll.current_cursor('{others}') AS old, poll.untrack('others') \gset
SELECT poll.track('pgrst_other', 'others');
CALL get('{}', '{others}', cursor => :'old');
-- settings that PostgREST does not make
CALL get('x');
CALL get('[]');
CALL get('"x"');
CALL get('{"if-none-match": "\u0000"}');
\set SHOW_CONTEXT never
CALL get(repeat('[', 100000));
\set SHOW_CONTEXT errors
CALL get('{}', before => '{"X-A": "b"}');
CALL get('{}', before => '"x"');
CALL get('{}', before => 'x');

-- pre_request: paths that are listed get a tag
CREATE FUNCTION pre_request(headers text DEFAULT '{}', path text DEFAULT '/messages', method text DEFAULT 'GET', client text DEFAULT NULL,
	before text DEFAULT '', feeds jsonb DEFAULT '{"/messages": ["messages"], "/all": ["messages", "others"]}', variant text DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM request(headers, method, path, before);
	PERFORM poll.pgrst_pre_request(feeds, client, variant => variant);
	RETURN QUERY SELECT answer();
END
$$;
CREATE FUNCTION tag(headers text DEFAULT '{}', path text DEFAULT '/messages', method text DEFAULT 'GET', variant text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pre_request(headers, path, method, variant => variant);
	RETURN header('ETag');
END
$$;
SELECT pre_request();
SELECT pre_request(path => '/other', before => '[]');
SELECT pre_request(path => '');
SELECT pre_request(method => 'POST', before => '[{"X-A": "b"}]');
SELECT pre_request(method => 'HEAD', before => '[{"X-A": "b"}]');
SELECT pre_request(feeds => NULL);
SELECT poll.pgrst_pre_request();
-- it stays until there is a change in one of the feeds
SELECT tag() AS tag, tag(path => '/all') AS tag_all \gset
SELECT tag() = :'tag', tag(path => '/all') = :'tag_all', tag(method => 'HEAD') = :'tag';
INSERT INTO pgrst_other VALUES (1);
SELECT tag() = :'tag', tag(path => '/all') = :'tag_all';
-- all that an answer may depend on counts, and nothing else
SELECT name, tag(jsonb_build_object(name, 'x')::text) = :'tag' FROM unnest('{accept, accept-language, accept-profile, prefer, range, range-unit, user-agent, x-forwarded-for, cache-control}'::text[]) AS name;
SELECT tag('{"accept": "a", "prefer": "b"}') = tag('{"accept": "b", "prefer": "a"}'), tag('{"accept": "-"}') = :'tag', tag('{"accept": ""}') = :'tag', tag('') = :'tag';
SELECT tag(variant => 'x') = :'tag', tag(variant => '') = :'tag', tag(variant => NULL) = :'tag';
SET request.jwt.claims = '{"sub": "ann"}';
SELECT tag() = :'tag';
SET request.jwt.claims = '';
SET request.cookies = '{"a": "b"}';
SELECT tag() = :'tag';
SET request.cookies = '';
SELECT tag() = :'tag';
-- the role is that of the client, also where the function runs as somebody else
CREATE ROLE pgrst_anon;
CREATE ROLE pgrst_user;
ALTER FUNCTION pre_request SECURITY DEFINER;
GRANT SELECT ON pgrst_message TO pgrst_anon, pgrst_user;
SET ROLE pgrst_anon;
SELECT tag() AS tag_anon \gset
SET ROLE pgrst_user;
SELECT tag() = :'tag', tag() = :'tag_anon';
RESET ROLE;
-- 304 is an error that PostgREST knows
\set SHOW_CONTEXT never
CREATE FUNCTION raised(headers text, path text DEFAULT '/messages', method text DEFAULT 'GET', client text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM pre_request(headers, path, method, client);
	RETURN 'nothing';
EXCEPTION WHEN SQLSTATE 'PGRST' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN masked(jsonb_pretty(sqlerrm::jsonb) || E'\n' || jsonb_pretty(detail::jsonb));
END
$$;
SELECT raised(inm(:'tag'));
SELECT raised(inm(:'tag'), method => 'HEAD') ~ '"status": 304', raised(inm('"x", ' || :'tag')) ~ '"status": 304', raised(inm('*')) ~ '"status": 304';
SELECT raised(inm(:'tag'), method => 'POST'), raised(inm(:'tag'), '/all'), raised(inm(:'tag'), '/other'), raised(inm('x'));
INSERT INTO pgrst_message VALUES (8, 1, 'newer');
SELECT raised(inm(:'tag'));
-- a limit; 304 costs nothing, also to who has nothing left
SELECT poll.set_rate_policy('default', 2, '1 min', 'strict');
SELECT tag() AS tag \gset
SELECT raised(inm(:'tag'), client => 'ann') ~ '"status": 304' FROM generate_series(1, 3);
SELECT pre_request(client => 'ann', before => '[{"X-A": "b"}]');
SELECT pre_request(client => 'ann', path => '/other');
SELECT raised('{}', client => 'ann');
SELECT raised('{}', client => 'ann', path => '/other') ~ '"status": 429', raised(inm(:'tag'), client => 'ann') ~ '"status": 304';
SELECT raised('{}', client => 'bob');
SELECT pre_request(client => '');
SELECT poll.drop_rate_policy('default');
SELECT count(*) FROM pre_request(client => 'ann', path => '/other') WHERE pre_request !~ '^status $';
-- what is no list of feeds for paths
SELECT pre_request(feeds => '[]');
SELECT pre_request(feeds => '"x"');
SELECT pre_request(feeds => '{"/messages": "messages"}');
SELECT pre_request(feeds => '{"/messages": [1]}');
SELECT pre_request(feeds => '{"/messages": {"a": "b"}}');
SELECT pre_request(feeds => '{"/messages": []}');
SELECT pre_request(feeds => '{"/messages": ["nonsense"]}');
SELECT pre_request(feeds => '{"/messages": ["rooms"]}');
SELECT count(*) FROM pre_request(feeds => '{"/messages": null}');
SELECT poll.pgrst_pre_request(endpoint => NULL);
SELECT pre_request('x');
SELECT pre_request(before => 'x');
SELECT raised('{"accept": "' || repeat('x', 1000000) || '"}');

-- whoever calls them says who the client is, so not everybody may; rows are those of the caller
SET ROLE pgrst_user;
SELECT poll.pgrst_poll('{messages}');
SELECT poll.pgrst_pre_request();
RESET ROLE;
GRANT EXECUTE ON FUNCTION poll.pgrst_poll TO pgrst_user, pgrst_anon;
ALTER TABLE pgrst_message ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pgrst_message TO pgrst_user USING (room = 0);
SET ROLE pgrst_user;
BEGIN READ ONLY;
SELECT json_array_length(poll.pgrst_poll('{messages}')->'changes'->'messages');
COMMIT;
SET ROLE pgrst_anon;
SELECT json_array_length(poll.pgrst_poll('{messages}')->'changes'->'messages');
SELECT poll.pgrst_poll('{others}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION poll.pgrst_poll FROM pgrst_user, pgrst_anon;
DROP OWNED BY pgrst_user, pgrst_anon;
DROP ROLE pgrst_user, pgrst_anon;

\pset tuples_only off
\pset format aligned
SELECT poll.untrack('messages'), poll.untrack('rooms'), poll.untrack('others');
DROP TABLE pgrst_message, pgrst_other;
DROP FUNCTION masked, request, answer, header, inm, poll_feeds, poll_feeds_only, poll_more, poll_messages, pre_request, tag, raised;
DROP PROCEDURE get;
