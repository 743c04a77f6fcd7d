-- cursors: whose they are, when they have expired, and what is none

\set SHOW_CONTEXT never
\set VERBOSITY default

CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE b (id int PRIMARY KEY);
SELECT poll.track('a'), poll.track('b');
INSERT INTO a SELECT generate_series(1, 3);

-- the SQLSTATE and message of a statement
CREATE FUNCTION try(statement text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	state := '00000';
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;
\x
-- another feed, other feeds
SELECT poll.current_cursor('{a}') AS ca, poll.current_cursor('{a,b}') AS cab \gset
SELECT * FROM try(format('SELECT poll.poll(''{b}'', %L)', :'ca'));
SELECT * FROM try(format('SELECT poll.poll(''{a,b}'', %L)', :'ca'));
SELECT * FROM try(format('SELECT poll.poll(''{b,a,b}'', %L)', :'cab'));

-- tracked again
SELECT poll.untrack('a');
SELECT * FROM try(format('SELECT poll.poll(''{a}'', %L)', :'ca'));
SELECT poll.track('a');
SELECT * FROM try(format('SELECT poll.poll(''{a}'', %L)', :'ca'));
SELECT * FROM try(format('SELECT poll.has_changes(''{a}'', %L)', :'ca'));
SELECT * FROM try(format('SELECT * FROM poll.changed_keys(''a'', %L)', :'ca'));

-- another log: the epoch is part of every cursor
SELECT poll.current_cursor('{a}') AS ca \gset
UPDATE poll.epoch SET value = value + 1;
\c
SELECT * FROM try(format('SELECT poll.poll(''{a}'', %L)', :'ca'));
SELECT (poll.cursor_info(:'ca')).current;
\x

-- what a cursor says
INSERT INTO a SELECT generate_series(4, 6);
SELECT state, next_xid > '0' AS next_xid, open_xids, at_xid, at_version, lsn, last_key, current
  FROM poll.cursor_info(poll.current_cursor('{a}'));
SELECT state, open_xids, at_xid = next_xid AS inside, at_version > 0 AS version, lsn > '0/0' AS lsn, last_key, current
  FROM poll.cursor_info(poll.poll('{a}', poll.poll('{a}', NULL, 3)->>'cursor', 2)->>'cursor');
SELECT poll.current_cursor('{a}') AS ca \gset
INSERT INTO a SELECT generate_series(7, 9);
SELECT state, open_xids, at_xid = next_xid AS inside, at_version > 0 AS version, lsn > '0/0' AS lsn, last_key, current
  FROM poll.cursor_info(poll.poll('{a}', :'ca', 2)->>'cursor');
SELECT state, open_xids, at_xid, at_version, lsn > '0/0' AS lsn, last_key, current
  FROM poll.cursor_info(poll.poll('{a}', NULL, 2)->>'cursor');
SELECT poll.cursor_info(NULL);

-- every other text is refused: cut short, continued, changed in one place, in another alphabet
CREATE FUNCTION sqlstate_of(cursor text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM poll.cursor_info(cursor);
	RETURN 'ok';
EXCEPTION WHEN others THEN
	RETURN sqlstate;
END $$;
SELECT poll.poll('{a}', :'ca', 2)->>'cursor' AS cut \gset
SELECT sqlstate_of(left(:'cut', n)), count(*) FROM generate_series(0, length(:'cut') - 1) n GROUP BY 1;
SELECT sqlstate_of(:'cut' || x) FROM unnest('{A,AA,AAAA,=,==," ",.}'::text[]) x;
SELECT sqlstate_of(x) FROM unnest(ARRAY['', ' ', '=', 'A', 'now', E'\n', 'ü', repeat('A', 23), repeat('A', 1000), repeat('_', 1000), repeat('B', 5000000)]) x;

SELECT poll.untrack('a'), poll.untrack('b');
DROP TABLE a, b;
DROP FUNCTION try, sqlstate_of;
