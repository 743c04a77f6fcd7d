-- DDL on tracked tables: what a poll answers after it, and what is refused

\set VERBOSITY default
\set SHOW_CONTEXT never

-- what a poll answers: its changes, or that it is to start again
CREATE FUNCTION answer(feed text, c text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN coalesce((SELECT string_agg(concat_ws(' ', op, key, data), ', ' ORDER BY n)
					   FROM poll.changes(feed, c) WITH ORDINALITY AS p(op, key, data, v, a, c, n)), 'nothing');
EXCEPTION WHEN SQLSTATE 'PT410' THEN
	RETURN 'PT410';
END $$;

-- runs each statement after taking a cursor, and polls with that
CREATE PROCEDURE try(feed text, VARIADIC statements text[]) LANGUAGE plpgsql AS $$
DECLARE
	statement text;
	c text;
BEGIN
	FOREACH statement IN ARRAY statements LOOP
		c := poll.current_cursor(ARRAY[feed]);
		COMMIT;
		BEGIN
			EXECUTE statement;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '%: % %', statement, sqlstate, sqlerrm;
			CONTINUE;
		END;
		COMMIT;
		RAISE NOTICE '%: %', statement, answer(feed, c);
	END LOOP;
END $$;

CREATE TABLE t (id int, v text, CONSTRAINT t_key PRIMARY KEY (id));
CREATE TABLE u (id int PRIMARY KEY, code int NOT NULL UNIQUE, v text, w text);
INSERT INTO t VALUES (1, 'one');
INSERT INTO u VALUES (1, 10, 'one', 'w');
SELECT poll.track('t'), poll.track('u', columns => '{id,v}');

-- other contents, columns or keys: start again
CALL try('t',
	'ALTER TABLE t ADD COLUMN w int',
	'ALTER TABLE t ADD COLUMN d int DEFAULT 7',
	'ALTER TABLE t ADD COLUMN r float8 DEFAULT random() * 0',
	'ALTER TABLE t ALTER v TYPE text USING upper(v)',
	'ALTER TABLE t ADD COLUMN g text GENERATED ALWAYS AS (v || ''!'') STORED',
	'ALTER TABLE t DROP COLUMN d',
	'ALTER TABLE t RENAME COLUMN w TO x',
	'ALTER VIEW t RENAME COLUMN x TO y',
	'ALTER TABLE t RENAME COLUMN y TO x',
	'ALTER TABLE t ALTER x TYPE bigint',
	'ALTER TABLE t ALTER x TYPE text USING x || ''?''',
	'ALTER TABLE t DROP CONSTRAINT t_key, ADD PRIMARY KEY (id, v)',
	'ALTER TABLE t DISABLE TRIGGER ALL',
	'ALTER TABLE t ENABLE TRIGGER ALL',
	'ALTER TABLE t DISABLE TRIGGER USER',
	'ALTER TABLE t ENABLE TRIGGER USER',
	'DO $do$ BEGIN EXECUTE (SELECT format(''ALTER TABLE t DISABLE TRIGGER %I'', tgname) FROM pg_trigger
		WHERE tgrelid = ''t''::regclass AND tgname LIKE ''poll\_capture%''); END $do$',
	'DO $do$ BEGIN EXECUTE (SELECT format(''ALTER TABLE t ENABLE TRIGGER %I'', tgname) FROM pg_trigger
		WHERE tgrelid = ''t''::regclass AND tgname LIKE ''poll\_capture%''); END $do$');

-- the rows are the same: go on
CALL try('t',
	'ALTER TABLE t ALTER v SET DEFAULT ''x''',
	'ALTER TABLE t ALTER x SET STORAGE external',
	'ALTER TABLE t ADD CHECK (id > 0)',
	'ALTER TABLE t REPLICA IDENTITY FULL',
	'ALTER TABLE t SET (fillfactor = 50)',
	'ALTER TABLE t RENAME TO "T t"',
	'ALTER TABLE "T t" RENAME TO t',
	'CREATE INDEX ON t (v)',
	'CLUSTER t USING t_pkey',
	'CREATE TRIGGER poll AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION poll.capture(''0'')',
	'GRANT SELECT ON t TO PUBLIC',
	'UPDATE t SET v = ''two''');

