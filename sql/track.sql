-- track() and untrack(): what they accept, what they refuse, and that nothing is left half done

\set VERBOSITY default
\set SHOW_CONTEXT never

CREATE TABLE plain (id bigint PRIMARY KEY, body text);
CREATE TABLE "Odd Name" ("The Key" text PRIMARY KEY);
CREATE TABLE several (b int, a text, extra text, PRIMARY KEY (a, b) INCLUDE (extra));
CREATE TABLE by_identity (id int, code text NOT NULL);
CREATE UNIQUE INDEX by_identity_code ON by_identity (code);
ALTER TABLE by_identity REPLICA IDENTITY USING INDEX by_identity_code;

SELECT poll.track('plain');
SELECT poll.track('plain', 'again');
SELECT poll.track('several', 'a.b-c_1', always => true);
SELECT poll.track('by_identity');
SELECT poll.track('"Odd Name"', feed => 'odd');
SELECT feed, relation, key, always, tracked_at <= now() AS tracked FROM poll.feeds ORDER BY feed;

-- the trigger follows logical replication only where asked
SELECT tgrelid::regclass, tgenabled FROM pg_trigger
 WHERE tgname LIKE 'poll\_capture%' ORDER BY 1, tgname;

-- names
SELECT poll.track('plain');
SELECT poll.track('"Odd Name"');
SELECT poll.track('several', '');
SELECT poll.track('several', '-x');
SELECT poll.track('several', '.x');
SELECT poll.track('several', 'a b');
SELECT poll.track('several', 'ä');
SELECT poll.track('several', repeat('x', 64));
SELECT length(poll.track('several', repeat('x', 63)));

-- tables
CREATE TABLE no_key (id bigint);
CREATE TABLE deferrable_key (id bigint PRIMARY KEY DEFERRABLE);
CREATE TABLE full_identity (id bigint);
ALTER TABLE full_identity REPLICA IDENTITY FULL;
CREATE TEMP TABLE temporary (id bigint PRIMARY KEY);
CREATE UNLOGGED TABLE unlogged (id bigint PRIMARY KEY);
CREATE VIEW a_view AS SELECT * FROM plain;
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM plain;
CREATE FOREIGN DATA WRAPPER dummy;
CREATE SERVER dummy FOREIGN DATA WRAPPER dummy;
CREATE FOREIGN TABLE a_foreign_table (id bigint) SERVER dummy;
SELECT poll.track('no_key');
SELECT poll.track('deferrable_key');
SELECT poll.track('full_identity');
SELECT poll.track('temporary');
SELECT poll.track('unlogged');
SELECT poll.track('a_view');
SELECT poll.track('a_matview');
SELECT poll.track('a_foreign_table');
SELECT poll.track('plain_pkey');
SELECT poll.track('pg_class');
SELECT poll.track('poll.feed');
SELECT poll.track('nowhere');
SELECT poll.track(0);
SELECT poll.track(NULL);

-- types that are names of other things
CREATE TABLE of_names (k regclass PRIMARY KEY);
SELECT poll.track('of_names');
DROP TABLE of_names;

-- a replica identity of FULL or NOTHING does not matter where there is a primary key
ALTER TABLE plain REPLICA IDENTITY FULL;
SELECT poll.track('plain', 'full');
ALTER TABLE plain REPLICA IDENTITY NOTHING;
SELECT poll.track('plain', 'nothing');

-- ownership
CREATE ROLE regress_poll_other;
GRANT ALL ON plain TO regress_poll_other;
SET ROLE regress_poll_other;
SELECT poll.track('plain', 'stolen');
SELECT poll.untrack('plain');
RESET ROLE;
REVOKE ALL ON plain FROM regress_poll_other;
DROP ROLE regress_poll_other;

-- nothing half done: no trigger and no feed but those from above
SELECT count(*) AS feeds FROM poll.feed;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgname LIKE 'poll\_capture%';

-- rolled back
BEGIN;
SELECT poll.track('plain', 'undone');
ROLLBACK;
SELECT poll.poll('{undone}');

-- untrack
SELECT poll.untrack('nowhere');
SELECT poll.untrack(NULL);
SELECT poll.untrack(feed) FROM poll.feeds WHERE feed <> 'plain' ORDER BY feed;
SELECT feed FROM poll.feeds;
SELECT tgrelid::regclass FROM pg_trigger WHERE tgname LIKE 'poll\_capture%';
SELECT poll.poll('{odd}');

-- a dropped table takes its feeds along, and leaves its name to the next
DROP VIEW a_view;
DROP MATERIALIZED VIEW a_matview;
DROP TABLE plain;
SELECT poll.poll('{plain}');
CREATE TABLE plain (id bigint PRIMARY KEY);
SELECT poll.track('plain');
SELECT poll.poll('{plain}')->'changes' AS changes;
DROP TABLE plain;

-- a table that loses its key says so at the next write
CREATE TABLE keyless (id bigint CONSTRAINT the_key PRIMARY KEY);
SELECT poll.track('keyless');
INSERT INTO keyless VALUES (1);
ALTER TABLE keyless DROP CONSTRAINT the_key;
INSERT INTO keyless VALUES (2);
SELECT poll.poll('{keyless}');
ALTER TABLE keyless ADD PRIMARY KEY (id);
INSERT INTO keyless VALUES (3);
SELECT key, op FROM poll.changes('keyless') ORDER BY key::text;
SELECT poll.untrack('keyless');

-- a trigger without a feed of its table logs nothing
CREATE TRIGGER poll_capture_0 AFTER INSERT ON keyless FOR EACH ROW EXECUTE FUNCTION poll.capture('0');
INSERT INTO keyless VALUES (4);
CREATE TABLE tracked (id bigint PRIMARY KEY);
SELECT poll.track('tracked');
DO $$ BEGIN
	EXECUTE format('CREATE TRIGGER intruder AFTER INSERT ON keyless FOR EACH ROW EXECUTE FUNCTION poll.capture(%L)',
		(SELECT id FROM poll.feed WHERE name = 'tracked'));
END $$;
INSERT INTO keyless VALUES (5);
SELECT * FROM poll.changes('tracked');
SELECT poll.capture();
CREATE TRIGGER before_row BEFORE INSERT ON no_key FOR EACH ROW EXECUTE FUNCTION poll.capture('1');
INSERT INTO no_key VALUES (1);
SELECT poll.untrack('tracked');

DROP TABLE "Odd Name", several, by_identity, no_key, deferrable_key, full_identity, unlogged,
	keyless, tracked;
DROP FOREIGN DATA WRAPPER dummy CASCADE;
