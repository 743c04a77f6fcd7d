-- Entity tags: the same for the same content and for nothing else, and when If-None-Match matches them.

\set VERBOSITY default
\set SHOW_CONTEXT never

-- a tag is 128 bits in base64url, quoted; those of texts are no secret
SELECT poll.etag('hello');
SELECT poll.etag('hello') ~ '^"[A-Za-z0-9_-]{22}"$' AS well_formed, poll.etag('hello'::text) = poll.etag('hello'::varchar) AS same,
	   poll.etag(NULL::text) IS NULL AS of_null;
SELECT poll.etag('') = poll.etag(' ') AS blank, poll.etag('a') = poll.etag('b') AS other;

-- all of a large one counts, wherever it differs
SELECT count(DISTINCT poll.etag(overlay(repeat('x', 100000) PLACING 'y' FROM i)))
  FROM unnest('{1, 2, 8191, 8192, 8193, 50000, 99999, 100000}'::int[]) AS i;

-- jsonb by what it says, json by its text
SELECT a, b, a::jsonb = b::jsonb AS equal, poll.etag(a::jsonb) = poll.etag(b::jsonb) AS jsonb, poll.etag(a::json) = poll.etag(b::json) AS json
  FROM (VALUES ('{"a": 1.0}', '{"a":1.00}'), ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'), ('{"a": 0, "a": 1}', '{"a": 1}'),
		('1e2', '100'), ('1e-2', '0.01'), ('-0', '0'), ('"1"', '1'), ('[1, 2]', '[2, 1]'), ('[[1], 2]', '[[1, 2]]'), ('[]', '{}'),
		('[1]', '1'), ('null', '"null"'), ('true', 'false'), ('{"a": [1]}', '{"a": 1}'), ('["ab", "c"]', '["a", "bc"]'),
		('{"ab": "c"}', '{"a": "bc"}'), ('"\u00e9"', '"é"'), ('[[]]', '[{}]'), ('[1, null]', '[1]')) AS v (a, b);

