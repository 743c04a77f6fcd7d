-- the envelope of poll.poll(): full sync, pages, several feeds, 'now', and rows as row_to_json() has them

\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TABLE a (id int PRIMARY KEY, v text);
CREATE TABLE b (id int PRIMARY KEY, v text);
CREATE TABLE c (id int PRIMARY KEY, v text);
INSERT INTO a SELECT g, 'a' || g FROM generate_series(1, 5) g;
INSERT INTO c SELECT g, 'c' || g FROM generate_series(1, 2) g;
SELECT poll.track('a'), poll.track('b'), poll.track('c');

-- what is in a page, without what differs from run to run
CREATE FUNCTION show(page json) RETURNS TABLE (feed text, op text, key json, v text, version bool)
LANGUAGE sql AS $$
	SELECT f, e->>'op', e->'key', e->'data'->>'v', e->>'version' IS NOT NULL
	  FROM json_each(page->'changes') x(f, list), json_array_elements(list) e
$$;
CREATE FUNCTION pages(feeds text[], c text, max_rows int) RETURNS TABLE (n int, has_more bool, changes text)
LANGUAGE plpgsql AS $$
DECLARE
	page json;
BEGIN
	FOR i IN 1..100 LOOP
		page := poll.poll(feeds, c, max_rows);
		c := page->>'cursor';
		n := i;
		has_more := page->>'has_more';
		changes := (SELECT string_agg(format('%s %s', op, v), ', ') FROM show(page));
		RETURN NEXT;
		EXIT WHEN NOT has_more;
	END LOOP;
END $$;

-- the shape
SELECT json_object_keys(poll.poll('{a}'));
SELECT p->'changes' AS changes, p->'has_more' AS has_more, p->'feeds_checked' AS feeds_checked,
	   (p->>'timestamp')::timestamptz = now() AS timestamp
  FROM poll.poll('{b}') p;
SELECT json_object_keys(e) FROM json_array_elements(poll.poll('{a}', max_rows => 1)->'changes'->'a') e;

-- full sync: feed after feed, each in key order
SELECT * FROM show(poll.poll('{c,a,b}'));
SELECT * FROM pages('{c,a,b}', NULL, 2);
SELECT * FROM pages('{c,a,b}', NULL, 5);
SELECT * FROM pages('{c,a,b}', NULL, 7);
SELECT * FROM pages('{b}', NULL, 7);

-- what changed during a full sync comes after it, what did not comes once
SELECT poll.poll('{a}', NULL, 2)->>'cursor' AS c1 \gset
UPDATE a SET v = 'seen, then changed' WHERE id = 1;
UPDATE a SET v = 'changed, then seen' WHERE id = 4;
DELETE FROM a WHERE id = 5;
SELECT * FROM pages('{a}', :'c1', 2);

-- changes of several feeds share one order and one cursor
SELECT poll.current_cursor('{a,b,c}') AS c1 \gset
INSERT INTO b VALUES (1, 'first');
INSERT INTO a VALUES (10, 'second');
BEGIN;
INSERT INTO c VALUES (10, 'third');
INSERT INTO b VALUES (2, 'fourth');
COMMIT;
UPDATE a SET v = 'fifth' WHERE id = 10;
SELECT * FROM show(poll.poll('{a,b,c}', :'c1'));
SELECT * FROM pages('{a,b,c}', :'c1', 1);
SELECT * FROM pages('{c,b,a,a}', :'c1', 2);

-- a key that changes over and over is there once, at its last change
SELECT poll.current_cursor('{a}') AS c1 \gset
INSERT INTO a VALUES (20, 'x'), (21, 'y');
DO $$ BEGIN FOR i IN 1..50 LOOP UPDATE a SET v = 'x' || i WHERE id = 20; COMMIT; END LOOP; END $$;
SELECT * FROM show(poll.poll('{a}', :'c1'));
DELETE FROM a WHERE id = 20;
INSERT INTO a VALUES (20, 'again');
DELETE FROM a WHERE id = 21;
SELECT * FROM show(poll.poll('{a}', :'c1'));

