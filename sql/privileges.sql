-- who may call what, and who gets to see what: plain roles, column privileges, row-level security, definers

\set VERBOSITY default
\set SHOW_CONTEXT never

-- exactly these functions may PUBLIC call; the tables nobody may read
SELECT p.oid::regprocedure, has_function_privilege('public', p.oid, 'EXECUTE') AS public
  FROM pg_proc p WHERE pronamespace = 'poll'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT c.oid::regclass, c.relkind, (SELECT string_agg(DISTINCT a.privilege_type, ',')
	FROM aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
	WHERE a.grantee = 0) AS public
  FROM pg_class c WHERE relnamespace = 'poll'::regnamespace AND relkind <> 'i' ORDER BY 1;
SELECT has_schema_privilege('public', 'poll', 'USAGE') AS usage, has_schema_privilege('public', 'poll', 'CREATE') AS create;

CREATE ROLE regress_poll_owner;
CREATE ROLE regress_poll_reader;
CREATE ROLE regress_poll_anon;
CREATE SCHEMA app AUTHORIZATION regress_poll_owner;
SET ROLE regress_poll_owner;
CREATE TABLE app.note (id int PRIMARY KEY, owner name, body text);
INSERT INTO app.note VALUES (1, 'regress_poll_reader', 'hers'), (2, 'regress_poll_anon', 'his'), (3, 'x', 'theirs');
SELECT poll.track('app.note');
SELECT feed FROM poll.feeds;
RESET ROLE;

-- without SELECT the feed does not exist
SET ROLE regress_poll_reader;
SELECT * FROM app.note;
SELECT poll.poll('{note}');
SELECT * FROM poll.changes('note');
SELECT poll.has_changes('{note}', 'now');
SELECT poll.current_cursor('{note}');
SELECT feed FROM poll.feeds;
SELECT * FROM poll.feed;
SELECT * FROM poll.change;
SELECT * FROM poll.epoch;
SELECT * FROM poll.tick;
SELECT * FROM poll.shape;
INSERT INTO poll.change_0 VALUES (1, '1', 1, 1, '');
RESET ROLE;

-- it takes USAGE of the schema, and SELECT of every column
GRANT SELECT ON app.note TO regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT poll.has_changes('{note}', 'now');
RESET ROLE;
GRANT USAGE ON SCHEMA app TO regress_poll_reader, regress_poll_anon;
SET ROLE regress_poll_reader;
SELECT key FROM poll.changes('note');
SELECT feed FROM poll.feeds;
RESET ROLE;
GRANT SELECT (id, owner) ON app.note TO regress_poll_anon;
SET ROLE regress_poll_anon;
SELECT poll.has_changes('{note}', 'now');
RESET ROLE;
GRANT SELECT (body) ON app.note TO regress_poll_anon;
SET ROLE regress_poll_anon;
SELECT key FROM poll.changes('note');
RESET ROLE;

-- privileges that go are gone at once, in a session that has just polled, too
SET ROLE regress_poll_reader;
SELECT poll.current_cursor('{note}') AS c \gset
SELECT poll.has_changes('{note}', :'c');
RESET ROLE;
REVOKE SELECT ON app.note FROM regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT poll.has_changes('{note}', :'c');
RESET ROLE;
GRANT regress_poll_owner TO regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT poll.has_changes('{note}', :'c');
RESET ROLE;
REVOKE regress_poll_owner FROM regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT poll.has_changes('{note}', :'c');
RESET ROLE;
GRANT SELECT ON app.note TO regress_poll_reader;

-- the owner of the database is in pg_database_owner
CREATE FUNCTION pg_temp.give_database(role name) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO %I', current_database(), role); END $$;
SELECT current_user AS me \gset
GRANT SELECT ON app.note TO pg_database_owner;
REVOKE SELECT ON app.note FROM regress_poll_reader;
SELECT pg_temp.give_database('regress_poll_reader');
SET ROLE regress_poll_reader;
SELECT poll.has_changes('{note}', :'c');
RESET ROLE;
SELECT pg_temp.give_database(:'me');
SET ROLE regress_poll_reader;
SELECT poll.has_changes('{note}', :'c');
RESET ROLE;
GRANT SELECT ON app.note TO regress_poll_reader;
REVOKE SELECT ON app.note FROM pg_database_owner;

