-- old changes are trimmed, and whoever has not seen them is told so

\set VERBOSITY default
\set SHOW_CONTEXT never
\pset null -

-- The background worker does some of the steps, too, so these repeat them.
CREATE PROCEDURE close_segment() LANGUAGE plpgsql AS $$
DECLARE
	horizon bigint := (SELECT max(x::text::bigint) FROM poll.segment);
BEGIN
	WHILE horizon = (SELECT max(x::text::bigint) FROM poll.segment) LOOP
		PERFORM poll.trim('1 s');
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE trim_closed() LANGUAGE plpgsql AS $$
DECLARE
	closed int := (SELECT id FROM poll.segment WHERE state = 'closed');
BEGIN
	WHILE (SELECT state FROM poll.segment WHERE id = closed) = 'closed' LOOP
		PERFORM poll.trim('0');
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE trim_all() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM poll.trim('0');
		COMMIT;
		EXIT WHEN NOT EXISTS (SELECT FROM poll.segment WHERE state NOT IN ('empty', 'current'))
			AND NOT EXISTS (SELECT FROM poll.change);
	END LOOP;
END $$;

CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE other (id int PRIMARY KEY);
SELECT poll.track('t'), poll.track('other');
SELECT poll.current_cursor('{other}') AS silent, poll.current_cursor('{other}') AS polled,
	   clock_timestamp() AS long_ago \gset
SELECT poll.current_cursor('{t}') AS before \gset
INSERT INTO t VALUES (1, 'one'), (2, 'two');
SELECT p->>'cursor' AS sync FROM poll.poll('{t}', max_rows => 1) p \gset
SELECT poll.current_cursor('{t}') AS after \gset

-- what is not old enough stays, and is found in whatever segment it is
SELECT segment, state, action FROM poll.trim('1 hour') WHERE state = 'current';
CALL close_segment();
INSERT INTO t VALUES (3, 'three');
SELECT count(DISTINCT segment) AS segments FROM poll.change;
SELECT op, key FROM poll.changes('t', :'before');
SELECT op, key FROM poll.changes('t', :'before', max_rows => 2);
SELECT cursor AS cut FROM poll.changes('t', :'before', max_rows => 1) \gset
SELECT op, key FROM poll.changes('t', :'cut');
SELECT op, key FROM poll.changes_since('t', :'long_ago');
SELECT op, key FROM poll.changes('t', :'after');
SELECT op, key FROM poll.changes('t', :'sync');
SELECT count(*) AS closed, bool_and(bytes > 0 AND changes_until > :'long_ago' AND waits_for = '{}') AS shown
  FROM poll.stat_log WHERE state = 'closed';

-- a poll of a silent feed is lifted over what is closed: all to the same cursor, once
SELECT p->>'cursor' AS lifted, p->'changes' AS changes FROM poll.poll('{other}', :'polled') p \gset
SELECT :'lifted' = poll.current_cursor('{other}') AS same_for_all,
	   :'lifted' = poll.poll('{other}', :'lifted')->>'cursor' AS once,
	   :'lifted' = cursor AS now
  FROM poll.changes('other', 'now');
SELECT next_xid = (SELECT max(x::text::bigint) FROM poll.segment)::text::xid8 AS to_the_horizon, open_xids
  FROM poll.cursor_info(:'lifted');

-- who has not seen what is gone starts again, by whatever function
SELECT poll.current_cursor('{t}') AS last \gset
CALL trim_closed();
SELECT op, key FROM poll.changes('t', :'before');
SELECT poll.poll('{t}', :'before');
SELECT poll.has_changes('{t}', :'before');
SELECT key FROM poll.changed_keys('t', :'before');
SELECT id FROM poll.rows(NULL::t, :'before');
SELECT op, key FROM poll.changes('t', :'cut');
SELECT op, key FROM poll.changes('t', :'sync');
SELECT op, key FROM poll.changes_since('t', :'long_ago');
SELECT poll.has_changes('{t}', :'long_ago'::timestamptz);
SELECT status, body::json->>'reason' AS reason, headers->>'Link' AS link
  FROM poll.respond(jsonb_build_object('query', 'feeds=t&cursor=' || :'before'));
SELECT poll.has_changes('{other}', :'silent');

-- who polled meanwhile goes on
SELECT poll.has_changes('{other}', :'lifted');

-- and so do new ones, without anything left in the log
CALL trim_all();
SELECT poll.has_changes('{other}', :'lifted');
SELECT poll.current_cursor('{other}') AS lifted \gset
SELECT poll.has_changes('{other}', :'lifted');
SELECT poll.feed_etag('{other}') IS NOT NULL AS tag;
SELECT poll.poll('{other}', since => now())->'changes' AS changes;
SELECT poll.poll('{other}')->>'cursor' = poll.current_cursor('{other}') AS same FROM poll.poll('{other}');
SELECT poll.current_cursor('{t}') AS last \gset
INSERT INTO other VALUES (1);
INSERT INTO t VALUES (4, 'four');
SELECT op, key FROM poll.changes('other', :'lifted');
SELECT op, key FROM poll.changes('t', :'last');
SELECT count(*) FILTER (WHERE at < :'long_ago') AS old_ticks, count(*) > 0 AS ticks FROM poll.tick;

-- what is not committed lifts nobody: a crash could take it back
INSERT INTO t VALUES (5, 'five');
SELECT count(*) AS begun FROM poll.trim('0') WHERE action LIKE 'begun%';
SELECT poll.current_cursor('{other}') AS last \gset
BEGIN;
SELECT count(*) AS closed FROM poll.trim('0') WHERE action = 'closed';
SELECT poll.current_cursor('{other}') = :'last' AS not_lifted;
ROLLBACK;

-- a tick is not below the horizon of the log, also in a transaction that is older
BEGIN;
SELECT pg_current_xact_id() IS NOT NULL AS has_xid;
SAVEPOINT a_newer_one;
CREATE TABLE nothing ();
ROLLBACK TO a_newer_one;
SELECT count(*) AS closed FROM poll.trim('0') WHERE action = 'closed';
COMMIT;
CALL trim_all();
SELECT count(*) > 0 AS ticks FROM poll.tick;

-- a clock that was set back does not stop it
UPDATE poll.segment SET since = now() + '1 day';
SELECT count(*) FROM poll.trim('0') WHERE action IS NOT NULL;
SELECT bool_and(since <= now()) AS since_now FROM poll.segment;

-- who may
SELECT poll.trim('-1 s');
SET default_transaction_read_only = on;
SELECT poll.trim();
RESET default_transaction_read_only;
CREATE ROLE regress_poll_nobody;
SET ROLE regress_poll_nobody;
SELECT poll.trim();
SELECT * FROM poll.stat_log;
SELECT * FROM poll.segment;
RESET ROLE;
GRANT pg_read_all_stats TO regress_poll_nobody;
SET ROLE regress_poll_nobody;
SELECT bool_and(bytes >= 0 AND waits_for IS NOT NULL) AS shown FROM poll.stat_log;
RESET ROLE;
DROP ROLE regress_poll_nobody;

DROP PROCEDURE close_segment, trim_closed, trim_all;
DROP TABLE t, other;
