-- pins: poll.cached() computes once for all who ask the same, as long as that is right

CREATE TABLE items (id int PRIMARY KEY, v int);
INSERT INTO items SELECT i, i FROM generate_series(1, 10) AS i;
SELECT poll.track('items');

-- how often something was computed, which a rollback does not take back
CREATE UNLOGGED SEQUENCE runs;	-- which takes no transaction id
CREATE FUNCTION total() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT sum(v) FROM items WHERE (SELECT nextval('runs')) > 0 $$;
CREATE FUNCTION runs() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM runs $$;

-- with feeds: until they change
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
UPDATE items SET v = 0 WHERE id = 10;
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
-- what was rolled back is no change, and what is not committed is none yet
BEGIN; UPDATE items SET v = 100; ROLLBACK;
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
-- but if it was large enough to reach the log, there is a look, once
BEGIN; INSERT INTO items SELECT i, i FROM generate_series(100, 2000) AS i; ROLLBACK;
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}'), runs();
-- a transaction that has written computes for itself what it has written
BEGIN;
UPDATE items SET v = 1;
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}');
ROLLBACK;
SELECT poll.cached('total', '1 hour', 'SELECT total()', '{items}');

-- without: for so long
ALTER SEQUENCE runs RESTART;
SELECT poll.cached('total', '1 hour', 'SELECT total()'), runs();
UPDATE items SET v = 5;
SELECT poll.cached('total', '1 hour', 'SELECT total()'), runs();
-- of those who are content with that; others want a newer one
SELECT pg_sleep(0.02);
SELECT poll.cached('total', '10 ms', 'SELECT total()'), runs();
SELECT poll.cached('total', '1 hour', 'SELECT total()'), runs();

-- another key, query or setting of output is another question
SELECT poll.cached('other', '1 hour', 'SELECT total()'), runs();
SELECT poll.cached('total', '1 hour', 'SELECT total() + 1'), runs();
SET TimeZone = 'Asia/Tokyo';
SELECT poll.cached('time', '1 hour', $$SELECT '2000-01-01 00:00+00'::timestamptz$$);
SET TimeZone = 'UTC';
SELECT poll.cached('time', '1 hour', $$SELECT '2000-01-01 00:00+00'::timestamptz$$);
RESET TimeZone;

-- what it may return: any type, null, nothing
SELECT poll.cached('a', '1 hour', 'SELECT items FROM items WHERE id = 1'),
	   poll.cached('b', '1 hour', 'SELECT array_agg(id ORDER BY id) FROM items'),
	   poll.cached('c', '1 hour', $$SELECT repeat('x', 20)$$),
	   poll.cached('d', '1 hour', $$SELECT '{"a": null}'::jsonb$$);
SELECT poll.cached('e', '1 hour', 'SELECT null::int') IS NULL, poll.cached('f', '1 hour', 'SELECT 1 WHERE false') IS NULL;
SELECT poll.cached('e', '1 hour', 'SELECT null::int') IS NULL, poll.cached('f', '1 hour', 'SELECT 1 WHERE false') IS NULL;
SELECT length(poll.cached('g', '1 hour', $$SELECT repeat('x', 100000)$$)::text),
	   length(poll.cached('g', '1 hour', $$SELECT repeat('x', 100000)$$)::text);
-- what does not fit is computed each time
ALTER SEQUENCE runs RESTART;
SELECT length(poll.cached('h', '1 hour', $$SELECT repeat('x', 10000000) WHERE nextval('runs') > 0$$)::text), runs();
SELECT length(poll.cached('h', '1 hour', $$SELECT repeat('x', 10000000) WHERE nextval('runs') > 0$$)::text), runs();

-- errors, which leave nothing behind
\set VERBOSITY sqlstate
SELECT poll.cached('x', '1 hour', 'SELECT 1, 2');
SELECT poll.cached('x', '1 hour', 'SELECT id FROM items');
SELECT poll.cached('x', '1 hour', 'SELECT 1/0');
SELECT poll.cached('x', '1 hour', 'INSERT INTO items VALUES (11, 1)');
SELECT poll.cached('x', '1 hour', 'SELECT');
SELECT poll.cached('x', '1 hour', '');
SELECT poll.cached('x', '1 hour', 'nonsense');
SELECT poll.cached('x', '1 hour', 'COMMIT');
SELECT poll.cached('x', '0', 'SELECT 1');
SELECT poll.cached('x', '-1 s', 'SELECT 1');
SELECT poll.cached('x', '2 years', 'SELECT 1');
SELECT poll.cached(NULL, '1 s', 'SELECT 1');
SELECT poll.cached('x', NULL, 'SELECT 1');
SELECT poll.cached('x', '1 s', NULL);
SELECT poll.cached('x', '1 s', 'SELECT 1', '{none}');
SELECT poll.cached('x', '1 s', 'SELECT 1', '{}');
\set VERBOSITY default
SELECT poll.cached('x', '1 hour', 'SELECT 1');