-- row-level security: rows as the caller sees them
ALTER TABLE app.note ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.note USING (owner = current_user);
SET ROLE regress_poll_reader;
SELECT key, data FROM poll.changes('note');
RESET ROLE;
SET ROLE regress_poll_anon;
SELECT key, data FROM poll.changes('note');
RESET ROLE;
SET ROLE regress_poll_owner;
SELECT key, data FROM poll.changes('note');
UPDATE app.note SET body = body || ', changed';
INSERT INTO app.note VALUES (4, 'regress_poll_reader', 'new');
DELETE FROM app.note WHERE id = 3;
UPDATE app.note SET owner = 'regress_poll_anon' WHERE id = 1;
RESET ROLE;

-- no tombstones for those under row-level security: neither of rows that were deleted nor of rows that left
-- their view; where a page ends with such a change, the cursor alone moves on
SET ROLE regress_poll_reader;
SELECT op, key, data FROM poll.changes('note', :'c');
SELECT key FROM poll.changed_keys('note', :'c');
SELECT json_array_length(p->'changes'->'note') AS changes, p->'has_more' AS has_more, poll.has_changes('{note}', p->>'cursor') AS more
  FROM poll.poll('{note}', :'c') p;
SELECT op, key FROM poll.changes('note', :'c', 1);
RESET ROLE;
SET ROLE regress_poll_anon;
SELECT op, key, data FROM poll.changes('note', :'c');
RESET ROLE;
-- the owner sees all
SET ROLE regress_poll_owner;
SELECT op, key, data FROM poll.changes('note', :'c');
SELECT key FROM poll.changed_keys('note', :'c');
ALTER TABLE app.note FORCE ROW LEVEL SECURITY;
SELECT op, key, data FROM poll.changes('note', :'c');
ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY;
RESET ROLE;
-- and so does who may bypass it, as soon as he may
ALTER ROLE regress_poll_reader BYPASSRLS;
SET ROLE regress_poll_reader;
SELECT op, key FROM poll.changes('note', :'c');
RESET ROLE;
ALTER ROLE regress_poll_reader NOBYPASSRLS;
SET ROLE regress_poll_reader;
SELECT op, key FROM poll.changes('note', :'c');
SET row_security = off;
SELECT op, key FROM poll.changes('note', :'c');
RESET row_security;
RESET ROLE;

-- unless the owner has said that keys may be told; a policy's columns need no privilege
SET ROLE regress_poll_owner;
SELECT poll.track('app.note', 'open', columns => '{id,body}', expose_deletes => true);
RESET ROLE;
REVOKE SELECT (owner) ON app.note FROM regress_poll_anon;
SET ROLE regress_poll_anon;
SELECT op, key, data FROM poll.changes('open');
SELECT poll.current_cursor('{open}') AS c_open \gset
RESET ROLE;
SET ROLE regress_poll_owner;
UPDATE app.note SET owner = 'x', body = 'left' WHERE id = 1;
INSERT INTO app.note VALUES (5, 'x', 'never seen');
DELETE FROM app.note WHERE id = 2;
INSERT INTO app.note VALUES (6, 'regress_poll_anon', 'new');
RESET ROLE;
SET ROLE regress_poll_anon;
SELECT op, key, data FROM poll.changes('open', :'c_open');
SELECT key FROM poll.changed_keys('open', :'c_open');
SELECT feed FROM poll.feeds;
RESET ROLE;

-- with a scope, a row that the caller can see elsewhere is deleted here
SET ROLE regress_poll_owner;
SELECT poll.track('app.note', 'by_owner', scope => '{owner}');
CREATE POLICY all_of_x ON app.note FOR SELECT TO regress_poll_reader USING (owner = 'x');
RESET ROLE;
SET ROLE regress_poll_reader;
SELECT poll.current_cursor('{by_owner}', '{"owner": "x"}') AS c_x,
	   poll.current_cursor('{by_owner}', '{"owner": "regress_poll_reader"}') AS c_r \gset
RESET ROLE;
SET ROLE regress_poll_owner;
UPDATE app.note SET owner = 'regress_poll_reader' WHERE id = 1;
UPDATE app.note SET owner = 'regress_poll_anon' WHERE id = 5;
RESET ROLE;
SET ROLE regress_poll_reader;
SELECT op, key FROM poll.changes('by_owner', :'c_x', scope => '{"owner": "x"}');
SELECT op, key FROM poll.changes('by_owner', :'c_r', scope => '{"owner": "regress_poll_reader"}');
RESET ROLE;
GRANT SELECT (owner) ON app.note TO regress_poll_anon;

