-- poll.respond(): each status with its headers and body, and what requests may look like

\set VERBOSITY default
\set SHOW_CONTEXT never
SET poll_ext.debug_rate_clock = 1000;

CREATE TABLE respond_message (id int PRIMARY KEY, room int, body text);
INSERT INTO respond_message SELECT i, i % 2, 'message ' || i FROM generate_series(1, 6) AS i;
CREATE TABLE respond_other (id int PRIMARY KEY);
SELECT poll.track('respond_message', 'messages'), poll.track('respond_message', 'rooms', scope => '{room}'), poll.track('respond_other', 'others');

-- cursors and tags are not the same in each run
CREATE FUNCTION masked(value text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(value, '(cursor=|"cursor":")[A-Za-z0-9_-]+', '\1...'),
		'p1\.[A-Za-z0-9_-]{22}"', 'p1..."'), '"timestamp":"[^"]*"', '"timestamp":"..."'),
		'"poll_after":[0-9.]+', '"poll_after":...')
$$;
CREATE FUNCTION show(request jsonb) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT line FROM poll.respond(request) AS r,
		LATERAL (SELECT 0, status::text UNION ALL
				 SELECT 1, (SELECT string_agg(key || ': ' || CASE key WHEN 'X-Poll-Interval' THEN '...' ELSE masked(value) END, E'\n' ORDER BY key) FROM jsonb_each_text(headers) WHERE key !~ '^Access') UNION ALL
				 SELECT 2, masked(body)) AS l (n, line) WHERE line IS NOT NULL ORDER BY n
