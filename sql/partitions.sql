-- partitioned tables: one feed for all partitions, whatever becomes of them; inheritance children

\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE FUNCTION answer(feed text, c text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN coalesce((SELECT string_agg(concat_ws(' ', op, key, data->>'v'), ', ' ORDER BY n)
					   FROM poll.changes(feed, c) WITH ORDINALITY AS p(op, key, data, v, a, c, n)), 'nothing');
EXCEPTION WHEN SQLSTATE 'PT410' THEN
	RETURN 'PT410';
END $$;
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

-- partitions with their columns in another order, and partitions of partitions
CREATE TABLE p (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 (v text, gone int, k int NOT NULL, id int NOT NULL);
ALTER TABLE p2 DROP gone;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (40) PARTITION BY RANGE (k);
CREATE TABLE p3a PARTITION OF p3 FOR VALUES FROM (20) TO (30);
SELECT poll.track('p'), poll.track('p', 'scoped', scope => '{v}'), poll.track('p1', 'one');
CREATE VIEW triggers AS
SELECT tgrelid::regclass AS relation, substring(tgname FROM '^poll_[a-z]+') AS name, count(*), min(tgenabled::text) AS enabled
  FROM pg_trigger WHERE tgname LIKE 'poll\_%' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM triggers;

-- rows, rows that move, and full syncs
CALL try('p',
	'INSERT INTO p VALUES (1, 5, ''a''), (2, 15, ''b''), (3, 25, ''c'')',
	'UPDATE p SET v = upper(v)',
	'UPDATE p2 SET v = ''direct''',
	'UPDATE p SET k = 25 WHERE id = 1',
	'UPDATE p3 SET id = 30 WHERE id = 3',
	'DELETE FROM p3a WHERE id = 30',
	'INSERT INTO p1 VALUES (4, 1, ''d'')');
SELECT op, key, data FROM poll.changes('p');
SELECT * FROM poll.rows(NULL::p, feed => 'p');
SELECT poll.next_cursor('p', max_rows => 2) AS c \gset
SELECT answer('p', :'c');
SELECT op, key FROM poll.changes('scoped', scope => '{"v": "A"}');
SELECT op, key FROM poll.changes('one');

-- TRUNCATE: of all, of a part, of all and a part
CALL try('p', 'TRUNCATE p1', 'TRUNCATE p3', 'TRUNCATE p', 'TRUNCATE p, p2', 'TRUNCATE p2, p');
CALL try('one', 'INSERT INTO p VALUES (1, 1, ''x'')', 'TRUNCATE p', 'TRUNCATE p1', 'TRUNCATE p2');
INSERT INTO p VALUES (1, 1, 'x');
SELECT poll.current_cursor('{p}') AS c \gset
BEGIN;
TRUNCATE p;
INSERT INTO p VALUES (1, 1, 'x');
TRUNCATE p1;
COMMIT;
SELECT answer('p', :'c');
SELECT poll.current_cursor('{p}') AS c \gset
BEGIN;
SAVEPOINT s;
TRUNCATE p;
ROLLBACK TO s;
TRUNCATE p1;
COMMIT;
SELECT answer('p', :'c');

-- partitions that come and go: what is empty does no harm
CALL try('p',
	'CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (40) TO (50)',
	'CREATE TABLE p3b PARTITION OF p3 FOR VALUES FROM (30) TO (40)',
	'CREATE SCHEMA elsewhere CREATE TABLE p9 PARTITION OF p FOR VALUES FROM (90) TO (99)',
	'INSERT INTO p VALUES (4, 45, ''new''), (5, 35, ''new''), (9, 95, ''new'')',
	'TRUNCATE p4',
	'ALTER TABLE p DETACH PARTITION p4',
	'INSERT INTO p4 VALUES (6, 46, ''detached'')',
	'TRUNCATE p4',
	'ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (40) TO (50)',
	'INSERT INTO p4 VALUES (7, 47, ''attached'')');

-- and with rows polls start again
CALL try('p',
	'ALTER TABLE p DETACH PARTITION p4',
	'ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (40) TO (50)',
	'DROP TABLE p4',
	'DROP SCHEMA elsewhere CASCADE');
SELECT poll.current_cursor('{p}') AS c \gset
ALTER TABLE p3 DETACH PARTITION p3b CONCURRENTLY;
SELECT answer('p', :'c');
CREATE TABLE sub (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE sub1 PARTITION OF sub FOR VALUES FROM (50) TO (60);
CALL try('p', 'ALTER TABLE p ATTACH PARTITION sub FOR VALUES FROM (50) TO (60)',
	'INSERT INTO p VALUES (50, 50, ''sub'')', 'TRUNCATE sub', 'DROP TABLE sub');
SELECT * FROM triggers;

-- DDL on the root, or on one of the partitions
CALL try('p',
	'ALTER TABLE p ADD COLUMN w int',
	'ALTER TABLE p1 DISABLE TRIGGER ALL',
	'ALTER TABLE p1 ENABLE TRIGGER ALL',
	'ALTER TABLE p1 SET UNLOGGED',
	'CREATE UNLOGGED TABLE p5 PARTITION OF p FOR VALUES FROM (50) TO (60)');

SELECT poll.untrack('p'), poll.untrack('scoped');
SELECT * FROM triggers;
SELECT poll.track('p', always => true);
CREATE TABLE p5 PARTITION OF p FOR VALUES FROM (50) TO (60);
SELECT * FROM triggers;
-- from PostgreSQL 18 on the server refuses it
DO $$ BEGIN
	CREATE UNLOGGED TABLE unlogged_p (id int PRIMARY KEY) PARTITION BY RANGE (id);
	PERFORM poll.track('unlogged_p');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE '%', CASE WHEN SQLERRM IN ('cannot track unlogged table "unlogged_p"',
		'partitioned tables cannot be unlogged') THEN 'refused' ELSE SQLERRM END;
END $$;
CREATE TABLE logged_p (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE unlogged_p1 PARTITION OF logged_p FOR VALUES FROM (0) TO (10);
SELECT poll.track('logged_p');
-- a partition gets its triggers again
DO $$ BEGIN
	EXECUTE format('DROP TRIGGER poll_truncate_%s ON p1', (SELECT id FROM poll.feed WHERE name = 'p'));
END $$;
SELECT * FROM triggers WHERE relation = 'p1'::regclass;
DROP VIEW triggers;
DROP TABLE p;
SELECT feed FROM poll.feeds WHERE feed IN ('p', 'one');

-- an inheritance parent's feed is of the parent's own rows
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (w int) INHERITS (parent);
SELECT poll.track('parent');
CALL try('parent',
	'INSERT INTO parent VALUES (1, ''parent'')',
	'INSERT INTO child VALUES (2, ''child'', 3)',
	'UPDATE parent SET v = v || ''!''',
	'TRUNCATE child');
SELECT op, key FROM poll.changes('parent');

SET client_min_messages = warning;
DROP TABLE parent CASCADE;
DROP TABLE logged_p;
DROP FUNCTION answer;
DROP PROCEDURE try;