-- one that asks for itself meanwhile does not wait for itself for ever
CREATE FUNCTION recursive(n int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN n = 0 THEN '0' ELSE poll.cached('r', '1 hour', format('SELECT recursive(%s)', n - 1)) END;
END $$;
CREATE FUNCTION again() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN nextval('runs') > 3 THEN '0' ELSE poll.cached('r', '1 hour', 'SELECT again()') END;
END $$;
ALTER SEQUENCE runs RESTART;
SELECT recursive(3), again();

-- not shared between roles, but by a function that says so
CREATE ROLE regress_poll_a;
CREATE ROLE regress_poll_b;
GRANT EXECUTE ON FUNCTION poll.cached TO regress_poll_a, regress_poll_b;
SET ROLE regress_poll_a;
SELECT poll.cached('me', '1 hour', 'SELECT current_user');
SET ROLE regress_poll_b;
SELECT poll.cached('me', '1 hour', 'SELECT current_user');
RESET ROLE;
CREATE FUNCTION shared() RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
AS $$ SELECT poll.cached('shared', '1 hour', $q$SELECT nextval('public.runs')$q$) $$;
ALTER SEQUENCE runs RESTART;
SET ROLE regress_poll_a;
SELECT shared();
SET ROLE regress_poll_b;
SELECT shared();
RESET ROLE;

-- nor what policies have decided on, but for those with the same claims
ALTER TABLE items ADD owner text DEFAULT 'a';
CREATE POLICY own ON items USING (owner = current_setting('app.login', true));
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON items TO regress_poll_a;
GRANT USAGE ON SEQUENCE runs TO regress_poll_a;
ALTER SEQUENCE runs RESTART;
SET ROLE regress_poll_a;
SET app.login = 'a';
SELECT poll.cached('rls', '1 hour', $$SELECT count(*) FROM items WHERE (SELECT nextval('runs')) > 0$$);
SET app.login = 'b';
SELECT poll.cached('rls', '1 hour', $$SELECT count(*) FROM items WHERE (SELECT nextval('runs')) > 0$$);
RESET ROLE;
SELECT runs();
SET poll_ext.cache_claims = 'app.login, app.tenant';
ALTER SEQUENCE runs RESTART;
SET ROLE regress_poll_a;
SET app.login = 'a';
SELECT poll.cached('rls', '1 hour', $$SELECT count(*) FROM items WHERE (SELECT nextval('runs')) > 0$$);
SET app.login = 'b';
SELECT poll.cached('rls', '1 hour', $$SELECT count(*) FROM items WHERE (SELECT nextval('runs')) > 0$$);
SET app.login = 'a';
SELECT poll.cached('rls', '1 hour', $$SELECT count(*) FROM items WHERE (SELECT nextval('runs')) > 0$$);
-- unset is not empty
RESET ROLE;
SELECT runs();
SET app.tenant = '';
SET ROLE regress_poll_a;
SELECT poll.cached('rls', '1 hour', $$SELECT count(*) FROM items WHERE (SELECT nextval('runs')) > 0$$);
RESET ROLE;
SELECT runs();
RESET poll_ext.cache_claims;

-- nor what functions have read by policies
CREATE FUNCTION mine() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM items WHERE owner = 'a' $$;
SET ROLE regress_poll_a;
SET app.login = 'a';
SELECT poll.cached('mine', '1 hour', 'SELECT mine()');
SET app.login = 'b';
SELECT poll.cached('mine', '1 hour', 'SELECT mine()');
RESET ROLE;
-- the same value of another claim is another one
SET app.login = 'same'; SET app.tenant = 'a';
SET poll_ext.cache_claims = 'app.login';
SELECT poll.cached('claim', '1 hour', $$SELECT current_setting('app.tenant')$$);
SET app.login = 'other'; SET app.tenant = 'same';
SET poll_ext.cache_claims = 'app.tenant';
SELECT poll.cached('claim', '1 hour', $$SELECT current_setting('app.tenant')$$);
SET poll_ext.cache_claims = '  ';
SHOW poll_ext.cache_claims;
RESET poll_ext.cache_claims;
DROP POLICY own ON items;

-- what was written while it was computed, and rolled back, is nobody's
CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('app.write', true) = 'on' THEN UPDATE items SET v = -1 WHERE id = 1; END IF;
	RETURN (SELECT v FROM items WHERE id = 1);
END $$;
BEGIN;
SET LOCAL app.write = 'on';
SELECT poll.cached('writes', '1 hour', 'SELECT writes()', '{items}');
ROLLBACK;
SELECT poll.cached('writes', '1 hour', 'SELECT writes()', '{items}');

-- a temporary table is of its session alone
SELECT poll.cached('names', '1 hour', 'SELECT count(*) FROM items');
CREATE TEMP TABLE items (id int);
SELECT poll.cached('names', '1 hour', 'SELECT count(*) FROM items');
DROP TABLE pg_temp.items;

-- a change of the catalogs counts
CREATE FUNCTION changes() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT poll.cached('ddl', '1 hour', 'SELECT changes()');
CREATE OR REPLACE FUNCTION changes() RETURNS int LANGUAGE sql AS 'SELECT 2';
SELECT poll.cached('ddl', '1 hour', 'SELECT changes()');
CREATE TABLE others (id int);
CREATE POLICY other ON items USING (id IN (SELECT id FROM others));
SET poll_ext.cache_claims = 'app.login';
SET ROLE regress_poll_a;
RESET ROLE;
GRANT SELECT ON others TO regress_poll_a;
INSERT INTO others VALUES (1);
SET ROLE regress_poll_a;
SELECT poll.cached('cascade', '1 hour', 'SELECT count(*) FROM items');
RESET ROLE;
DROP TABLE others CASCADE;
SET ROLE regress_poll_a;
SELECT poll.cached('cascade', '1 hour', 'SELECT count(*) FROM items');
RESET ROLE;
RESET poll_ext.cache_claims;

-- the settings
SET poll_ext.cache_claims = 'a b';
\set VERBOSITY sqlstate
SET poll_ext.cache_ttl = -1;
\set VERBOSITY default

SELECT hits > 0 AND misses > 0 AND entries > 0 AND bytes > 100000 AND bytes < max_bytes FROM poll.stat_cache;

SELECT poll.untrack('items');
DROP TABLE items;
DROP FUNCTION total, runs, recursive, again, shared, mine, writes, changes;
DROP SEQUENCE runs;
DROP OWNED BY regress_poll_a, regress_poll_b;
DROP ROLE regress_poll_a, regress_poll_b;
