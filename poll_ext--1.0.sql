/* poll_ext--1.0.sql */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION poll_ext" to load this file. \quit

--
-- Tables.  Only C code reads and writes them; nobody has privileges on them.
--

CREATE SEQUENCE poll.feed_id_seq;

CREATE TABLE poll.feed (
	id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('poll.feed_id_seq'),
	name text COLLATE "C" NOT NULL UNIQUE,
	relation regclass NOT NULL,
	columns name[],
	scope name[],
	always boolean NOT NULL DEFAULT false,
	expose_deletes boolean NOT NULL DEFAULT false,
	tracked_at timestamptz NOT NULL
);
COMMENT ON TABLE poll.feed IS 'registry: the tracked tables (dumped)';

-- no foreign key: a parallel restore may load this table first
CREATE TABLE poll.shape (
	feed bigint PRIMARY KEY,
	shape text NOT NULL
);
COMMENT ON TABLE poll.shape IS 'the columns and the key of each feed, as they were after the last DDL (dumped)';

CREATE TABLE poll.change_0 (
	channel bigint NOT NULL,
	xid xid8 NOT NULL,
	version bigint NOT NULL,
	count integer NOT NULL,
	entries bytea NOT NULL
) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX change_0_idx ON poll.change_0 (channel, xid, version);
COMMENT ON TABLE poll.change_0 IS 'change log, a segment: chunks of (operation, key) by channel, top-level transaction and version (not dumped)';
CREATE TABLE poll.change_1 (LIKE poll.change_0) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX change_1_idx ON poll.change_1 (channel, xid, version);
COMMENT ON TABLE poll.change_1 IS 'change log, a segment; see poll.change_0';
CREATE TABLE poll.change_2 (LIKE poll.change_0) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX change_2_idx ON poll.change_2 (channel, xid, version);
COMMENT ON TABLE poll.change_2 IS 'change log, a segment; see poll.change_0';

CREATE VIEW poll.change AS
SELECT 0 AS segment, c.* FROM poll.change_0 c UNION ALL
SELECT 1 AS segment, c.* FROM poll.change_1 c UNION ALL
SELECT 2 AS segment, c.* FROM poll.change_2 c;
COMMENT ON VIEW poll.change IS 'the change log, for superusers who look for something';

CREATE TABLE poll.segment (
	id integer PRIMARY KEY,
	state text NOT NULL,
	since timestamptz NOT NULL,
	x xid8 NOT NULL,
	p xid8[] NOT NULL,
	retained timestamptz
);
COMMENT ON TABLE poll.segment IS 'the segments of the change log, in turn empty, current, filled, closed, trimmed since when; all below x but for p is covered: of a closed one its rows, which end at the time retained, of others those that it had before (not dumped)';
INSERT INTO poll.segment VALUES
	(0, 'current', pg_catalog.clock_timestamp(), '1', '{}', NULL),
	(1, 'empty', pg_catalog.clock_timestamp(), '1', '{}', NULL),
	(2, 'empty', pg_catalog.clock_timestamp(), '1', '{}', NULL);

