-- how long a client is told to wait: by the classic rule, and by what was learned of the feeds

\set VERBOSITY default
\set SHOW_CONTEXT never
\pset null -

-- half of it after changes, 1.5 times from the third empty poll on, double after an error
SELECT had, empty, poll.next_interval('10 s', had, empty)
  FROM (VALUES (true, 0), (false, 1), (false, 2), (false, 3), (false, 9), (NULL, 0)) AS v (had, empty);
SELECT poll.next_interval('1.5 s', true, 0) AS shortest, poll.next_interval('50 s', false, 3) AS longest,
	   poll.next_interval('50 s', NULL, 0) AS longest_too,
	   poll.next_interval('40 s', true, 0, '30 s', '1 hour') AS own_shortest,
	   poll.next_interval('50 min', false, 3, max => '1 hour') AS own_longest,
	   poll.next_interval('10 s', true, 0, boost => 0.25) AS own_boost,
	   poll.next_interval('10 s', false, 3, decay => 3) AS own_decay;
SELECT poll.next_interval(NULL, true, 0), poll.next_interval('1 s', true, NULL), poll.next_interval('1 s', true, 0, NULL),
	   poll.next_interval('1 s', true, 0, decay => NULL);
SELECT poll.next_interval('-1 s', true, 0);
SELECT poll.next_interval('1 month', true, 0);
SELECT poll.next_interval('1 s', true, -1);
SELECT poll.next_interval('1 s', true, 0, '2 s', '1 s');
SELECT poll.next_interval('1 s', true, 0, boost => 0);
SELECT poll.next_interval('1 s', true, 0, boost => 'NaN');
SELECT poll.next_interval('1 s', true, 0, decay => 0.9);
SELECT poll.next_interval('1 s', true, 0, decay => 'infinity');

CREATE TABLE silent (id int PRIMARY KEY);
CREATE TABLE busy (id int PRIMARY KEY, x int);
CREATE TABLE minutely (id int PRIMARY KEY);
CREATE TABLE rooms (id int PRIMARY KEY, room int);
SELECT poll.track('silent'), poll.track('busy'), poll.track('minutely'), poll.track('rooms', scope => '{room}');

-- what is between them is spread by 5 %
CREATE FUNCTION seconds(feeds text[], scope jsonb DEFAULT NULL) RETURNS float8
LANGUAGE sql RETURN extract(epoch FROM poll.interval_hint(feeds, scope));

-- of what never changes: the older, the longer
SELECT seconds('{silent}') < 20 AS short;
UPDATE poll.feed SET tracked_at = tracked_at - interval '1 hour';
SELECT seconds('{silent}') BETWEEN 57 AND 63 AS longest;
SET poll_ext.max_interval = '10 min';
SELECT seconds('{silent}') BETWEEN 100 AND 200 AS by_rule;
UPDATE poll.feed SET tracked_at = tracked_at - interval '1 month';
SELECT seconds('{silent}') BETWEEN 570 AND 630 AS longest;
RESET poll_ext.max_interval;

-- of what changes all the time: shorter, and as short as a poll is cheap
DO $$ BEGIN
	FOR i IN 1 .. 40 LOOP
		INSERT INTO busy VALUES (i);
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
SELECT seconds('{busy}') < 10 AS shorter;
SET poll_ext.min_interval = '10 ms';
SET poll_ext.poll_cost = '1 ms';
SELECT seconds('{busy}') < 0.9 AS cheap;
SET poll_ext.poll_cost = '1 h';
SELECT seconds('{busy}') > 10 AS dear;
RESET poll_ext.min_interval;
RESET poll_ext.poll_cost;

-- a transaction with many chunks is one arrival
INSERT INTO minutely SELECT generate_series(1, 20000);
SELECT seconds('{minutely}') < 10 AS after_one;

-- what comes each minute is expected then; the times are in the log
DO $$ BEGIN
	FOR i IN 1 .. 20 LOOP
		INSERT INTO minutely VALUES (100000 + i);
		COMMIT;
	END LOOP;
END $$;
SET session_replication_role = replica;
WITH numbered AS (
	SELECT xid, row_number() OVER (ORDER BY xid DESC) AS n
	  FROM (SELECT DISTINCT xid FROM poll.change WHERE channel = (SELECT id FROM poll.feed WHERE name = 'minutely')) AS c)
UPDATE poll.change_0 c SET version = ((extract(epoch FROM clock_timestamp()) - 30 - 60 * (n - 1)) * 1e6)::bigint
  FROM numbered n WHERE n.xid = c.xid AND c.channel = (SELECT id FROM poll.feed WHERE name = 'minutely');
RESET session_replication_role;
\c
SELECT seconds('{minutely}') BETWEEN 20 AND 36 AS in_half_a_minute;

-- several feeds are one stream of changes
SELECT seconds('{minutely,silent}') BETWEEN 20 AND 36 AS in_half_a_minute;

-- a scope has its own
INSERT INTO rooms SELECT i, 1 FROM generate_series(1, 10) AS i;
SELECT seconds('{rooms}', '{"room": 2}') BETWEEN 57 AND 63 AS silent, seconds('{rooms}', '{"room": 1}') < 10 AS just_now;

-- what was learned is learned again
SELECT seconds('{silent}') > 50 AS before;
INSERT INTO silent VALUES (1);
SELECT pg_sleep(1.1);
SELECT seconds('{silent}') < 10 AS after;

-- in answers
SELECT (p->>'poll_after')::float8 BETWEEN 57 AND 63 AS poll_after
  FROM poll.poll('{rooms}', 'now', scope => '{"room": 2}') AS p;
SELECT p->'has_more' AS has_more, p->'poll_after' AS poll_after FROM poll.poll('{busy}', max_rows => 10) AS p;
SELECT r.status, (r.headers->>'X-Poll-Interval')::int BETWEEN 1 AND 63 AS seconds
  FROM poll.respond('{"query": "feeds=busy&cursor=now"}') AS r;
SELECT r.status, r.headers->'X-Poll-Interval' AS seconds
  FROM poll.respond('{"query": "feeds=busy&max_rows=10"}') AS r;

-- for whom it is
SELECT poll.interval_hint('{nothing}');
SELECT poll.interval_hint(NULL);
SELECT poll.interval_hint('{rooms}');
CREATE ROLE regress_poll_nobody;
SET ROLE regress_poll_nobody;
SELECT poll.interval_hint('{busy}');
SET poll_ext.min_interval = 1;
RESET ROLE;
DROP ROLE regress_poll_nobody;

DROP FUNCTION seconds;
DROP TABLE silent, busy, minutely, rooms;
