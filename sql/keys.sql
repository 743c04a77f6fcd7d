-- keys of any type and number of columns: logged, looked up, rendered

\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TYPE mood AS ENUM ('so so', 'fine');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN code AS varchar(10);
CREATE TYPE pair AS (a int, b text);

CREATE TABLE k_bigint (k bigint PRIMARY KEY);
CREATE TABLE k_smallint (k smallint PRIMARY KEY);
CREATE TABLE k_uuid (k uuid PRIMARY KEY);
CREATE TABLE k_text (k text PRIMARY KEY);
CREATE TABLE k_bpchar (k char(5) PRIMARY KEY);
CREATE TABLE k_timestamptz (k timestamptz PRIMARY KEY);
CREATE TABLE k_date (k date PRIMARY KEY);
CREATE TABLE k_interval (k interval PRIMARY KEY);
CREATE TABLE k_float8 (k float8 PRIMARY KEY);
CREATE TABLE k_numeric (k numeric PRIMARY KEY);
CREATE TABLE k_bytea (k bytea PRIMARY KEY);
CREATE TABLE k_bool (k bool PRIMARY KEY);
CREATE TABLE k_inet (k inet PRIMARY KEY);
CREATE TABLE k_mood (k mood PRIMARY KEY);
CREATE TABLE k_positive (k positive PRIMARY KEY);
CREATE TABLE k_code (k code PRIMARY KEY);
CREATE TABLE k_array (k int[] PRIMARY KEY);
CREATE TABLE k_range (k int4range PRIMARY KEY);
CREATE TABLE k_pair (k pair PRIMARY KEY);
CREATE TABLE k_jsonb (k jsonb PRIMARY KEY);