CREATE TABLE poll.epoch (
	value bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	secret uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON TABLE poll.epoch IS 'a random number that tells this change log from any other (not dumped)';
INSERT INTO poll.epoch (value)
	SELECT ('x' || pg_catalog.right(pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint;

CREATE TABLE poll.tick (
	at timestamptz NOT NULL,
	x xid8 NOT NULL,
	p xid8[] NOT NULL,
	timeline integer NOT NULL
);
CREATE INDEX tick_idx ON poll.tick (at);
COMMENT ON TABLE poll.tick IS 'what was visible when: all below x but for those in p; timeline: of the server that wrote it (not dumped)';

CREATE TABLE poll.rate_policy (
	endpoint text COLLATE "C" PRIMARY KEY CHECK (pg_catalog.length(endpoint) BETWEEN 1 AND 63),
	quota integer NOT NULL CHECK (quota BETWEEN 1 AND 100000000),
	per interval NOT NULL CHECK (per BETWEEN '1 ms' AND '1 day'),
	algorithm text NOT NULL CHECK (algorithm IN ('window', 'strict', 'gcra')),
	burst integer CHECK (burst IS NULL OR (burst BETWEEN 1 AND 100000000 AND algorithm = 'gcra'))
);
COMMENT ON TABLE poll.rate_policy IS 'what clients may do at which endpoint (dumped)';

SELECT pg_catalog.pg_extension_config_dump('poll.feed', '');
SELECT pg_catalog.pg_extension_config_dump('poll.feed_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('poll.shape', '');
SELECT pg_catalog.pg_extension_config_dump('poll.rate_policy', '');

--
-- Triggers.
--

CREATE FUNCTION poll.capture() RETURNS trigger
AS 'MODULE_PATHNAME', 'poll_ext_capture'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.capture() IS 'AFTER ROW trigger of a tracked table, created by poll.track(); argument: the id of its feed';

CREATE FUNCTION poll.capture_truncate() RETURNS trigger
AS 'MODULE_PATHNAME', 'poll_ext_capture_truncate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.capture_truncate() IS 'AFTER TRUNCATE trigger of a tracked table and its partitions, created by poll.track(); argument: the id of its feed';

CREATE FUNCTION poll.invalidate() RETURNS trigger
AS 'MODULE_PATHNAME', 'poll_ext_invalidate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.invalidate() IS 'statement trigger of poll.feed and poll.rate_policy: makes all sessions read them again';

CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON poll.feed
	FOR EACH STATEMENT EXECUTE FUNCTION poll.invalidate();
CREATE TRIGGER invalidate AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON poll.rate_policy
	FOR EACH STATEMENT EXECUTE FUNCTION poll.invalidate();
ALTER TABLE poll.feed ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE poll.rate_policy ENABLE ALWAYS TRIGGER invalidate;

CREATE FUNCTION poll.local_only() RETURNS trigger
AS 'MODULE_PATHNAME', 'poll_ext_local_only'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.local_only() IS 'row trigger of the extension''s tables: ignores what logical replication brings';

CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.feed
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.shape
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.change_0
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.change_1
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.change_2
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.segment
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.tick
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.epoch
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
CREATE TRIGGER local_only BEFORE INSERT OR UPDATE OR DELETE ON poll.rate_policy
	FOR EACH ROW EXECUTE FUNCTION poll.local_only();
ALTER TABLE poll.feed ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.shape ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.change_0 ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.change_1 ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.change_2 ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.segment ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.tick ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.epoch ENABLE ALWAYS TRIGGER local_only;
ALTER TABLE poll.rate_policy ENABLE ALWAYS TRIGGER local_only;

--
-- Tracking.
--

CREATE FUNCTION poll.track(relation regclass, feed text DEFAULT NULL, columns name[] DEFAULT NULL,
	scope name[] DEFAULT NULL, always boolean DEFAULT false, expose_deletes boolean DEFAULT false)
RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_track'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.track(regclass, text, name[], name[], boolean, boolean) IS
'Starts to track a table as a feed and returns the feed''s name (default: the table''s). Needs ownership. columns: show only these; scope: columns whose values divide the feed; always: also capture what logical replication applies; expose_deletes: tell callers under row-level security the keys of rows that they cannot see any more. Errors: no key, not a permanent table, name taken, no such column.';

CREATE FUNCTION poll.untrack(feed text) RETURNS void
AS 'MODULE_PATHNAME', 'poll_ext_untrack'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.untrack(text) IS
'Stops tracking; the feed''s cursors are worthless from then on. Needs ownership of the table. Errors: PT404.';

CREATE VIEW poll.feeds WITH (security_barrier) AS
SELECT f.name AS feed,
	   f.relation,
	   (SELECT pg_catalog.array_agg(a.attname ORDER BY k.n)
		  FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
		  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		 WHERE k.n <= i.indnkeyatts) AS key,
	   f.columns,
	   f.scope,
	   f.always,
	   f.expose_deletes,
	   f.tracked_at
  FROM poll.feed f
  JOIN pg_catalog.pg_class c ON c.oid = f.relation
  LEFT JOIN LATERAL (
	   SELECT i.indrelid, i.indkey, i.indnkeyatts
		 FROM pg_catalog.pg_index i
		WHERE i.indrelid = f.relation AND i.indisvalid AND i.indimmediate
		  AND (i.indisprimary OR i.indisreplident)
		ORDER BY i.indisprimary DESC
		LIMIT 1) i ON true
 WHERE pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
   AND (pg_catalog.has_table_privilege(f.relation, 'SELECT')
		OR (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'))
			  FROM pg_catalog.pg_attribute a
			 WHERE a.attrelid = f.relation AND a.attnum > 0 AND NOT a.attisdropped
			   AND (f.columns IS NULL OR a.attname = ANY (f.columns || f.scope)
					OR a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]))));
COMMENT ON VIEW poll.feeds IS 'the feeds whose tables the caller may read';

--
-- Reading.
--

CREATE FUNCTION poll.poll(feeds text[], cursor text DEFAULT NULL, max_rows integer DEFAULT 100,
	scope jsonb DEFAULT NULL, since timestamptz DEFAULT NULL)
RETURNS json
AS 'MODULE_PATHNAME', 'poll_ext_poll'
LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.poll(text[], text, integer, jsonb, timestamptz) IS
'What changed in the feeds since the cursor, from one snapshot: {"changes": {"<feed>": [{"op": "upsert"|"delete"|"truncate", "key": {...}|null, "data": {...}|null, "version": microseconds since 1970|null}, ...]}, "cursor": "...", "has_more": bool, "timestamp": "..."|null, "feeds_checked": n}. Without a cursor: full sync, then on; ''now'': from now on; since: from that time on (all that became visible since then, perhaps again). The timestamp may be passed as since; it is null while there is more. max_rows: 1 to 10000. Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.changes(feed text, cursor text DEFAULT NULL, max_rows integer DEFAULT 100,
	scope jsonb DEFAULT NULL,
	OUT op text, OUT key json, OUT data json, OUT version bigint, OUT changed_at timestamptz,
	OUT cursor text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'poll_ext_changes'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION poll.changes(text, text, integer, jsonb) IS
'What changed in a feed since the cursor, a row per key at its last change, each with the cursor after it. op: upsert, delete, truncate (all rows are gone; no key), or skip (only the cursor moves on). Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.changes_since(feed text, since timestamptz, max_rows integer DEFAULT 100,
	scope jsonb DEFAULT NULL,
	OUT op text, OUT key json, OUT data json, OUT version bigint, OUT changed_at timestamptz,
	OUT cursor text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'poll_ext_changes_since'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION poll.changes_since(text, timestamptz, integer, jsonb) IS
'As poll.changes(), from a time on: everything that became visible since then, also what was written before; what is up to a second older may come again. The last row has the cursor to go on with (op skip if it is the only one). Errors: PT400, PT404, PT410 for a time before the feed was tracked.';

CREATE FUNCTION poll.rows(table_row anyelement, cursor text DEFAULT NULL, max_rows integer DEFAULT 100,
	scope jsonb DEFAULT NULL, feed text DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'poll_ext_rows'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION poll.rows(anyelement, text, integer, jsonb, text) IS
'The page of poll.changes() as rows of the table, as poll.rows(NULL::messages, cursor): only those that are there, without deletes; columns that the feed does not show are null. poll.next_cursor() in the same statement has the cursor behind it. feed: needed for a table with several. Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.next_cursor(feed text, cursor text DEFAULT NULL, max_rows integer DEFAULT 100,
	scope jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_next_cursor'
LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.next_cursor(text, text, integer, jsonb) IS
'The cursor behind the page that poll.rows() and poll.changes() return for the same arguments in the same statement. Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.changed_keys(feed text, cursor text, max_rows integer DEFAULT 1000,
	scope jsonb DEFAULT NULL,
	OUT key json, OUT version bigint, OUT changed_at timestamptz, OUT cursor text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'poll_ext_changed_keys'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION poll.changed_keys(text, text, integer, jsonb) IS
'The keys that changed in a feed since the cursor, without their rows, each with the cursor after it. A row with a version and no key: TRUNCATE. Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.changed_keys(feed text, since timestamptz, max_rows integer DEFAULT 1000,
	scope jsonb DEFAULT NULL,
	OUT key json, OUT version bigint, OUT changed_at timestamptz, OUT cursor text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'poll_ext_changed_keys_since'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION poll.changed_keys(text, timestamptz, integer, jsonb) IS
'The keys that changed in a feed since a time; see poll.changes_since(). Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.has_changes(feeds text[], cursor text, scope jsonb DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'poll_ext_has_changes'
LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.has_changes(text[], text, jsonb) IS
'Would a poll of the feeds with this cursor have anything to say? Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.has_changes(feeds text[], since timestamptz, scope jsonb DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'poll_ext_has_changes_since'
LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.has_changes(text[], timestamptz, jsonb) IS
'Would a poll of the feeds since that time have anything to say? Errors: PT400, PT404, PT410.';

CREATE FUNCTION poll.wait(feeds text[], cursor text, timeout interval DEFAULT '25 s', scope jsonb DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'poll_ext_wait'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.wait(text[], text, interval, jsonb) IS
'Waits until a poll with this cursor would have anything to say: true; false after the timeout (0 to 1 hour). With ''now'' as cursor: for the next change. Not in a transaction that has written, nor one above READ COMMITTED (25001). Errors: PT400, PT404, PT410, 22004, 22023.';

CREATE FUNCTION poll.interval_hint(feeds text[], scope jsonb DEFAULT NULL) RETURNS interval
AS 'MODULE_PATHNAME', 'poll_ext_interval_hint'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.interval_hint(text[], jsonb) IS
'How long to wait until the next poll of these feeds, as learned from when they have changed, between poll_ext.min_interval and poll_ext.max_interval and spread by 5 %: the delay of changes is then worth a poll (poll_ext.poll_cost). Errors: PT400, PT404.';

CREATE FUNCTION poll.next_interval(current interval, had_changes boolean, empty_polls integer,
	min interval DEFAULT '1 s', max interval DEFAULT '1 min', boost float8 DEFAULT 0.5, decay float8 DEFAULT 1.5)
RETURNS interval
AS 'MODULE_PATHNAME', 'poll_ext_next_interval'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION poll.next_interval(interval, boolean, integer, interval, interval, float8, float8) IS
'The next interval of a client that knows only what its polls have brought: times boost after changes, times decay from the third empty poll in a row on (empty_polls: with this one), doubled if the poll has failed (had_changes: null), and within min and max. Null if another argument is. Errors: 22023.';

CREATE FUNCTION poll.current_cursor(feeds text[], scope jsonb DEFAULT NULL) RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_current_cursor'
LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.current_cursor(text[], jsonb) IS
'The cursor that has seen everything so far. Errors: PT400, PT404.';

CREATE FUNCTION poll.cursor_info(cursor text,
	OUT state text, OUT next_xid xid8, OUT open_xids xid8[], OUT at_xid xid8,
	OUT at_version bigint, OUT lsn pg_lsn, OUT last_key text[], OUT current boolean)
AS 'MODULE_PATHNAME', 'poll_ext_cursor_info'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION poll.cursor_info(text) IS
'What a cursor says, for the curious: complete, cut or full sync; everything below next_xid was seen but for open_xids, and of at_xid all up to at_version; lsn: where the server was that cut it; last_key: of a full sync; current: is it of this log? Errors: PT400.';

--
-- Retention.
--

CREATE FUNCTION poll.trim(older_than interval DEFAULT NULL,
	OUT segment integer, OUT state text, OUT bytes bigint, OUT action text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'poll_ext_trim'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 3;
COMMENT ON FUNCTION poll.trim(interval) IS
'What the background worker does each second: takes each segment of the change log one step on, once the changes in it are older than that (default: poll_ext.retention). A step is in force when the transaction commits, so repeat it until nothing is done. action: begun, closed, trimmed, emptied; or why not: too young, waiting for writers, in use; null: there is nothing to do. Cursors that have not seen what is trimmed have expired. One session at a time: it waits for another one. Errors: 22015 a negative age.';

CREATE VIEW poll.stat_log AS
SELECT s.id AS segment,
	   s.state,
	   s.since,
	   pg_catalog.pg_total_relation_size(c.oid) AS bytes,
	   ARRAY(SELECT coalesce(l.pid::text, 'prepared ' || x.gid, 'prepared')
			   FROM pg_catalog.pg_locks l
			   JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
			   LEFT JOIN (pg_catalog.pg_locks t
						  JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid)
					ON l.pid IS NULL AND t.pid IS NULL AND t.virtualtransaction = l.virtualtransaction
			  WHERE l.granted
				AND (l.relation = c.oid
					 AND (s.state = 'trimmed' OR
						  s.state = 'filled' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareLock') OR
						  s.state = 'empty' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
					 OR l.relation = 'poll.segment'::regclass
					 AND s.state = 'current' AND l.mode = 'ShareUpdateExclusiveLock')
			  ORDER BY 1) AS waits_for,
	   CASE WHEN s.state = 'closed' THEN s.retained END AS changes_until
  FROM poll.segment s
  JOIN pg_catalog.pg_class c ON c.oid = ('poll.change_' || s.id)::regclass;
COMMENT ON VIEW poll.stat_log IS
'The segments of the change log: current is the one that is written; waits_for: process ids of sessions, and prepared transactions, that a filled or trimmed one, or an empty one that is to be written next, waits for; of the current one: who is in poll.trim(); changes_until: when the last change in a closed one was visible';

--
-- Rate limits.
--

CREATE FUNCTION poll.set_rate_policy(endpoint text, quota integer, per interval,
	algorithm text DEFAULT 'window', burst integer DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'poll_ext_set_rate_policy'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.set_rate_policy(text, integer, interval, text, integer) IS
'Limits each client to a quota (1 to 100000000) per interval (1 ms to 1 day) at an endpoint; ''default'' is for all that have no policy. algorithm: window (at most 1.1 times the quota in any interval), strict (never more than the quota), gcra (evenly, and up to burst at once; burst: the quota if null). In force everywhere at commit. Errors: 22023, 22004, 42602.';

CREATE FUNCTION poll.drop_rate_policy(endpoint text) RETURNS void
AS 'MODULE_PATHNAME', 'poll_ext_drop_rate_policy'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.drop_rate_policy(text) IS
'Drops the policy of an endpoint; the default one is in force there then, if there is one. Errors: 42704 there is none.';

CREATE VIEW poll.rate_policies AS
SELECT endpoint, quota, per, algorithm,
	   CASE WHEN algorithm OPERATOR(pg_catalog.=) 'gcra' THEN coalesce(burst, quota) END AS burst
  FROM poll.rate_policy;
COMMENT ON VIEW poll.rate_policies IS 'how much a client may do at which endpoint';

CREATE FUNCTION poll.rate_check(client text, endpoint text DEFAULT 'default', cost integer DEFAULT 1,
	OUT allowed boolean, OUT quota integer, OUT remaining integer, OUT retry_after float8, OUT reset_after float8)
AS 'MODULE_PATHNAME', 'poll_ext_rate_check'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION poll.rate_check(text, text, integer) IS
'May this client spend that much now? If so, it has: rolling back does not give it back. quota: of the policy, null if there is none and everything is allowed; remaining: what it may spend now; retry_after: seconds until it may spend the cost, 0 if allowed; reset_after: seconds until the whole quota is there. Errors: PT400 no client (or over 1024 bytes), cost out of range; 55000 not in shared_preload_libraries.';

CREATE FUNCTION poll.rate_peek(client text, endpoint text DEFAULT 'default', cost integer DEFAULT 1,
	OUT allowed boolean, OUT quota integer, OUT remaining integer, OUT retry_after float8, OUT reset_after float8)
AS 'MODULE_PATHNAME', 'poll_ext_rate_peek'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION poll.rate_peek(text, text, integer) IS
'What poll.rate_check() would answer now; spends nothing. Errors: as there.';

CREATE FUNCTION poll.rate_reset(client text, endpoint text DEFAULT 'default') RETURNS boolean
AS 'MODULE_PATHNAME', 'poll_ext_rate_reset'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION poll.rate_reset(text, text) IS
'Forgets what a client has spent at an endpoint; false if there was nothing. Errors: PT400, 55000.';

CREATE FUNCTION poll.rate_counters(OUT endpoint text, OUT entries bigint, OUT checks bigint,
	OUT denials bigint, OUT evictions bigint, OUT overflows bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'poll_ext_rate_counters'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION poll.rate_counters() IS
'What poll.stat_rate sums up: a row for each endpoint, and another for one whose algorithm or interval was changed. Errors: 55000.';

CREATE VIEW poll.stat_rate AS
SELECT p.endpoint,
	   coalesce(pg_catalog.sum(c.entries), 0)::bigint AS entries,
	   coalesce(pg_catalog.sum(c.checks), 0)::bigint AS checks,
	   coalesce(pg_catalog.sum(c.denials), 0)::bigint AS denials,
	   coalesce(pg_catalog.sum(c.evictions), 0)::bigint AS evictions,
	   coalesce(pg_catalog.sum(c.overflows), 0)::bigint AS overflows
  FROM poll.rate_policy p
  LEFT JOIN poll.rate_counters() c ON c.endpoint OPERATOR(pg_catalog.=) p.endpoint
 GROUP BY p.endpoint;
COMMENT ON VIEW poll.stat_rate IS
'Since the server started, for each policy: checks; denials; evictions: clients that were forgotten to make room for others; overflows: checks of clients that found no room; and entries: the clients of which something is remembered now';

CREATE FUNCTION poll.client_network(address inet) RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_client_network'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION poll.client_network(inet) IS
'The network that stands for a client in poll.rate_check(): of an IPv4 address the address itself, of an IPv6 address its /64 (settings poll_ext.client_ipv4_prefix and poll_ext.client_ipv6_prefix); an IPv4 address mapped to IPv6 is that IPv4 address.';

--
-- Validators.
--

CREATE FUNCTION poll.etag(content anyelement) RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_etag'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION poll.etag(anyelement) IS
'A strong entity tag of a content, in its quotes: 128 bits of SHA-256. The same for equal values, whatever the session''s settings; of a row, its columns'' names count, too.';

CREATE FUNCTION poll.etag(content text) RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_etag'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION poll.etag(text) IS 'The same; for literals.';

CREATE FUNCTION poll.etag_agg_add(state internal, content anyelement) RETURNS internal
AS 'MODULE_PATHNAME', 'poll_ext_etag_agg_add'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION poll.etag_agg_add(internal, anyelement) IS 'part of the aggregate poll.etag_agg()';

CREATE FUNCTION poll.etag_agg_result(state internal) RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_etag_agg_result'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION poll.etag_agg_result(internal) IS 'part of the aggregate poll.etag_agg()';

CREATE AGGREGATE poll.etag_agg(content anyelement) (
	SFUNC = poll.etag_agg_add,
	STYPE = internal,
	SSPACE = 8192,
	FINALFUNC = poll.etag_agg_result,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE poll.etag_agg(anyelement) IS
'A strong entity tag of many values in their order: say poll.etag_agg(r ORDER BY r.id). Of no rows, too.';

CREATE FUNCTION poll.feed_etag(feeds text[], variant text DEFAULT NULL, scope jsonb DEFAULT NULL) RETURNS text
AS 'MODULE_PATHNAME', 'poll_ext_feed_etag'
LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.feed_etag(text[], text, jsonb) IS
'A weak entity tag of whatever is computed from the tables of these feeds, without looking at them: a new one when something was changed there, and perhaps when a transaction ends that was open then. The current role counts; variant: whatever else the answer depends on, such as a user''s id or a format. Errors: PT400, PT404.';

CREATE FUNCTION poll.if_none_match(header text, etag text) RETURNS boolean
AS 'MODULE_PATHNAME', 'poll_ext_if_none_match'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION poll.if_none_match(text, text) IS
'Does the value of an If-None-Match header (RFC 9110) match the entity tag, so that the answer is 304? Weak comparison; * matches any; a malformed or null header, or a null tag, matches nothing. Errors: 22023 the second is no entity tag.';

--
-- HTTP.
--

CREATE TYPE poll.response AS (status integer, headers jsonb, body text);
COMMENT ON TYPE poll.response IS
'What poll.respond() returns: the status of HTTP, the headers as {name: value}, and the body, which is null if there is none.';

CREATE FUNCTION poll.respond(request jsonb) RETURNS poll.response
AS 'MODULE_PATHNAME', 'poll_ext_respond'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.respond(jsonb) IS
'Answers a request over HTTP completely. request: {"method": "GET", "query": "feeds=a,b&cursor=...", "headers": {lower-case name: value}, "body": of a POST, "client": whose quota it is, or "address": of that client}. GET, HEAD, POST, OPTIONS; parameters feeds, cursor, since, scope, max_rows, wait. Status: 200 304 400 404 405 410 429 503.';

CREATE FUNCTION poll.pgrst_poll(feeds text[], cursor text DEFAULT NULL, since timestamptz DEFAULT NULL,
	max_rows integer DEFAULT 100, scope jsonb DEFAULT NULL, client text DEFAULT NULL)
RETURNS json
AS 'MODULE_PATHNAME', 'poll_ext_pgrst_poll'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.pgrst_poll(text[], text, timestamptz, integer, jsonb, text) IS
'poll.poll() for a function that PostgREST calls, as the caller (SECURITY INVOKER): reads request.headers and request.method, appends to response.headers and sets response.status. 200: the answer of poll.poll() with "etag"; 304: null, if If-None-Match has the tag (GET and HEAD), costs no quota if the page is empty; 429: {"code", "message", "details", "hint", "retry_after"}, if the client (null: nobody) has spent its quota at endpoint ''poll''. Errors: PT400, PT404, PT410, 22023 for settings that are not as PostgREST has them.';

CREATE FUNCTION poll.pgrst_pre_request(feeds jsonb DEFAULT '{}', client text DEFAULT NULL,
	endpoint text DEFAULT 'default', variant text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'poll_ext_pgrst_pre_request'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.pgrst_pre_request(jsonb, text, text, text) IS
'For the function that PostgREST calls before each request (db-pre-request). feeds: {"/path": ["feed", ...]}, the feeds that everything at a request path is computed from: such an answer gets an ETag, and is not computed at all but 304 if If-None-Match has it (GET and HEAD). client: whose quota at the endpoint a request takes, null: none; 304 costs nothing. variant: whatever else such answers depend on but the path, the role, the claims of the token, the cookies and the headers that PostgREST knows. Errors: PGRST, which is 304 or 429 and not logged; PT400, PT404, 22023, 22004.';

--
-- Sharing.
--

CREATE FUNCTION poll.cached(key text, ttl interval, query text, feeds text[] DEFAULT NULL, scope jsonb DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'poll_ext_cached'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.cached(text, interval, text, text[], jsonb) IS
'What the query returns, one column of at most one row, as jsonb; computed once for all who ask with the same key, query, role, settings of output and claims (poll_ext.cache_claims), and kept for ttl (up to a year). With feeds: the tables that it reads from; then only until one of them changes. It runs as the caller, read-only. Errors: PT400, PT404, 21000 more rows or columns, 22004, 22023 ttl.';

CREATE FUNCTION poll.cache_counters(OUT hits bigint, OUT misses bigint, OUT waits bigint, OUT timeouts bigint,
	OUT evictions bigint, OUT entries bigint, OUT bytes bigint, OUT max_bytes bigint)
AS 'MODULE_PATHNAME', 'poll_ext_cache_counters'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION poll.cache_counters() IS 'What poll.stat_cache shows. Errors: 55000.';

CREATE VIEW poll.stat_cache AS SELECT * FROM poll.cache_counters();
COMMENT ON VIEW poll.stat_cache IS
'Since the server started, of all databases: hits: answers from the cache; misses: answers that were computed and kept; waits: of those who asked while an answer was being computed; timeouts: those who then computed it for themselves, after 250 ms; evictions: answers that made room for others; and entries, bytes: answers now, of max_bytes';

--
-- Event triggers: what DDL does to tracked tables.
--

CREATE FUNCTION poll.ddl_start() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'poll_ext_ddl_start'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.ddl_start() IS 'ddl_command_start: resets feeds that lose a partition concurrently';

CREATE FUNCTION poll.ddl_end() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'poll_ext_ddl_end'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.ddl_end() IS 'ddl_command_end: resets feeds that show something else now';

CREATE FUNCTION poll.ddl_drop() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'poll_ext_ddl_drop'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.ddl_drop() IS 'sql_drop: forgets the feeds of dropped tables, resets those that lost partitions or columns';

CREATE FUNCTION poll.ddl_rewrite() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'poll_ext_ddl_rewrite'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION poll.ddl_rewrite() IS 'table_rewrite: resets feeds of tables whose rows are computed anew';

CREATE EVENT TRIGGER poll_ddl_start ON ddl_command_start
	EXECUTE FUNCTION poll.ddl_start();
CREATE EVENT TRIGGER poll_ddl_end ON ddl_command_end
	WHEN TAG IN ('ALTER FOREIGN TABLE', 'ALTER MATERIALIZED VIEW', 'ALTER TABLE', 'ALTER TRIGGER', 'ALTER TYPE',
		'ALTER VIEW', 'CREATE SCHEMA', 'CREATE TABLE', 'CREATE TRIGGER')
	EXECUTE FUNCTION poll.ddl_end();
CREATE EVENT TRIGGER poll_ddl_drop ON sql_drop
	EXECUTE FUNCTION poll.ddl_drop();
CREATE EVENT TRIGGER poll_ddl_rewrite ON table_rewrite
	EXECUTE FUNCTION poll.ddl_rewrite();
ALTER EVENT TRIGGER poll_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER poll_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER poll_ddl_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER poll_ddl_rewrite ENABLE ALWAYS;

--
-- Privileges.  Whoever may SELECT from a table may poll it; the functions check.
--

REVOKE ALL ON poll.feed, poll.shape, poll.change_0, poll.change_1, poll.change_2, poll.change, poll.segment,
	poll.tick, poll.epoch, poll.rate_policy FROM PUBLIC;
REVOKE ALL ON SEQUENCE poll.feed_id_seq FROM PUBLIC;
GRANT USAGE ON SCHEMA poll TO PUBLIC;
GRANT SELECT ON poll.feeds, poll.rate_policies TO PUBLIC;

-- Whoever checks a client spends what that client has.
REVOKE ALL ON FUNCTION poll.rate_check(text, text, integer), poll.rate_peek(text, text, integer),
	poll.rate_reset(text, text), poll.set_rate_policy(text, integer, interval, text, integer),
	poll.drop_rate_policy(text), poll.rate_counters(), poll.respond(jsonb),
	poll.pgrst_poll(text[], text, timestamptz, integer, jsonb, text),
	poll.pgrst_pre_request(jsonb, text, text, text), poll.trim(interval),
	poll.cached(text, interval, text, text[], jsonb), poll.cache_counters() FROM PUBLIC;
GRANT SELECT ON poll.stat_rate, poll.stat_log, poll.stat_cache TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION poll.rate_counters(), poll.cache_counters() TO pg_read_all_stats;
