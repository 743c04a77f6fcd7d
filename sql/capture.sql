-- what a write leaves in the log: every kind of write, and nothing of what was rolled back

\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TABLE item (id bigint PRIMARY KEY, v int, body text);
SELECT poll.track('item');
SELECT poll.current_cursor('{item}') AS c \gset
-- the changes since the last look
PREPARE look(text) AS SELECT op, key, data->'v' AS v, data->'body' AS body FROM poll.changes('item', $1);

-- plain statements
INSERT INTO item SELECT g, g, 'x' FROM generate_series(1, 5) g;
UPDATE item SET v = 20 WHERE id = 2;
DELETE FROM item WHERE id = 3;
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset

-- an UPDATE that changes nothing logs nothing, toasted values and nulls included
UPDATE item SET body = (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1000) g) WHERE id = 4;
UPDATE item SET body = NULL WHERE id = 5;
SELECT poll.current_cursor('{item}') AS c \gset
UPDATE item SET v = v;
UPDATE item SET body = body || '';
UPDATE item SET v = v, body = body;
SELECT poll.has_changes('{item}', :'c');
UPDATE item SET body = '' WHERE id = 5;
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset

-- a key change logs a delete and an upsert
UPDATE item SET id = 40, body = 'short' WHERE id = 4;
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset

-- savepoints: what was rolled back is not there, what was released is
BEGIN;
INSERT INTO item VALUES (100, 1, 'top');
SAVEPOINT a;
INSERT INTO item VALUES (101, 1, 'rolled back');
SAVEPOINT b;
INSERT INTO item VALUES (102, 1, 'released, then rolled back');
RELEASE SAVEPOINT b;
ROLLBACK TO SAVEPOINT a;
INSERT INTO item VALUES (103, 1, 'after rollback to');
SAVEPOINT c;
INSERT INTO item VALUES (104, 1, 'released');
RELEASE SAVEPOINT c;
SAVEPOINT d;
INSERT INTO item VALUES (105, 1, 'open at commit');
COMMIT;
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset
BEGIN;
INSERT INTO item VALUES (110, 1, 'rolled back');
ROLLBACK;
EXECUTE look(:'c');

-- savepoints around more than one chunk
BEGIN;
INSERT INTO item SELECT g, 1, 'kept' FROM generate_series(1000, 2999) g;
SAVEPOINT a;
INSERT INTO item SELECT g, 1, 'dropped' FROM generate_series(3000, 4999) g;
ROLLBACK TO SAVEPOINT a;
SAVEPOINT b;
INSERT INTO item SELECT g, 1, 'kept' FROM generate_series(5000, 6999) g;
RELEASE SAVEPOINT b;
INSERT INTO item SELECT g, 1, 'kept' FROM generate_series(7000, 7099) g;
COMMIT;
SELECT count(*), min(key->>'id'), max(key->>'id'),
	   count(*) FILTER (WHERE (key->>'id')::int BETWEEN 3000 AND 4999) AS dropped
  FROM poll.changes('item', :'c', 10000);
SELECT poll.current_cursor('{item}') AS c \gset
DELETE FROM item WHERE id >= 1000;
SELECT op, count(*) FROM poll.changes('item', :'c', 10000) GROUP BY op;
SELECT poll.current_cursor('{item}') AS c \gset

-- many nested savepoints, each with an entry: more than may be buffered
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXECUTE format('CREATE FUNCTION pg_temp.nest_%s() RETURNS void LANGUAGE plpgsql AS
			$f$ BEGIN INSERT INTO item VALUES (10000 + %s, 1, ''nested''); %s
			EXCEPTION WHEN division_by_zero THEN RAISE; END $f$',
			i, i, CASE WHEN i > 1 THEN format('PERFORM pg_temp.nest_%s();', i - 1) END);
	END LOOP;
	PERFORM pg_temp.nest_600();
END $$;
SELECT count(*), sum((key->>'id')::int) = sum(10000 + g) AS all_there
  FROM generate_series(1, 600) g
  LEFT JOIN poll.changes('item', :'c', 1000) ON (key->>'id')::int = 10000 + g;
DELETE FROM item WHERE id > 10000;
SELECT poll.current_cursor('{item}') AS c \gset

-- a transaction in many scopes: a chunk for each
CREATE TABLE seat (id text PRIMARY KEY, hall int NOT NULL);
SELECT poll.track('seat', scope => '{hall}');
SELECT poll.current_cursor('{seat}', '{"hall": -1}') AS s \gset
INSERT INTO seat SELECT g, g % 5000 FROM generate_series(1, 10000) g;
SELECT count(*) AS chunks, sum(count) AS changes FROM poll.change WHERE channel < 0;

-- more than may be buffered, in a savepoint that is rolled back and in one that is not: some get two chunks
BEGIN;
INSERT INTO seat VALUES ('before', -1);
SAVEPOINT a;
INSERT INTO seat SELECT 'undone' || lpad(g::text, 1700, '0'), g FROM generate_series(1, 9000) g;
ROLLBACK TO SAVEPOINT a;
INSERT INTO seat SELECT 'kept' || lpad(g::text, 1700, '0'), g % 8500 FROM generate_series(1, 9000) g;
INSERT INTO seat VALUES ('behind', -1);
COMMIT;
SELECT count(*) AS chunks, sum(count) AS changes FROM poll.change WHERE channel < 0;
SELECT key FROM poll.changed_keys('seat', :'s', scope => '{"hall": -1}');
SELECT poll.untrack('seat');
DROP TABLE seat;

-- PL/pgSQL exception blocks
DO $$
BEGIN
	INSERT INTO item VALUES (200, 1, 'before');
	BEGIN
		INSERT INTO item VALUES (201, 1, 'undone');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		INSERT INTO item VALUES (202, 1, 'in the handler');
	END;