$$;
CREATE FUNCTION get(query text, headers jsonb DEFAULT '{}', client text DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('method', 'GET', 'path', '/poll', 'query', query, 'headers', headers, 'client', client)
$$;
\pset tuples_only on
\pset format unaligned

-- 200: a page of a full sync, and the next
SELECT show(get('feeds=messages&max_rows=2'));
SELECT headers->>'Link' AS link FROM poll.respond(get('feeds=messages&max_rows=5')) \gset
SELECT show(get(substring(:'link' FROM '\?(.*)>')));
-- nothing new: an empty answer, then 304
SELECT poll.current_cursor('{messages}') AS cursor \gset
SELECT show(get('feeds=messages&cursor=' || :'cursor'));
SELECT headers->>'ETag' AS tag FROM poll.respond(get('feeds=messages&cursor=' || :'cursor')) \gset
SELECT show(get('feeds=messages&cursor=' || :'cursor', jsonb_build_object('if-none-match', :'tag')));
SELECT show(get('feeds=messages&cursor=' || :'cursor', jsonb_build_object('if-none-match', '"x", ' || :'tag')));
SELECT status FROM poll.respond(get('feeds=messages&cursor=' || :'cursor', '{"if-none-match": "*"}'));
SELECT status FROM poll.respond(get('feeds=messages&cursor=' || :'cursor', '{"if-none-match": "W/\"p1.x\""}'));
SELECT status FROM poll.respond(get('feeds=messages&cursor=' || :'cursor', '{"if-none-match": "nonsense"}'));
-- the tag is one of what the caller sees, which may change without a change of the table
CREATE ROLE respond_reader;
GRANT SELECT ON respond_message TO respond_reader;
GRANT EXECUTE ON FUNCTION poll.respond TO respond_reader;
ALTER TABLE respond_message ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON respond_message TO respond_reader USING (room = current_setting('app.room')::int);
SELECT poll.current_cursor('{messages}') AS cursor_before \gset
UPDATE respond_message SET body = body || '!';
SET ROLE respond_reader;
SET app.room = 0;
SELECT status, headers->>'ETag' AS tag_0 FROM poll.respond(get('feeds=messages&cursor=' || :'cursor_before')) \gset
SELECT status FROM poll.respond(get('feeds=messages&cursor=' || :'cursor_before', jsonb_build_object('if-none-match', :'tag_0')));
SET app.room = 1;
SELECT status FROM poll.respond(get('feeds=messages&cursor=' || :'cursor_before', jsonb_build_object('if-none-match', :'tag_0')));
-- what a policy stumbles over is no fault of the client, and none of its business
SET app.room = 'secret';
SELECT poll.respond(get('feeds=messages&cursor=' || :'cursor_before'));
RESET ROLE;
ALTER TABLE respond_message DISABLE ROW LEVEL SECURITY;
SELECT poll.current_cursor('{messages}') AS cursor \gset
SELECT headers->>'ETag' AS tag FROM poll.respond(get('feeds=messages&cursor=' || :'cursor')) \gset
-- a change: 200 again, and 304 for the same question
UPDATE respond_message SET body = 'changed' WHERE id = 1;
SELECT status FROM poll.respond(get('feeds=messages&cursor=' || :'cursor', jsonb_build_object('if-none-match', :'tag')));
SELECT regexp_replace(body, '"version":\d+|"cursor":".*', '...', 'g'), headers->>'ETag' AS tag FROM poll.respond(get('feeds=messages&cursor=' || :'cursor')) \gset
SELECT :'regexp_replace';
SELECT status, body FROM poll.respond(get('feeds=messages&cursor=' || :'cursor', jsonb_build_object('if-none-match', :'tag')));
-- several feeds, a scope, since, now
SELECT masked(body) FROM poll.respond(get('feeds=messages,others&cursor=now'));
SELECT masked(body) FROM poll.respond(get('feeds=rooms&scope=%7B%22room%22%3A+1%7D&max_rows=1'));
SELECT headers->>'Link' ~ '^<\?feeds=rooms&scope=%7B%22room%22%3A%201%7D&max_rows=1&cursor=[^&]+>; rel="next"$' FROM poll.respond(get('feeds=rooms&scope=%7B%22room%22%3A+1%7D&max_rows=1'));
-- a link that would be too long is none
SELECT n, status, headers ? 'Link' AS link FROM generate_series(400, 450, 50) AS n, poll.respond(get('feeds=' || repeat('messages,', n) || 'others&max_rows=1'));
SELECT status FROM poll.respond(get('feeds=messages&since=' || replace(now()::text, '+', '%2B')));
-- feeds as an array, as clients of PostgREST write it
SELECT masked(body) FROM unnest('{"{messages,others}", "%7Bmessages,others%7D", "%7B%22messages%22,%22others%22%7D"}'::text[]) AS feeds, poll.respond(get('cursor=now&feeds=' || feeds));
SELECT masked(headers->>'Link') FROM poll.respond(get('feeds={messages,others}&max_rows=1'));
SELECT status, body::json->>'detail' FROM unnest('{"{", "{messages", "{\"", "{}", "{NULL}", "{messages,", "{messages}x", "{messages,nonsense}"}'::text[]) AS feeds, poll.respond(get('feeds=' || feeds));
-- HEAD: as GET, without a body
SELECT show(get('feeds=messages&cursor=now') || '{"method": "HEAD"}');
SELECT g.headers->>'ETag' = h.headers->>'ETag' FROM poll.respond(get('feeds=messages&cursor=' || :'cursor')) AS g, poll.respond(get('feeds=messages&cursor=' || :'cursor') || '{"method": "HEAD"}') AS h;
-- POST: a JSON object, as text or as it is
SELECT show(jsonb_build_object('method', 'POST', 'path', '/poll', 'body', '{"feeds": ["rooms"], "scope": {"room": 0}, "max_rows": 1}'));
SELECT masked(body) FROM poll.respond('{"method": "POST", "body": {"feeds": "messages,others", "cursor": "now"}}');
SELECT status FROM poll.respond(jsonb_build_object('method', 'POST', 'headers', '{"if-none-match": "*"}'::jsonb, 'body', '{"feeds": ["messages"], "cursor": "now"}'));
-- OPTIONS and CORS
SELECT status, jsonb_pretty(headers), body FROM poll.respond('{"method": "OPTIONS", "path": "/poll"}');
SELECT headers->'Access-Control-Allow-Origin', headers->'Access-Control-Expose-Headers' FROM poll.respond(get('feeds=messages&cursor=now'));
SET poll_ext.cors_origin = '';
SELECT count(*) FROM poll.respond(get('feeds=messages&cursor=now')) AS r, jsonb_object_keys(headers) AS k WHERE k ~ '^Access';
RESET poll_ext.cors_origin;

-- 400
SELECT request, status, body::json->>'detail', body::json->>'code' FROM (VALUES ('[]'::jsonb), ('"GET"'), ('{}'), (get('')), (get('feeds=')), (get('feed=messages')),
	(get('feeds=messages&cursor=x')), (get('feeds=messages&cursor=now&since=2026-01-01')), (get('feeds=messages&max_rows=0')), (get('feeds=messages&max_rows=10001')),
	(get('feeds=messages&max_rows=many')), (get('feeds=messages&max_rows=99999999999')), (get('feeds=messages&since=yesterdays')), (get('feeds=rooms')), (get('feeds=rooms&scope=x')),
	(get('feeds=rooms&scope=[1]')), (get('feeds=rooms&scope={"room":"x"}')), (get('feeds=messages&scope={"room":1}')), (get('feeds=%')), (get('feeds=%4')), (get('feeds=%zz')),
	(get('feeds=%00')), (get('feeds=%ff')), (get('feeds=messages', '[]')), (get('feeds=messages', '"x"')), ('{"method": "POST"}'), ('{"method": "POST", "body": "x"}'),
	('{"method": "POST", "body": "[]"}'), ('{"method": "POST", "body": "{}"}'), ('{"method": "POST", "body": {"feeds": [1]}}'), ('{"method": "POST", "body": {"feeds": [["messages"]]}}'),
	('{"method": "POST", "body": {"feeds": {"a": "b"}}}'), ('{"method": "POST", "body": {"feeds": ["", "messages"]}}'), (get('feeds=messages', '{}', repeat('x', 1025)) || '{"client": ""}')) AS v (request), poll.respond(request);
SELECT show(get('feeds=messages&cursor=x'));
SELECT status, body::json->>'code' FROM poll.respond(get('feeds=rooms&scope=' || repeat('[', 100000)));
SELECT status FROM poll.respond(get('?feeds=messages'));
-- 404, also for what the caller may not read
SELECT show(get('feeds=messages,nonsense'));
-- 405
SELECT show(get('feeds=messages') || '{"method": "DELETE"}');
-- 410
SELECT poll.untrack('others');
SELECT poll.current_cursor('{messages}') AS old \gset
SELECT poll.untrack('messages'), poll.track('respond_message', 'messages');
SELECT show(get('feeds=messages&max_rows=7&cursor=' || :'old'));
-- 429, with a limit for the endpoint; a 304 costs nothing
SELECT poll.set_rate_policy('poll', 2, '1 min', 'strict');
SELECT poll.current_cursor('{messages}') AS cursor \gset
SELECT show(get('feeds=messages&cursor=' || :'cursor', '{}', 'ann'));
SELECT headers->>'ETag' AS tag FROM poll.respond(get('feeds=messages&cursor=' || :'cursor', '{}', 'bob')) \gset
SELECT status, headers ? 'RateLimit' FROM generate_series(1, 3), poll.respond(get('feeds=messages&cursor=' || :'cursor', jsonb_build_object('if-none-match', :'tag'), 'bob'));
SELECT status, headers->>'RateLimit' FROM generate_series(1, 2), poll.respond(get('feeds=messages&cursor=' || :'cursor', '{}', 'bob'));
SELECT show(get('feeds=messages&cursor=' || :'cursor', jsonb_build_object('if-none-match', :'tag'), 'bob'));
-- what is wrong with a request is said first, and costs nothing
SELECT status FROM unnest('{feeds=nonsense, feeds=messages&cursor=x}'::text[]) AS query, poll.respond(get(query, '{}', 'bob'));
SELECT status, headers ? 'RateLimit' FROM poll.respond(get('feeds=messages'));
-- by an address, the client is its network; a name counts more
SELECT status, split_part(r.headers->>'RateLimit', ';', 2) FROM (VALUES ('{"address": "203.0.113.1"}'::jsonb), ('{"address": "203.0.113.1"}'), ('{"address": "203.0.113.1"}'),
	('{"client": "203.0.113.1/32"}'), ('{"address": "2001:db8::1"}'), ('{"address": "2001:db8::2"}'), ('{"address": "2001:db8::3"}'),
	('{"client": "carol", "address": "203.0.113.1"}'), ('{"address": "nowhere"}')) AS v (who), poll.respond(get('feeds=messages') - 'client' || who) AS r;
SELECT poll.drop_rate_policy('poll');
-- what caches may share: as the setting says, unless a table has row-level security; not a POST, and no errors
CREATE FUNCTION shared(request jsonb) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' | ', status, headers->>'Cache-Control', headers->>'RateLimit') FROM poll.respond(request)
$$;
SET poll_ext.public_max_age = '2 s';
SELECT shared(get('feeds=messages')), shared(get('feeds=messages', '{"if-none-match": "*"}')), shared(get('feeds=messages') || '{"method": "HEAD"}');
SELECT shared('{"method": "POST", "body": {"feeds": ["messages"]}}'), shared(get('feeds=messages,nonsense')), shared(get('feeds=messages&cursor=x')), shared(get('feeds=messages&cursor=' || :'old'));
SELECT poll.track('respond_other', 'others');
ALTER TABLE respond_other ENABLE ROW LEVEL SECURITY;
SELECT shared(get('feeds=others')), shared(get('feeds=messages,others')), shared(get('feeds=messages&cursor=now'));
SET row_security = off;
SELECT shared(get('feeds=others'));
RESET row_security;
ALTER TABLE respond_other DISABLE ROW LEVEL SECURITY;
SELECT shared(get('feeds=others'));
-- nor what one client has left
SELECT poll.set_rate_policy('poll', 2, '1 min', 'strict');
SELECT shared(get('feeds=messages', '{}', 'dave')) FROM generate_series(1, 3);
SELECT poll.drop_rate_policy('poll');
RESET poll_ext.public_max_age;
SELECT shared(get('feeds=messages'));
SELECT poll.untrack('others');
DROP FUNCTION shared;
-- 503: try again in a new transaction
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT status FROM poll.respond(get('feeds=messages&cursor=now'));
TRUNCATE respond_message;
SELECT show(get('feeds=messages'));
-- and the transaction goes on
SELECT status FROM poll.respond(get('feeds=nonsense'));
ROLLBACK;
-- in a READ ONLY transaction
BEGIN READ ONLY;
SELECT status FROM poll.respond(get('feeds=messages'));
COMMIT;
-- whoever calls it may say who the client is, so not everybody may
CREATE ROLE respond_user;
SET ROLE respond_user;
SELECT poll.respond(get('feeds=messages'));
SET poll_ext.public_max_age = 1;
RESET ROLE;
GRANT EXECUTE ON FUNCTION poll.respond TO respond_user;
SET ROLE respond_user;
SELECT status FROM poll.respond(get('feeds=messages'));
RESET ROLE;
DROP OWNED BY respond_user, respond_reader;
DROP ROLE respond_user, respond_reader;

\pset tuples_only off
\pset format aligned
SELECT poll.untrack('messages'), poll.untrack('rooms');
DROP TABLE respond_message, respond_other;
DROP FUNCTION masked, show, get;