CREATE TABLE samples (t text, k text);
INSERT INTO samples VALUES
	('bigint', '-9223372036854775808'), ('bigint', '9223372036854775807'), ('bigint', '0'),
	('smallint', '-32768'), ('smallint', '32767'),
	('uuid', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
	('text', ''), ('text', E'it''s "quoted", \\ and\na new line'), ('text', 'ünï'),
	('text', '{a,b}'), ('text', 'NULL'),
	('bpchar', 'ab'),
	('timestamptz', '2026-03-04 05:06:07.891+00'), ('timestamptz', 'infinity'),
	('date', '2026-03-04'), ('date', '0044-03-15 BC'),
	('interval', '-1 day -02:03:04.5'), ('interval', '1 year 2 mons -3 days'),
	('float8', '0.1'), ('float8', '1e300'), ('float8', 'NaN'), ('float8', '0.30000000000000004'),
	('numeric', '1.50'), ('numeric', '123456789012345678901234567890.123'),
	('bytea', '\x00ff5c'),
	('bool', 'true'), ('inet', '10.1.2.3/24'), ('mood', 'so so'), ('positive', '7'), ('code', 'x y'),
	('array', '{1,NULL,3}'), ('range', '[1,5)'), ('pair', '(1,"a b")'), ('jsonb', '{"a": [1, 2]}');

SELECT poll.track(c.oid) FROM pg_class c WHERE relname LIKE 'k\_%' AND relkind = 'r' ORDER BY relname;
SELECT string_agg(relname, ',' ORDER BY relname) AS feeds
  FROM pg_class WHERE relname LIKE 'k\_%' AND relkind = 'r' \gset
SELECT poll.current_cursor(('{' || :'feeds' || '}')::text[]) AS c \gset

-- written under one set of settings
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'Asia/Kolkata';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = -3;
SET bytea_output = 'escape';
SET lc_monetary = 'C';
SELECT format('INSERT INTO k_%s VALUES (%L)', t, k) FROM samples \gexec
RESET ALL;
\set SHOW_CONTEXT never

-- and read under another: every row is found
SELECT f, e->>'op' AS op, e->'key'->'k' AS key, (e->'key')::text = (e->'data')::text AS same
  FROM json_each(poll.poll(('{' || :'feeds' || '}')::text[], :'c')->'changes') c(f, list),
	   json_array_elements(list) e
 ORDER BY f, (e->'key')::text COLLATE "C";

-- a full sync in pages of one gives the same
CREATE FUNCTION sync(feed text) RETURNS SETOF json LANGUAGE plpgsql AS $$
DECLARE
	c text;
	r record;
BEGIN
	LOOP
		SELECT INTO r * FROM poll.changes(feed, c, 1);
		EXIT WHEN NOT FOUND;
		c := r.cursor;
		RETURN NEXT r.key;
	END LOOP;
END $$;
SELECT relname, (SELECT count(*) FROM sync(relname)) = (SELECT count(*) FROM samples WHERE 'k_' || t = relname) AS all_rows
  FROM pg_class WHERE relname LIKE 'k\_%' AND relkind = 'r' ORDER BY relname;

-- tombstones say the same keys
CREATE TEMP TABLE upserts AS
SELECT f, (e->'key')::text AS key
  FROM json_each(poll.poll(('{' || :'feeds' || '}')::text[], :'c')->'changes') c(f, list),
	   json_array_elements(list) e;
SELECT poll.current_cursor(('{' || :'feeds' || '}')::text[]) AS c \gset
SET TimeZone = 'America/New_York';
SET DateStyle = 'German';
SELECT format('DELETE FROM k_%s', t) FROM samples GROUP BY t ORDER BY t \gexec
RESET TimeZone;
RESET DateStyle;
WITH d AS (
	SELECT f, e->>'op' AS op, (e->'key')::text AS key
	  FROM json_each(poll.poll(('{' || :'feeds' || '}')::text[], :'c')->'changes') c(f, list),
		   json_array_elements(list) e)
SELECT count(*) = (SELECT count(*) FROM samples) AS all_there, count(u.key) = count(*) AS all_same,
	   bool_and(op = 'delete') AS all_deleted
  FROM d LEFT JOIN upserts u USING (f, key);

-- keys as long as an index takes; compressible ones may be longer still
SELECT poll.current_cursor('{k_text}') AS c \gset
INSERT INTO k_text SELECT string_agg(md5(g::text), '') FROM generate_series(1, 80) g;
INSERT INTO k_text VALUES (repeat('long ', 20000));
INSERT INTO k_text VALUES ('short');
SELECT op, length(key->>'k') AS length, key->>'k' = data->>'k' AS same FROM poll.changes('k_text', :'c');
SELECT count(*) FROM sync('k_text');
DELETE FROM k_text;
SELECT op, length(key->>'k') AS length FROM poll.changes('k_text', :'c');

-- several columns; the key's order, not the table's
CREATE TABLE k_several (note text, b int, a text, at timestamptz, PRIMARY KEY (a, b, at));
SELECT poll.track('k_several');
INSERT INTO k_several SELECT 'n', b, a, '2026-01-01' FROM generate_series(1, 3) b, unnest('{x,"y,z",""}'::text[]) a;
SET TimeZone = 'UTC';
SELECT key FROM poll.changes('k_several');
SELECT count(*), count(DISTINCT k::text) FROM sync('k_several') k;
SELECT poll.current_cursor('{k_several}') AS c \gset
UPDATE k_several SET b = 30 WHERE b = 3 AND a = '';
UPDATE k_several SET note = 'new' WHERE b = 2 AND a = 'x';
SELECT op, key, data->'note' AS note FROM poll.changes('k_several', :'c');

-- index columns that descend, in part and in whole
CREATE TABLE k_desc (a int NOT NULL, b int NOT NULL);
CREATE UNIQUE INDEX k_desc_idx ON k_desc (a DESC, b DESC);
ALTER TABLE k_desc REPLICA IDENTITY USING INDEX k_desc_idx;
CREATE TABLE k_mixed (a int NOT NULL, b int NOT NULL);
CREATE UNIQUE INDEX k_mixed_idx ON k_mixed (a DESC, b);
ALTER TABLE k_mixed REPLICA IDENTITY USING INDEX k_mixed_idx;
INSERT INTO k_desc SELECT a, b FROM generate_series(1, 3) a, generate_series(1, 3) b;
INSERT INTO k_mixed SELECT * FROM k_desc;
SELECT poll.track('k_desc'), poll.track('k_mixed');
SELECT string_agg((k->>'a') || (k->>'b'), ' ') FROM sync('k_desc') k;
SELECT string_agg((k->>'a') || (k->>'b'), ' ') FROM sync('k_mixed') k;

-- a live row answers for a logged key only if it has the same text
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE k_case (k text COLLATE ignore_case PRIMARY KEY);
CREATE TABLE k_own_collation (k text COLLATE "POSIX" NOT NULL);
CREATE UNIQUE INDEX k_own_collation_idx ON k_own_collation (k COLLATE "C");
ALTER TABLE k_own_collation REPLICA IDENTITY USING INDEX k_own_collation_idx;
SELECT poll.track('k_case'), poll.track('k_own_collation');
INSERT INTO k_case VALUES ('Abc');
INSERT INTO k_numeric VALUES (1.0);
INSERT INTO k_own_collation VALUES ('b'), ('B'), ('a');
SELECT poll.current_cursor('{k_case}') AS c1, poll.current_cursor('{k_numeric}') AS c2 \gset
UPDATE k_case SET k = 'ABC';
UPDATE k_numeric SET k = 1.00;
SELECT op, key FROM poll.changes('k_case', :'c1');
SELECT op, key FROM poll.changes('k_numeric', :'c2');
SELECT k FROM sync('k_own_collation') k;

-- columns whose operators have the same names in different schemas
CREATE EXTENSION citext;
CREATE TABLE k_citext (a int, b citext, PRIMARY KEY (a, b));
INSERT INTO k_citext VALUES (1, 'a'), (1, 'B'), (1, 'c'), (2, 'A');
SELECT poll.track('k_citext');
SELECT string_agg(k->>'b', ' ') FROM sync('k_citext') k;

-- domains over enums; composites whose domains a value no longer fits
CREATE DOMAIN calm AS mood CHECK (VALUE <> 'fine');
CREATE DOMAIN small AS int;
CREATE TYPE small_pair AS (a small, b small);
CREATE TABLE k_calm (k calm PRIMARY KEY);
CREATE TABLE k_small (k small_pair PRIMARY KEY);
SELECT poll.track('k_calm'), poll.track('k_small');
SELECT poll.current_cursor('{k_calm,k_small}') AS c \gset
INSERT INTO k_calm VALUES ('so so');
INSERT INTO k_small VALUES ('(1,2)'), ('(3,400)');
SELECT poll.poll('{k_calm}', NULL, 1)->'changes' ->'k_calm'->0->'key' AS key;
DELETE FROM k_small WHERE k = '(3,400)'::small_pair;
ALTER DOMAIN small ADD CHECK (VALUE < 100) NOT VALID;
SELECT f, e->'op' AS op, e->'key' AS key
  FROM json_each(poll.poll('{k_calm,k_small}', :'c')->'changes') c(f, list), json_array_elements(list) e;
BEGIN;
SELECT count(*) FROM poll.changes('k_small');
COMMIT;

-- an error that says nothing of the value is an error, not a tombstone
CREATE FUNCTION is_small(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 < 100; END';
REVOKE EXECUTE ON FUNCTION is_small FROM PUBLIC;
CREATE DOMAIN checked AS int CHECK (is_small(VALUE));
CREATE TYPE checked_pair AS (a checked, b checked);
CREATE TABLE k_checked (k checked_pair PRIMARY KEY);
CREATE ROLE regress_poll_caller;
GRANT SELECT ON k_checked TO regress_poll_caller;
SELECT poll.track('k_checked');
SELECT poll.current_cursor('{k_checked}') AS c1 \gset
INSERT INTO k_checked VALUES ('(1,2)');
SELECT op, key FROM poll.changes('k_checked', :'c1');
SET ROLE regress_poll_caller;
SELECT op, key FROM poll.changes('k_checked', :'c1');
RESET ROLE;
SELECT poll.untrack('k_checked');
DROP TABLE k_checked;
DROP TYPE checked_pair, checked;
DROP FUNCTION is_small;
DROP ROLE regress_poll_caller;

-- a collation that is not in the search path
CREATE SCHEMA hidden;
CREATE COLLATION hidden.backwards (provider = icu, locale = 'en');
CREATE TABLE k_hidden (k text NOT NULL);
CREATE UNIQUE INDEX k_hidden_idx ON k_hidden (k COLLATE hidden.backwards);
ALTER TABLE k_hidden REPLICA IDENTITY USING INDEX k_hidden_idx;
INSERT INTO k_hidden VALUES ('x'), ('y');
SELECT poll.track('k_hidden');
SET search_path = hidden, public;
SELECT count(*) FROM sync('k_hidden');
RESET search_path;
SELECT count(*) FROM sync('k_hidden');

-- keys that change type: polls start again; without that, old entries stay readable,
-- and what does not fit is a tombstone
CREATE TABLE k_changes (k text PRIMARY KEY, v int);
SELECT poll.track('k_changes');
SELECT poll.current_cursor('{k_changes}') AS c \gset
INSERT INTO k_changes VALUES ('1', 1);
ALTER TABLE k_changes ALTER k TYPE int USING k::int;
SELECT count(*) FROM poll.changes('k_changes', :'c');
TRUNCATE k_changes;
ALTER TABLE k_changes ALTER k TYPE text;
SELECT poll.current_cursor('{k_changes}') AS c \gset
INSERT INTO k_changes VALUES ('1', 1), ('007', 2), ('word', 3), ('99999999999999', 4);
DELETE FROM k_changes WHERE v >= 3;
ALTER EVENT TRIGGER poll_ddl_end DISABLE;
ALTER EVENT TRIGGER poll_ddl_rewrite DISABLE;
ALTER TABLE k_changes ALTER k TYPE int USING k::int;
SELECT op, key, data FROM poll.changes('k_changes', :'c') ORDER BY key::text;
ALTER TABLE k_changes ALTER k TYPE bigint;
SELECT op, key, data FROM poll.changes('k_changes', :'c') ORDER BY key::text;

-- renamed columns, tables and schemas
CREATE SCHEMA elsewhere;
ALTER TABLE k_changes RENAME k TO "new ""key""";
ALTER TABLE k_changes RENAME TO "it's renamed";
ALTER TABLE "it's renamed" SET SCHEMA elsewhere;
INSERT INTO elsewhere."it's renamed" VALUES (8, 8);
SELECT op, key, data FROM poll.changes('k_changes', :'c') ORDER BY key::text;
SELECT feed, relation, key FROM poll.feeds WHERE feed = 'k_changes';

-- and another table under the old name is another table
ALTER SCHEMA elsewhere RENAME TO elsewhere2;
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere."it's renamed" AS SELECT * FROM elsewhere2."it's renamed";
UPDATE elsewhere."it's renamed" SET v = -1;
SELECT op, key, data FROM poll.changes('k_changes', :'c') WHERE op = 'upsert' ORDER BY key::text;
ALTER EVENT TRIGGER poll_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER poll_ddl_rewrite ENABLE ALWAYS;

SELECT count(poll.untrack(feed)) FROM poll.feeds;
SET client_min_messages = warning;
DROP SCHEMA elsewhere, elsewhere2 CASCADE;
DROP TABLE k_citext, k_calm, k_small, k_hidden;
DROP SCHEMA hidden CASCADE;
DROP EXTENSION citext;
DROP TYPE calm, small_pair, small;
DROP TABLE samples, k_bigint, k_smallint, k_uuid, k_text, k_bpchar, k_timestamptz, k_date, k_interval,
	k_float8, k_numeric, k_bytea, k_bool, k_inet, k_mood, k_positive, k_code, k_array, k_range, k_pair,
	k_jsonb, k_several, k_desc, k_mixed, k_case, k_own_collation;
DROP COLLATION ignore_case;
DROP FUNCTION sync;
DROP TYPE mood, positive, code, pair;