END $$;
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset

-- a procedure that commits
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 300..303 LOOP
		INSERT INTO item VALUES (i, 1, 'step');
		IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
	END LOOP;
END $$;
CALL in_steps();
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset

-- COPY, INSERT ON CONFLICT, MERGE, WITH
COPY item FROM stdin;
400	1	copied
401	1	copied
\.
INSERT INTO item VALUES (400, 2, 'ignored'), (402, 1, 'new') ON CONFLICT DO NOTHING;
INSERT INTO item VALUES (401, 2, 'updated'), (403, 1, 'new')
	ON CONFLICT (id) DO UPDATE SET v = excluded.v, body = excluded.body;
MERGE INTO item USING (VALUES (400), (402), (404)) m(id) ON item.id = m.id
	WHEN MATCHED AND item.id = 402 THEN DELETE
	WHEN MATCHED THEN UPDATE SET body = 'merged'
	WHEN NOT MATCHED THEN INSERT VALUES (m.id, 1, 'merged in');
WITH gone AS (DELETE FROM item WHERE id BETWEEN 200 AND 303 RETURNING id)
	INSERT INTO item SELECT 900 + id, 1, 'moved' FROM gone WHERE id = 200;
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset

-- nested triggers, and foreign keys that cascade
CREATE TABLE child (id int PRIMARY KEY, item bigint REFERENCES item ON UPDATE CASCADE ON DELETE CASCADE);
SELECT poll.track('child');
CREATE FUNCTION make_child() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO child VALUES (new.id, new.id); RETURN NULL; END $$;
CREATE TRIGGER make_child AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION make_child();
SELECT poll.current_cursor('{item,child}') AS c2 \gset
INSERT INTO item VALUES (500, 1, 'parent'), (501, 1, 'parent');
UPDATE item SET id = 510 WHERE id = 500;
DELETE FROM item WHERE id = 501;
SELECT f, e->'op' AS op, e->'key' AS key, e->'data' AS data
  FROM json_each(poll.poll('{item,child}', :'c2')->'changes') c(f, list), json_array_elements(list) e;

-- deferred constraint triggers write before the commit, too
CREATE TABLE deferred (id int PRIMARY KEY);
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO item VALUES (600 + new.id, 1, 'late'); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION late();
SELECT poll.current_cursor('{item}') AS c \gset
INSERT INTO deferred VALUES (1);
EXECUTE look(:'c');

-- prepared transactions
SELECT poll.current_cursor('{item}') AS c \gset
BEGIN;
INSERT INTO item VALUES (700, 1, 'prepared');
PREPARE TRANSACTION 'one';
BEGIN;
INSERT INTO item VALUES (701, 1, 'prepared and rolled back');
PREPARE TRANSACTION 'two';
INSERT INTO item VALUES (702, 1, 'in between');
EXECUTE look(:'c');
SELECT poll.current_cursor('{item}') AS c \gset
COMMIT PREPARED 'one';
ROLLBACK PREPARED 'two';
EXECUTE look(:'c');

-- other roles write without privileges on the log
CREATE ROLE regress_poll_writer;
GRANT INSERT ON item, child TO regress_poll_writer;
SELECT poll.current_cursor('{item}') AS c \gset
SET ROLE regress_poll_writer;
INSERT INTO item VALUES (800, 1, 'by another role');
RESET ROLE;
EXECUTE look(:'c');
REVOKE ALL ON item, child FROM regress_poll_writer;
DROP ROLE regress_poll_writer;

-- chunks hold many entries: the log stays small
SELECT poll.current_cursor('{item}') AS c \gset
ALTER TABLE item DISABLE TRIGGER make_child;
INSERT INTO item SELECT g, 1, 'bulk' FROM generate_series(100001, 200000) g;
SELECT sum(count) AS entries, count(*) < 600 AS few_rows, max(octet_length(entries)) <= 1900 AS inline
  FROM poll.change WHERE xid = (SELECT max(xid) FROM poll.change);

-- also when they are put together from many savepoints, and none of it is lost on the way
SELECT poll.current_cursor('{item}') AS c \gset
DO $$
BEGIN
	FOR i IN 300001..302500 LOOP
		BEGIN
			INSERT INTO item VALUES (i, 1, 'nested');
		EXCEPTION WHEN unique_violation THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT sum(count) AS entries, max(count) <= 1024 AS few_entries, max(octet_length(entries)) <= 1900 AS inline
  FROM poll.change WHERE xid = (SELECT max(xid) FROM poll.change);
WITH RECURSIVE page AS (
	SELECT poll.poll('{item}', :'c', 700) AS p
	UNION ALL
	SELECT poll.poll('{item}', p->>'cursor', 700) FROM page WHERE (p->>'has_more')::bool
)
SELECT count(*) AS pages, sum(json_array_length(p->'changes'->'item')) AS changes FROM page;

-- session_replication_role = replica, as a subscription has it: only feeds with always hear of it
SELECT poll.track('item', 'item_always', always => true);
SELECT poll.current_cursor('{item}') AS c, poll.current_cursor('{item_always}') AS a \gset
SET session_replication_role = replica;
UPDATE item SET v = -1 WHERE id = (SELECT min(id) FROM item);
TRUNCATE item CASCADE;
RESET session_replication_role;
EXECUTE look(:'c');
SELECT op FROM poll.changes('item_always', :'a');

SELECT poll.untrack('item'), poll.untrack('item_always'), poll.untrack('child');
DROP TABLE deferred, child, item;
DROP FUNCTION make_child, late;
DROP PROCEDURE in_steps;
