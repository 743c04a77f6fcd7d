-- poll.rows(): changes as rows of the table, for a function of an API to filter, order and page

\set VERBOSITY default
\set SHOW_CONTEXT never

CREATE TABLE message (id int PRIMARY KEY, gone int, room int, body text, at date);
ALTER TABLE message DROP gone;
INSERT INTO message SELECT g, g % 2, 'body ' || g, '2026-01-01'::date + g FROM generate_series(1, 5) g;
SELECT poll.track('message');

-- the rows that are there, typed
SELECT * FROM poll.rows(NULL::message);
SELECT pg_typeof(r), r.at + 1 AS next_day FROM poll.rows(NULL::message) r WHERE room = 1 ORDER BY id DESC LIMIT 2;
SELECT poll.current_cursor('{message}') AS c \gset
UPDATE message SET body = 'new' WHERE id IN (2, 4);
UPDATE message SET body = 'newest' WHERE id = 2;
DELETE FROM message WHERE id = 3;
SELECT * FROM poll.rows(NULL::message, :'c');
SELECT count(*) FROM poll.rows(NULL::message, 'now');

-- and the cursor behind them, page by page
CREATE FUNCTION pages(c text, max_rows int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	page record;
BEGIN
	FOR i IN 1..50 LOOP
		SELECT INTO page string_agg(id::text, ',') AS ids, poll.next_cursor('message', c, max_rows) AS next
		  FROM poll.rows(NULL::message, c, max_rows);
		RETURN NEXT coalesce(page.ids, 'no rows');
		c := page.next;
		EXIT WHEN NOT poll.has_changes('{message}', c);
	END LOOP;
	RETURN NEXT c = poll.current_cursor('{message}');
END $$;
SELECT pages(NULL, 2);
SELECT pages(:'c', 1);
SELECT pages(:'c', 10);
SELECT poll.next_cursor('message', 'now') = poll.current_cursor('{message}') AS same;
SELECT poll.next_cursor('message', poll.current_cursor('{message}')) = poll.current_cursor('{message}') AS same;

-- the wrapper that an API would have
CREATE SCHEMA api
	CREATE VIEW message AS SELECT id, body FROM public.message;
CREATE FUNCTION api.messages_since(c text) RETURNS SETOF public.message
STABLE LANGUAGE sql AS $$ SELECT * FROM poll.rows(NULL::public.message, c) $$;
SELECT id FROM api.messages_since(:'c') WHERE body LIKE 'new%' ORDER BY id;

-- as a plain role under row-level security
CREATE ROLE regress_poll_reader;
GRANT SELECT ON message TO regress_poll_reader;
ALTER TABLE message ENABLE ROW LEVEL SECURITY;
CREATE POLICY room ON message USING (room = 0);
UPDATE message SET body = 'for both' WHERE id IN (1, 2);
SET ROLE regress_poll_reader;
SELECT * FROM poll.rows(NULL::message);
SELECT id, body FROM poll.rows(NULL::message, :'c');
SELECT pages(NULL, 2);
RESET ROLE;

-- bad requests
CREATE TABLE untracked (id int);
CREATE TYPE a_pair AS (a int, b int);
SELECT poll.rows(NULL::untracked);
SELECT poll.rows(NULL::a_pair);
SELECT poll.rows(NULL::int);
SELECT poll.rows(ROW(1, 2));
SELECT poll.rows(NULL);
SELECT poll.track('message', 'again');
SELECT poll.rows(NULL::message);
SELECT count(*) FROM poll.rows(NULL::message, feed => 'again');
SELECT poll.rows(NULL::untracked, feed => 'message');
SELECT poll.rows(NULL::message, max_rows => 0, feed => 'again');
SELECT poll.rows(NULL::message, 'x', feed => 'again');
SELECT poll.rows(NULL::message, feed => 'nowhere');
SELECT poll.next_cursor('nowhere');
SELECT poll.next_cursor(NULL);

DROP SCHEMA api CASCADE;
DROP FUNCTION pages;
DROP TABLE message, untracked;
DROP TYPE a_pair;
DROP ROLE regress_poll_reader;