-- poll_ext.max_scan: a short page, and on
SET poll_ext.max_scan = 10;
SELECT count(*) AS pages, sum(array_length(string_to_array(changes, ','), 1)) AS changes, bool_and(has_more OR n = 6) AS on_and_on
  FROM pages('{a}', :'c1', 100);
RESET poll_ext.max_scan;
SET ROLE pg_monitor;
SET poll_ext.max_scan = 100000;
RESET ROLE;

-- nothing new: the same cursor, and every client has the same
SELECT poll.current_cursor('{a}') AS c1 \gset
SELECT poll.poll('{a}', :'c1')->>'cursor' = :'c1' AS same;
INSERT INTO b VALUES (3, 'of no concern');
SELECT poll.poll('{a}', :'c1')->>'cursor' = :'c1' AS same, poll.current_cursor('{a}') = :'c1' AS same,
	   poll.has_changes('{a}', :'c1') AS has_changes;
SELECT length(:'c1') < 100 AS short, :'c1' ~ '^[A-Za-z0-9_-]+$' AS safe;

-- and on, too, if there are only transactions to search
SELECT poll.current_cursor('{a}') AS c1 \gset
BEGIN; INSERT INTO a VALUES (50, 'p50'); PREPARE TRANSACTION 'p50';
BEGIN; INSERT INTO a VALUES (51, 'p51'); PREPARE TRANSACTION 'p51';
BEGIN; INSERT INTO a VALUES (52, 'p52'); PREPARE TRANSACTION 'p52';
INSERT INTO a VALUES (53, 'x53');
SELECT poll.poll('{a}', :'c1')->>'cursor' AS c1 \gset
SELECT array_length(open_xids, 1) FROM poll.cursor_info(:'c1');
COMMIT PREPARED 'p51';
ROLLBACK PREPARED 'p50';
COMMIT PREPARED 'p52';
SET poll_ext.max_scan = 1;
SELECT * FROM pages('{a}', :'c1', 100);
SELECT op, key, version IS NULL AS no_version, poll.has_changes('{a}', cursor) AS more FROM poll.changes('a', :'c1');
SELECT key, version IS NULL AS no_version FROM poll.changed_keys('a', :'c1');
RESET poll_ext.max_scan;
DELETE FROM a WHERE id >= 50;

-- the planner's settings are the caller's before, during and after
CREATE FUNCTION planner() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'seqscan is %', current_setting('enable_seqscan');
	PERFORM set_config('enable_seqscan', 'on', true);
	RETURN true;
END $$;
CREATE ROLE regress_poll_planner;
CREATE TABLE planned (id int PRIMARY KEY);
INSERT INTO planned VALUES (1);
ALTER TABLE planned ENABLE ROW LEVEL SECURITY;
CREATE POLICY planned ON planned USING (planner());
GRANT SELECT ON planned TO regress_poll_planner;
SELECT poll.track('planned');
SET ROLE regress_poll_planner;
SELECT count(*) FROM poll.changes('planned');
SHOW enable_seqscan;
RESET ROLE;
SELECT poll.untrack('planned');
DROP TABLE planned;
DROP FUNCTION planner;
DROP ROLE regress_poll_planner;

-- 'now' skips the table
SELECT poll.current_cursor('{a}') AS c1 \gset
SELECT p->'changes' AS changes, p->'has_more' AS has_more, p->>'cursor' = :'c1' AS same FROM poll.poll('{a}', 'now') p;
SELECT op, key, cursor = :'c1' AS same FROM poll.changes('a', 'now');
SELECT key, cursor = :'c1' AS same FROM poll.changed_keys('a', 'now');
SELECT poll.has_changes('{a}', 'now'), poll.has_changes('{a}', NULL);

-- poll.changes(): each row with the cursor after it
SELECT poll.current_cursor('{a}') AS c1 \gset
INSERT INTO a SELECT g, 'row ' || g FROM generate_series(30, 34) g;
SELECT x.key, rest.n, rest.first FROM poll.changes('a', :'c1') x,
	LATERAL (SELECT count(*) AS n, min(data->>'v') AS first FROM poll.changes('a', x.cursor)) rest;
