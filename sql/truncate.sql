-- TRUNCATE: an op of its own, in order with the other changes of its transaction

\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TABLE t (id int PRIMARY KEY, v text, room int);
CREATE TABLE child (id int PRIMARY KEY REFERENCES t);
INSERT INTO t SELECT g, 'old', g % 2 FROM generate_series(1, 10) g;
SELECT poll.track('t'), poll.track('t', 'rooms', scope => '{room}'), poll.track('child');

-- as every function shows it
SELECT poll.current_cursor('{t}') AS c, poll.current_cursor('{child}') AS child,
	   poll.current_cursor('{rooms}', '{"room": 1}') AS room \gset
TRUNCATE t CASCADE;
SELECT op, key, data, version > 0 AS version, changed_at IS NOT NULL AS changed_at FROM poll.changes('t', :'c');
SELECT key, version > 0 AS version FROM poll.changed_keys('t', :'c');
SELECT (poll.poll('{t}', :'c')->'changes'->'t'->0)::jsonb - 'version' AS change;
SELECT poll.has_changes('{t}', :'c');
SELECT * FROM poll.rows(NULL::t, :'c', feed => 't');
SELECT op FROM poll.changes('child', :'child');
SELECT op FROM poll.changes('rooms', :'room', scope => '{"room": 1}');

-- what came before it in the page is gone, what comes after it stays
SELECT poll.current_cursor('{t}') AS c \gset
INSERT INTO t VALUES (1, 'before', 0);
BEGIN;
INSERT INTO t VALUES (2, 'before', 0);
TRUNCATE t CASCADE;
INSERT INTO t VALUES (1, 'after', 0), (3, 'after', 0);
COMMIT;
INSERT INTO t VALUES (4, 'after', 0);
SELECT op, key, data->>'v' AS v FROM poll.changes('t', :'c');

-- also with a scope, whose changes are in another channel of the log
SELECT poll.current_cursor('{rooms}', '{"room": 1}') AS room \gset
BEGIN;
INSERT INTO t VALUES (11, 'before', 1);
TRUNCATE t CASCADE;
INSERT INTO t VALUES (11, 'after', 1), (12, 'elsewhere', 0);
COMMIT;
SELECT op, key, data->>'v' AS v FROM poll.changes('rooms', :'room', scope => '{"room": 1}');
TRUNCATE t CASCADE;
INSERT INTO t VALUES (1, 'after', 0), (3, 'after', 0), (4, 'after', 0);

-- also in pages of one
CREATE FUNCTION pages(c text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	LOOP
		SELECT INTO r * FROM poll.changes('t', c, 1);
		EXIT WHEN NOT FOUND;
		c := r.cursor;
		RETURN NEXT concat_ws(' ', r.op, r.key, r.data->>'v');
	END LOOP;
END $$;
SELECT poll.current_cursor('{t}') AS c \gset
INSERT INTO t VALUES (5, 'before', 0);
BEGIN;
TRUNCATE t CASCADE;
INSERT INTO t VALUES (5, 'after', 0), (6, 'after', 0);
COMMIT;
SELECT pages(:'c');

-- twice in a transaction, and rolled back
SELECT poll.current_cursor('{t}') AS c \gset
BEGIN;
TRUNCATE t CASCADE;
INSERT INTO t VALUES (5, 'between', 0);
TRUNCATE t CASCADE;
INSERT INTO t VALUES (6, 'after', 0);
SAVEPOINT s;
TRUNCATE t CASCADE;
INSERT INTO t VALUES (7, 'undone', 0);
ROLLBACK TO s;
INSERT INTO t VALUES (8, 'after', 0);
COMMIT;
SELECT op, key, data->>'v' AS v FROM poll.changes('t', :'c');
SELECT poll.current_cursor('{t}') AS c \gset
BEGIN;
TRUNCATE t CASCADE;
ROLLBACK;
SELECT op FROM poll.changes('t', :'c');

-- a full sync that was under way
SELECT poll.next_cursor('t', max_rows => 1) AS c \gset
TRUNCATE t CASCADE;
INSERT INTO t VALUES (9, 'new', 0);
SELECT pages(:'c');

-- RESTART IDENTITY and several tables in one command
SELECT poll.current_cursor('{t}') AS c, poll.current_cursor('{child}') AS child \gset
TRUNCATE t, child RESTART IDENTITY;
SELECT op FROM poll.changes('t', :'c');
SELECT op FROM poll.changes('child', :'child');

-- a trigger that puts rows in at once: they are logged before the TRUNCATE, so clients start again
CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t VALUES (1, 'default', 0);
	RETURN NULL;
END $$;
CREATE TRIGGER a_refill AFTER TRUNCATE ON t EXECUTE FUNCTION refill();
SELECT poll.current_cursor('{t}') AS c \gset
TRUNCATE t CASCADE;
SELECT op FROM poll.changes('t', :'c');
SELECT op, data->>'v' AS v FROM poll.changes('t');

DROP FUNCTION pages;
DROP TABLE t, child;
DROP FUNCTION refill;
