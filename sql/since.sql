-- polls since a time: what became visible since then, and never too little

\set VERBOSITY default
\set SHOW_CONTEXT never

SELECT clock_timestamp() AS early \gset
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE other (id int PRIMARY KEY);
INSERT INTO t VALUES (1, 'before');
SELECT poll.track('t');
SELECT pg_sleep(0.001);
SELECT clock_timestamp() AS tracked \gset

-- before any change
SELECT op FROM poll.changes_since('t', :'tracked');
INSERT INTO t VALUES (2, 'new');
SELECT op, key, data, version > 0 AS version, changed_at > :'tracked' AS changed_at
  FROM poll.changes_since('t', :'tracked');

-- all functions
SELECT poll.poll('{t}', since => :'tracked')->'changes'->'t'->0->'key' AS key;
SELECT poll.has_changes('{t}', :'tracked'::timestamptz);
SELECT key FROM poll.changed_keys('t', :'tracked'::timestamptz);

-- a change is found since any time up to the next tick, and not since that
INSERT INTO poll.tick VALUES (clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot()), '{}', 1)
	RETURNING at AS closed \gset
SELECT op, key FROM poll.changes_since('t', :'closed');
SELECT poll.has_changes('{t}', :'closed'::timestamptz);
SELECT poll.has_changes('{t}', :'tracked'::timestamptz);

-- one that was open at the tick comes, too, and nothing else
SELECT op, key FROM poll.changes_since('t', :'closed');
BEGIN;
INSERT INTO poll.tick VALUES (:'closed'::timestamptz + interval '1 us',
	(pg_current_xact_id()::text::bigint + 1)::text::xid8, ARRAY[pg_current_xact_id()], 1);
UPDATE t SET v = 'late' WHERE id = 2;
COMMIT;
SELECT op, key FROM poll.changes_since('t', :'closed'::timestamptz + interval '1 us');
INSERT INTO poll.tick VALUES (clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot()), '{}', 1)
	RETURNING at AS closed \gset

-- the cursor that comes with it goes on from there
SELECT cursor AS c FROM poll.changes_since('t', :'closed') \gset
INSERT INTO t VALUES (3, 'later');
SELECT op, key FROM poll.changes('t', :'c');
SELECT p->>'cursor' AS c FROM poll.poll('{t}', since => 'infinity') p \gset
INSERT INTO t VALUES (4, 'later still');
SELECT op, key FROM poll.changes('t', :'c');

-- the timestamp of an answer goes back as since; while there is more it is null,
-- which is a full sync and loses nothing either
SELECT p->>'timestamp' AS t1, p->>'has_more' AS has_more
  FROM poll.poll('{t}', since => :'tracked', max_rows => 2) p;
SELECT p->>'timestamp' AS t1 FROM poll.poll('{t}', since => :'tracked', max_rows => 3) p \gset
UPDATE t SET v = 'changed' WHERE id = 1;
SELECT count(*) FILTER (WHERE key->>'id' = '1') AS found FROM poll.changes_since('t', :'t1');
SELECT (p->>'timestamp')::timestamptz IS NULL AS none FROM poll.poll('{t}', max_rows => 1) p;

-- bounds
SELECT poll.poll('{t}', since => :'early');
SELECT poll.poll('{t}', since => '-infinity');
SELECT poll.has_changes('{t}', :'early'::timestamptz);
SELECT poll.poll('{t}', :'c', since => :'tracked');
SELECT op FROM poll.changes_since('t', NULL);
SELECT poll.has_changes('{t}', NULL::timestamptz);
SELECT key FROM poll.changed_keys('t', NULL::timestamptz);
SELECT poll.poll('{nowhere}', since => :'tracked');
SELECT poll.track('other');
SELECT poll.poll('{t,other}', since => :'tracked');

DROP TABLE t, other;