SELECT x.key, rest.n, rest.first FROM poll.changes('a', NULL, 3) x,
	LATERAL (SELECT count(*) AS n, min(key->>'id') AS first FROM poll.changes('a', x.cursor)) rest;
SELECT op, key, data, version IS NOT NULL AS version, abs(extract(epoch FROM now() - changed_at)) < 60 AS recent
  FROM poll.changes('a', :'c1', 2);
SELECT key, version IS NOT NULL AS version FROM poll.changed_keys('a', :'c1', 2);
SELECT count(*) AS all_keys, count(DISTINCT version) AS versions, bool_and(changed_at <= clock_timestamp()) AS past FROM poll.changed_keys('a', :'c1');

-- a look that finds nothing is remembered: then no function looks into the log until somebody writes
CREATE FUNCTION looks(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT idx_scan FROM pg_stat_xact_all_tables WHERE relid = 'poll.change_0'::regclass);
BEGIN
	EXECUTE query;
	RETURN (SELECT idx_scan FROM pg_stat_xact_all_tables WHERE relid = 'poll.change_0'::regclass) - before;
END
$$;
SELECT poll.current_cursor('{a}') AS c1 \gset
BEGIN;
INSERT INTO a SELECT g, 'in the log before its end' FROM generate_series(1001, 4000) g;
ROLLBACK;
SELECT looks(format('SELECT poll.poll(''{a}'', %L)', :'c1')) > 0 AS looks;
SELECT looks(format('SELECT poll.poll(''{a}'', %L)', :'c1')),
	   looks(format('SELECT poll.has_changes(''{a}'', %L)', :'c1')),
	   looks(format('SELECT * FROM poll.changes(''a'', %L)', :'c1'));
UPDATE a SET v = v || '!' WHERE id = (SELECT min(id) FROM a);
SELECT looks(format('SELECT poll.has_changes(''{a}'', %L)', :'c1')) > 0 AS looks, poll.has_changes('{a}', :'c1');
DROP FUNCTION looks;

-- rows as row_to_json() has them
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN answer AS int CHECK (VALUE = 42);
CREATE TYPE mood AS ENUM ('so so');
CREATE TABLE types (
	id int PRIMARY KEY, dropped int, "weird ""name""" text, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, b bool,
	t text, vc varchar(10), bp char(5), na name, ch "char", by bytea, d date, ts timestamp, tz timestamptz, ti time,
	iv interval, u uuid, ine inet, j json, jb jsonb, ia int[], ta text[], tza timestamptz[], p pair, pa pair[],
	a answer, m mood, r int4range, bits bit(3), x xml, gen int GENERATED ALWAYS AS (id * 2) STORED,
	ident int GENERATED ALWAYS AS IDENTITY);
ALTER TABLE types DROP COLUMN dropped;
SELECT poll.track('types');
INSERT INTO types VALUES
	(1, E'q"\\\n\t\x01ü', 1, 9007199254740993, 0.1, 'Infinity', 'NaN', true,
	 E'line\nbreak', 'vc', 'bp', 'na', 'c', '\x00ff', '2026-01-02', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05.678+00',
	 '03:04', '1 day 02:03', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1', '{"a" :  1}', '{"a" :  1}',
	 '{1,2}', '{"a b",NULL}', '{2026-01-02 03:04:05+00}', '(1,"a b")', '{"(1,a)","(2,)"}', 42, 'so so', '[1,3)', '101', '<a/>'),
	(2, NULL, -1, 0, 1e10, 1e-7, 1e20, false, '', '', '', '', '', '', 'infinity', '-infinity', 'infinity', '00:00',
	 '-1 mon', NULL, '::1/64', 'null', '"x"', '{}', '{}', NULL, NULL, NULL, NULL, NULL, 'empty', '000', '');