-- columns that a feed does not show are not its business
CALL try('u',
	'ALTER TABLE u ADD COLUMN x int DEFAULT 1',
	'ALTER TABLE u RENAME w TO w2',
	'ALTER TABLE u DROP w2',
	'ALTER TABLE u ALTER v TYPE varchar(100)');

-- a key that is replaced by the replica identity, and back
CALL try('u',
	'ALTER TABLE u REPLICA IDENTITY USING INDEX u_code_key',
	'ALTER TABLE u DROP CONSTRAINT u_pkey',
	'INSERT INTO u (id, code, v) VALUES (2, 20, ''two'')',
	'ALTER TABLE u ADD PRIMARY KEY (id)');

-- refused: what a feed cannot do without
CALL try('u',
	'ALTER TABLE u DROP v',
	'ALTER TABLE u RENAME v TO v2',
	'ALTER VIEW u RENAME v TO v2',
	'ALTER TABLE u SET UNLOGGED');
ALTER TABLE u DROP v;
ALTER TABLE u SET UNLOGGED;

-- its triggers keep their names and what they do
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION as_trigger(command text, of_feed text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format(command, (SELECT id FROM poll.feed WHERE name = of_feed));
END $$;
SELECT as_trigger('ALTER TRIGGER poll_capture_%s ON u RENAME TO x', 'u');
SELECT as_trigger('CREATE OR REPLACE TRIGGER poll_capture_%s AFTER INSERT ON u FOR EACH ROW EXECUTE FUNCTION nothing()', 'u');
SELECT as_trigger('CREATE OR REPLACE TRIGGER poll_capture_%1$s AFTER INSERT OR UPDATE OR DELETE ON u FOR EACH ROW
	WHEN (pg_trigger_depth() > 5) EXECUTE FUNCTION poll.capture(''%1$s'')', 'u');
DROP FUNCTION nothing, as_trigger;

-- a feed ends with either of its triggers
CREATE FUNCTION drop_trigger(which text, tab regclass, of_feed text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('DROP TRIGGER %I ON %s', which || (SELECT id FROM poll.feed WHERE name = of_feed), tab);
END $$;
SELECT poll.track('u', 'first'), poll.track('u', 'second');
SELECT drop_trigger('poll_capture_', 'u', 'first');
SELECT feed FROM poll.feeds WHERE relation = 'u'::regclass;
SELECT drop_trigger('poll_truncate_', 'u', 'second');
SELECT feed FROM poll.feeds WHERE relation = 'u'::regclass;

-- a rolled back ALTER TABLE resets nothing
SELECT poll.current_cursor('{t}') AS c \gset
BEGIN;
ALTER TABLE t ADD COLUMN never int;
ROLLBACK;
BEGIN;
SAVEPOINT s;
ALTER TABLE t ADD COLUMN never int;
ROLLBACK TO s;
INSERT INTO t (id, v) VALUES (3, 'three');
COMMIT;
SELECT op, key FROM poll.changes('t', :'c');

-- types: a new label changes no row, a new name of one does
CREATE TYPE color AS ENUM ('red');
CREATE TYPE point2 AS (x int, y int);
CREATE TABLE painted (id color PRIMARY KEY, at point2);
INSERT INTO painted VALUES ('red', (1, 2));
SELECT poll.track('painted');
CALL try('painted',
	'ALTER TYPE color ADD VALUE ''blue''',
	'ALTER TYPE color RENAME VALUE ''red'' TO ''crimson''',
	'ALTER TYPE point2 ADD ATTRIBUTE z int',
	'ALTER TYPE point2 RENAME ATTRIBUTE z TO zz');
SELECT key, data FROM poll.changes('painted');

-- also where the type is inside another one, or is the rows of a table
CREATE DOMAIN mood AS color;
CREATE TABLE other (a color[], b int);
CREATE TABLE inside (id int PRIMARY KEY, moods mood[], others other[]);
CREATE TABLE outside (id int PRIMARY KEY, moods text[]);
SELECT poll.track('inside'), poll.track('outside');
CALL try('inside',
	'ALTER TYPE color RENAME VALUE ''blue'' TO ''navy''',
	'ALTER TABLE other ADD COLUMN c int',
	'ALTER TABLE other RENAME b TO bb',
	'ALTER TABLE other ADD CHECK (bb > 0)');
CALL try('outside', 'ALTER TYPE color RENAME VALUE ''navy'' TO ''blue''', 'ALTER TABLE other DROP COLUMN c');
DROP TABLE inside, outside, other;
DROP DOMAIN mood;

-- a full sync goes on in the order of the key; another order is another one
CREATE TABLE ordered (a int NOT NULL, b text COLLATE "C" NOT NULL);
CREATE UNIQUE INDEX ordered_asc ON ordered (a);
CREATE UNIQUE INDEX ordered_desc ON ordered (a DESC);
CREATE UNIQUE INDEX ordered_b ON ordered (b);
ALTER TABLE ordered REPLICA IDENTITY USING INDEX ordered_asc;
SELECT poll.track('ordered');
CALL try('ordered',
	'ALTER TABLE ordered REPLICA IDENTITY USING INDEX ordered_desc',
	'ALTER TABLE ordered REPLICA IDENTITY USING INDEX ordered_b',
	'ALTER TABLE ordered ALTER b TYPE text COLLATE "POSIX"');
DROP TABLE ordered;

-- a scope column that the feed does not show
CREATE TABLE hidden_scope (id int PRIMARY KEY, at timestamp);
SET TimeZone = 'UTC';
SELECT poll.track('hidden_scope', columns => '{id}', scope => '{at}');
SELECT poll.current_cursor('{hidden_scope}', '{"at": "2026-01-01"}') AS c \gset
ALTER TABLE hidden_scope ALTER at TYPE timestamptz;
RESET TimeZone;
SELECT poll.poll('{hidden_scope}', :'c', scope => '{"at": "2026-01-01"}');
DROP TABLE hidden_scope;

-- a table that is dropped takes its feeds along; another one of that name is another one
SELECT poll.track('t', 'second'), poll.current_cursor('{t}') AS c \gset
DROP TABLE t;
SELECT feed FROM poll.feeds WHERE feed IN ('t', 'second');
SELECT answer('t', :'c');
CREATE TABLE t (id int PRIMARY KEY);
SELECT answer('t', :'c');
SELECT poll.track('t');
SELECT answer('t', :'c');
CREATE SCHEMA gone CREATE TABLE inside (id int PRIMARY KEY);
SELECT poll.track('gone.inside');
SET client_min_messages = warning;
DROP SCHEMA gone CASCADE;
RESET client_min_messages;
SELECT feed FROM poll.feeds WHERE feed = 'inside';
SELECT count(*) AS feeds_too_many FROM poll.feed WHERE relation NOT IN (SELECT oid FROM pg_class);
SELECT count(*) AS shapes_too_many FROM poll.shape WHERE feed NOT IN (SELECT id FROM poll.feed);
BEGIN;
DROP TABLE t;
ROLLBACK;
SELECT answer('t', poll.current_cursor('{t}'));

-- a renamed table and schema keep their feed
CREATE SCHEMA "S s";
SELECT poll.current_cursor('{t}') AS c \gset
ALTER TABLE t RENAME TO "T ""t""";
ALTER TABLE "T ""t""" SET SCHEMA "S s";
ALTER SCHEMA "S s" RENAME TO "S S";
INSERT INTO "S S"."T ""t""" VALUES (1);
SELECT answer('t', :'c');
SELECT feed, relation FROM poll.feeds WHERE feed = 't';

DROP TABLE u, painted;
DROP TYPE color, point2;
SET client_min_messages = warning;
DROP SCHEMA "S S" CASCADE;
DROP FUNCTION answer, drop_trigger;
DROP PROCEDURE try;