-- which of the keys that a client holds it may not see any more, it can ask the table
SET ROLE regress_poll_anon;
SELECT k FROM unnest(ARRAY[1, 2, 6]) k WHERE NOT EXISTS (SELECT FROM app.note WHERE id = k);
RESET ROLE;

-- nobody can disturb the feeds of others by objects that have their names, nor see them in poll.feeds
SELECT id AS note_id FROM poll.feed WHERE name = 'note' \gset
CREATE FUNCTION as_trigger(command text, id bigint) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE format(command, id); END $$;
GRANT CREATE ON SCHEMA public TO regress_poll_anon;
SET ROLE regress_poll_owner;
SELECT poll.current_cursor('{note}') AS c_note \gset
RESET ROLE;
SET ROLE regress_poll_anon;
CREATE TEMP TABLE mine (a int);
CREATE TABLE public.mine2 (a int);
SELECT as_trigger('CREATE TRIGGER poll_capture_%s AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', :note_id),
	   as_trigger('CREATE TRIGGER poll_capture_%s AFTER INSERT ON public.mine2 FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', :note_id),
	   as_trigger('DROP TRIGGER poll_capture_%s ON mine', :note_id);
DROP TABLE public.mine2;
CREATE TYPE public.my_type AS (a int);
ALTER TYPE public.my_type ADD ATTRIBUTE b int;
DROP TYPE public.my_type;
CREATE FUNCTION pg_temp.leak(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS
	$$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$;
RESET ROLE;
REVOKE USAGE ON SCHEMA app FROM regress_poll_anon;
SET ROLE regress_poll_anon;
SELECT feed FROM poll.feeds WHERE pg_temp.leak(feed);
DROP TABLE mine;
DROP FUNCTION pg_temp.leak;
RESET ROLE;
GRANT USAGE ON SCHEMA app TO regress_poll_anon;
REVOKE CREATE ON SCHEMA public FROM regress_poll_anon;
SET ROLE regress_poll_owner;
SELECT op FROM poll.changes('note', :'c_note');

-- a partition may be another role's: its owner cannot end the feed, nor is he in the way
CREATE TABLE app.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE app.part1 PARTITION OF app.parted FOR VALUES FROM (0) TO (10);
CREATE TABLE app.part2 PARTITION OF app.parted FOR VALUES FROM (10) TO (20);
SELECT poll.track('app.parted');
RESET ROLE;
GRANT CREATE ON SCHEMA app TO regress_poll_reader;
ALTER TABLE app.part1 OWNER TO regress_poll_reader;
ALTER TABLE app.part2 OWNER TO regress_poll_reader;
SELECT id AS parted_id FROM poll.feed WHERE name = 'parted' \gset
SET ROLE regress_poll_reader;
SELECT as_trigger('DROP TRIGGER poll_truncate_%s ON app.part1', :parted_id);
RESET ROLE;
SET ROLE regress_poll_owner;
SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = 'poll_truncate_' || :'parted_id' ORDER BY 1;
ALTER TABLE app.parted DETACH PARTITION app.part2;
SELECT poll.untrack('parted');
SELECT tgrelid::regclass FROM pg_trigger WHERE tgname LIKE 'poll\_%\_' || :'parted_id' ORDER BY 1;
RESET ROLE;
DROP TABLE app.part2;
DROP FUNCTION as_trigger;
REVOKE CREATE ON SCHEMA app FROM regress_poll_reader;

-- a SECURITY DEFINER function polls as its owner
SET ROLE regress_poll_owner;
CREATE FUNCTION app.poll_notes(cursor text) RETURNS TABLE (op text, key json) LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = '' AS $$ SELECT op, key FROM poll.changes('note', cursor) $$;
RESET ROLE;
REVOKE SELECT ON app.note FROM regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT * FROM app.poll_notes(:'c');
SELECT poll.poll('{note}', :'c');
RESET ROLE;

-- tracking is for owners, and needs nothing but that
SET ROLE regress_poll_reader;
SELECT poll.track('app.note', 'mine');
SELECT poll.untrack('note');
CREATE TRIGGER mine AFTER INSERT ON app.note FOR EACH ROW EXECUTE FUNCTION poll.capture('1');
ALTER EVENT TRIGGER poll_ddl_end DISABLE;
DROP FUNCTION poll.capture CASCADE;
RESET ROLE;
SET ROLE regress_poll_owner;
SELECT poll.untrack('note');
RESET ROLE;

DROP SCHEMA app CASCADE;
DROP ROLE regress_poll_owner, regress_poll_reader, regress_poll_anon;