INSERT INTO types (id) VALUES (3);
SELECT c.key, c.data::text = row_to_json(tab)::text AS same FROM poll.changes('types') c JOIN types tab ON tab.id = (key->>'id')::int;
SET TimeZone = 'Asia/Kolkata';
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = 0;
SET bytea_output = 'escape';
SELECT c.key, c.data::text = row_to_json(tab)::text AS same FROM poll.changes('types') c JOIN types tab ON tab.id = (key->>'id')::int;
RESET ALL;
\set VERBOSITY terse
SELECT data->'tz', data->'weird "name"' FROM poll.changes('types') WHERE key->>'id' = '1';

-- a type with a cast to json
CREATE TYPE casted AS ENUM ('one');
CREATE FUNCTION to_json_cast(casted) RETURNS json LANGUAGE sql AS $$ SELECT '"by cast"'::json $$;
ALTER TABLE types ADD COLUMN casted casted DEFAULT 'one';
SELECT data->'casted' FROM poll.changes('types', max_rows => 1);
CREATE CAST (casted AS json) WITH FUNCTION to_json_cast(casted);
SELECT c.key, c.data::text = row_to_json(tab)::text AS same FROM poll.changes('types') c JOIN types tab ON tab.id = (key->>'id')::int;

-- a poll within a poll, which may fail
SELECT poll.untrack('a');
DELETE FROM a;
INSERT INTO a SELECT i, repeat('x', 3000) FROM generate_series(1, 2) i;
SELECT poll.track('a');
CREATE TYPE nested AS ENUM ('poll', 'fail');
CREATE FUNCTION nested_json(nested) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 'fail' THEN
		RAISE 'no json';
	END IF;
	RETURN (SELECT json_agg(e->'key') FROM json_array_elements(poll.poll('{a}')->'changes'->'a') e);
END
$$;
CREATE CAST (nested AS json) WITH FUNCTION nested_json(nested);
CREATE TABLE outermost (id int PRIMARY KEY, nested nested);
SELECT poll.track('outermost');
INSERT INTO outermost VALUES (1, 'poll'), (2, 'poll');
SELECT poll.poll('{outermost}')->'changes';
INSERT INTO outermost VALUES (3, 'fail');
SELECT poll.poll('{outermost}')->'changes';
UPDATE outermost SET nested = 'poll' WHERE id = 3;
SELECT poll.poll('{outermost}')->'changes';
SELECT poll.untrack('outermost');
DROP TABLE outermost;
DROP TYPE nested CASCADE;

-- a transaction that has rewritten a table cannot see the others' version any more
SELECT poll.current_cursor('{types}') AS c1 \gset
UPDATE types SET t = 'new' WHERE id = 3;
BEGIN;
ALTER TABLE types ADD COLUMN stamp timestamptz DEFAULT clock_timestamp();
SELECT poll.poll('{types}', :'c1');
ROLLBACK;
BEGIN;
TRUNCATE types;
SELECT poll.poll('{types}');
ROLLBACK;
SELECT key FROM poll.changes('types', :'c1');

-- bad arguments
SELECT poll.poll(NULL);
SELECT poll.poll('{}');
SELECT poll.poll('{a,NULL}');
SELECT poll.poll('{a,nope}');
SELECT poll.poll((SELECT array_agg('f' || g) FROM generate_series(1, 1001) g));
SELECT poll.poll('{a}', max_rows => 0);
SELECT poll.poll('{a}', max_rows => 10001);
SELECT poll.poll('{a}', max_rows => NULL);
SELECT poll.poll('{a}', '');
SELECT poll.poll('{a}', 'garbage');
SELECT * FROM poll.changes(NULL);
SELECT * FROM poll.changes('nope');
SELECT * FROM poll.changed_keys('a', NULL);
SELECT poll.has_changes(NULL, NULL);
SELECT poll.current_cursor(NULL);

SELECT poll.untrack(f) FROM unnest('{a,b,c,types}'::text[]) f;
DROP TABLE a, b, c, types;
DROP TYPE pair, answer, mood;
DROP TYPE casted CASCADE;
DROP FUNCTION show CASCADE;
DROP FUNCTION pages;