-- rows: values and names of columns, but neither settings nor storage
CREATE TYPE etag_color AS ENUM ('red', 'green');
CREATE DOMAIN etag_name AS text CHECK (value <> '');
CREATE TABLE etag_item (
	id int, name etag_name, flag boolean, amount numeric, ratio float8, small real, at timestamptz, day date, duration interval,
	bytes bytea, doc jsonb, raw json, tags text[], days daterange, spans int4multirange, color etag_color, address inet, code char(5), key uuid
);
INSERT INTO etag_item VALUES (1, repeat('é', 3000), true, 1.50, 0.1::float8 / 3, 0.1::real / 3, '2026-01-02 03:04:05.678901+00', '2026-01-02',
	'1 day 2 hours', '\x00ff', '{"a": [1.0, null, {"b": "c"}]}', '{"a": 1.0}', '{a, NULL, "b c"}', '[2026-01-01, 2026-02-01)',
	'{[1, 3), [5, 7)}', 'green', '192.0.2.1/24', 'ab', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
CREATE TEMP TABLE etag_before AS SELECT poll.etag(t) AS tag FROM etag_item AS t;
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = 0;
SET bytea_output = 'escape';
SET client_encoding = 'LATIN1';
SELECT poll.etag(t) = tag AS same FROM etag_item AS t, etag_before;
RESET ALL;
SET client_encoding = 'UTF8';
ALTER TABLE etag_item ALTER name SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL;
UPDATE etag_item SET name = name || '', doc = doc || '{}';
SELECT poll.etag(t) = tag AS external FROM etag_item AS t, etag_before;
ALTER TABLE etag_item ADD extra int DEFAULT 5;
SELECT poll.etag(t) = tag AS with_a_column FROM etag_item AS t, etag_before;
ALTER TABLE etag_item DROP extra;
SELECT poll.etag(t) = tag AS without_it FROM etag_item AS t, etag_before;
SELECT poll.etag(s) = tag AS subquery FROM (SELECT * FROM etag_item OFFSET 0) AS s, etag_before;
ALTER TABLE etag_item RENAME flag TO marked;
SELECT poll.etag(t) = tag AS renamed FROM etag_item AS t, etag_before;
ALTER TABLE etag_item RENAME marked TO flag;
SELECT poll.etag(t) = tag AS renamed_back FROM etag_item AS t, etag_before;

ALTER TYPE etag_color RENAME VALUE 'green' TO 'blue';
SELECT poll.etag(t) = tag AS label_renamed FROM etag_item AS t, etag_before;
ALTER TYPE etag_color RENAME VALUE 'blue' TO 'green';
ALTER TABLE etag_item ALTER flag TYPE int USING flag::int;
SELECT poll.etag(t) = tag AS other_type FROM etag_item AS t, etag_before;
ALTER TABLE etag_item ALTER flag TYPE boolean USING flag::boolean;
SELECT poll.etag(t) = tag AS type_back FROM etag_item AS t, etag_before;
CREATE TYPE etag_pair AS (a int, b int);
SELECT poll.etag(ARRAY[ROW(1, 2)::etag_pair]) AS pairs \gset
ALTER TYPE etag_pair RENAME ATTRIBUTE a TO z;
SELECT poll.etag(ARRAY[ROW(1, 2)::etag_pair]) = :'pairs' AS nested_name;
DROP TYPE etag_pair;

-- any other value makes another tag
CREATE FUNCTION etag_with(assignment text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	tag text;
BEGIN
	EXECUTE 'UPDATE etag_item SET ' || assignment;
	SELECT poll.etag(t) INTO tag FROM etag_item AS t;
	RAISE SQLSTATE 'ET000' USING MESSAGE = tag;
EXCEPTION WHEN SQLSTATE 'ET000' THEN
	RETURN SQLERRM;
END
$$;
SELECT count(DISTINCT etag_with(assignment)), count(*)
  FROM unnest(ARRAY['id = 1', 'id = 2', 'id = NULL', 'name = NULL', 'name = ''x''', 'flag = NOT flag', 'amount = 1.5', 'amount = -1.50',
	'ratio = ratio + 1e-17', 'ratio = ''NaN''', 'small = 0', 'at = at + ''1 us''', 'day = day + 1', 'duration = ''26 hours''',
	'bytes = ''\x00''', 'bytes = ''''', 'doc = ''{}''', 'doc = ''null''', 'doc = NULL', 'raw = ''{"a": 1.00}''', 'tags = ''{a, "", "b c"}''',
	'tags = ''{a, NULL, b, c}''', 'tags = ''[0:2]={a, NULL, "b c"}''', 'tags = ''{{a, NULL, "b c"}}''', 'tags = ''{}''',
	'days = ''empty''', 'days = ''[2026-01-01,)''', 'days = ''(,2026-02-01)''', 'spans = ''{[1,3)}''', 'spans = ''{}''', 'spans = ''{[1,7)}''',
	'color = ''red''', 'address = ''192.0.2.1/25''', 'code = ''abc''', 'key = NULL']) AS assignment;

-- nulls and neighbours are kept apart
SELECT count(DISTINCT tag), count(*) FROM (
	SELECT poll.etag(r) AS tag FROM (VALUES ('a', 'bc'), ('ab', 'c'), (NULL, 'abc'), ('abc', NULL), ('', 'abc'), ('abc', ''), (NULL, NULL), ('', '')) AS r (x, y)) AS t;
SELECT count(DISTINCT tag), count(*) FROM unnest(ARRAY[poll.etag(ROW(1, ROW(2, 3))), poll.etag(ROW(1, 2, ROW(3))), poll.etag(ROW(ROW(1, 2), 3)),
	poll.etag(ROW(1, 2, 3)), poll.etag(ROW(1, NULL, 3)), poll.etag(ROW()), poll.etag(ARRAY[ROW(1, 2)]), poll.etag(ARRAY[ROW(1, 2), ROW(3, 4)])]) AS tag;
-- variables of PL/pgSQL are stored in yet another way
DO $$
DECLARE
	tags text[] := '{a, NULL, "b c"}';
	item etag_item;
BEGIN
	tags[4] := 'd';
	SELECT * INTO item FROM etag_item;
	ASSERT poll.etag(tags) = poll.etag('{a, NULL, "b c", d}'::text[]);
	ASSERT poll.etag(item) = (SELECT tag FROM etag_before);
	ASSERT poll.etag(item) = (SELECT poll.etag(t) FROM etag_item AS t);
END
$$;

-- many rows, in their order
CREATE TABLE etag_list (id int PRIMARY KEY, body text);
INSERT INTO etag_list SELECT i, repeat('row ' || i, 1 + i % 50) FROM generate_series(1, 1000) AS i;
CREATE TEMP TABLE etag_lists AS SELECT poll.etag_agg(t ORDER BY id) AS tag FROM etag_list AS t;
SELECT poll.etag_agg(t ORDER BY id) = tag AS same FROM etag_list AS t, etag_lists GROUP BY tag;
SELECT poll.etag_agg(t ORDER BY id DESC) = tag AS other_order FROM etag_list AS t, etag_lists GROUP BY tag;
SELECT poll.etag_agg(t ORDER BY id) = tag AS one_less FROM etag_list AS t, etag_lists WHERE id < 1000 GROUP BY tag;
UPDATE etag_list SET body = 'changed' WHERE id = 500;
SELECT poll.etag_agg(t ORDER BY id) = tag AS one_changed FROM etag_list AS t, etag_lists GROUP BY tag;
SELECT poll.etag_agg(id) ~ '^"[A-Za-z0-9_-]{22}"$' AS of_no_rows FROM etag_list WHERE false;
SELECT count(DISTINCT tag), count(*) FROM unnest(ARRAY[(SELECT poll.etag_agg(x) FROM unnest('{}'::text[]) AS x),
	(SELECT poll.etag_agg(x) FROM unnest('{NULL}'::text[]) AS x), (SELECT poll.etag_agg(x) FROM unnest('{NULL, NULL}'::text[]) AS x),
	(SELECT poll.etag_agg(x) FROM unnest('{a, NULL}'::text[]) AS x), (SELECT poll.etag_agg(x) FROM unnest('{NULL, a}'::text[]) AS x),
	(SELECT poll.etag_agg(x) FROM unnest('{ab, c}'::text[]) AS x), (SELECT poll.etag_agg(x) FROM unnest('{a, bc}'::text[]) AS x)]) AS tag;
-- a result does not end it
SELECT count(DISTINCT tag), max(tag) FILTER (WHERE id = 1000) = max(whole) AS last_is_whole FROM (
	SELECT id, poll.etag_agg(id) OVER (ORDER BY id) AS tag, (SELECT poll.etag_agg(id ORDER BY id) FROM etag_list) AS whole FROM etag_list) AS w;

-- If-None-Match, as RFC 9110 has it
SELECT header, etag, poll.if_none_match(header, etag)
  FROM (VALUES ('"a"', '"a"'), ('"a"', 'W/"a"'), ('W/"a"', '"a"'), ('W/"a"', 'W/"a"'), ('"a"', '"b"'), ('"A"', '"a"'),
		('"x", "a"', '"a"'), ('"a","x"', '"a"'), ('"x",W/"a" , "y"', '"a"'), (E'"x"\t,\t"a"', '"a"'), (' "a" ', '"a"'),
		('"a,b"', '"a,b"'), ('"a", b"', '"a"'), ('"x,"a"', '"a"'), ('"a,b"', '"a"'), ('"a b"', '"a"'), (', ,"a",,', '"a"'), (',', '"a"'),
		('', '"a"'), (' ', '"a"'), ('""', '""'), ('*', '"a"'), (' * ', 'W/"a"'), ('*, "a"', '"a"'), ('"a", *', '"a"'), ('**', '"a"'), ('"*"', '"a"'),
		('a', '"a"'), ('w/"a"', '"a"'), ('W/ "a"', '"a"'), ('W/a', '"a"'), ('"a', '"a"'), ('"a""b"', '"a"'), ('"a" "b"', '"a"'), ('"a"; "b"', '"a"'),
		('"b", "a"x', '"a"'), ('"\"a\""', '"a"'), ('"é"', '"é"'), (E'"\x7f"', '"a"'), (E'"a"\n', '"a"'), (NULL, '"a"'), ('"a"', NULL), ('*', NULL)) AS v (header, etag);
SELECT poll.if_none_match('"a"', 'a');
SELECT poll.if_none_match('"a"', '"a" ');
SELECT poll.if_none_match('"a"', '');
SELECT poll.if_none_match(NULL, 'W/"a');
SELECT poll.if_none_match(poll.etag('x'), poll.etag('x'));

-- of feeds: without a look at the tables
SELECT poll.track('etag_list'), poll.track('etag_list', 'etag_rooms', scope => '{body}');
CREATE TABLE etag_other (id int PRIMARY KEY);
SELECT poll.track('etag_other');
SELECT poll.feed_etag('{etag_list}') ~ '^W/"f1\.[A-Za-z0-9_-]{22}"$' AS well_formed;
SELECT poll.feed_etag('{etag_list}') AS tag, poll.feed_etag('{etag_list, etag_other}') AS both_tag,
	   poll.feed_etag('{etag_rooms}', scope => '{"body": "x"}') AS room_tag \gset
SELECT poll.feed_etag('{etag_list}') = :'tag' AS same, poll.feed_etag('{etag_list}', 'v') = :'tag' AS variant,
	   poll.feed_etag('{etag_list}', '') = :'tag' AS empty_variant, :'both_tag' = :'tag' AS other_feeds,
	   poll.feed_etag('{etag_other, etag_list}') = :'both_tag' AS order_does_not_matter,
	   poll.feed_etag('{etag_rooms}', scope => '{"body": "y"}') = :'room_tag' AS other_scope;
INSERT INTO etag_other VALUES (1);
SELECT poll.feed_etag('{etag_list}') = :'tag' AS same, poll.feed_etag('{etag_list, etag_other}') = :'both_tag' AS both;
UPDATE etag_list SET body = 'y' WHERE id = 1;
SELECT poll.feed_etag('{etag_list}') = :'tag' AS changed, poll.feed_etag('{etag_rooms}', scope => '{"body": "x"}') = :'room_tag' AS not_in_the_room;
SELECT poll.feed_etag('{etag_list}') AS tag \gset
BEGIN;
DELETE FROM etag_list WHERE id = 1;
ROLLBACK;
SELECT poll.feed_etag('{etag_list}') = :'tag' AS rolled_back;
CREATE ROLE etag_reader;
GRANT SELECT ON etag_list TO etag_reader;
SET ROLE etag_reader;
SELECT poll.feed_etag('{etag_list}') = :'tag' AS other_role;
SELECT poll.feed_etag('{etag_other}');
RESET ROLE;
SELECT poll.feed_etag(NULL);
SELECT poll.feed_etag('{etag_rooms}');
BEGIN READ ONLY;
SELECT poll.if_none_match(:'tag', poll.feed_etag('{etag_list}'));
COMMIT;

SELECT poll.untrack('etag_list'), poll.untrack('etag_rooms'), poll.untrack('etag_other');
DROP TABLE etag_item, etag_list, etag_other;
DROP TYPE etag_color;
DROP DOMAIN etag_name;
DROP FUNCTION etag_with(text);
DROP ROLE etag_reader;
