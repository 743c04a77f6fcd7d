-- scopes: each value of the scope columns is a feed of its own

\set VERBOSITY default
\set SHOW_CONTEXT never

CREATE TABLE message (id int PRIMARY KEY, room_id int, kind text, body text);
CREATE INDEX ON message (room_id);
INSERT INTO message SELECT g, g % 3, 'a', 'body ' || g FROM generate_series(1, 9) g;
INSERT INTO message VALUES (10, NULL, 'a', 'nowhere');
SELECT poll.track('message', 'room', scope => '{room_id}'),
	   poll.track('message', 'kinds', scope => '{room_id,kind}'),
	   poll.track('message', 'all');
SELECT feed, scope FROM poll.feeds ORDER BY feed;

-- full sync: of the scope alone, in pages
SELECT op, key, data FROM poll.changes('room', scope => '{"room_id": 1}');
CREATE FUNCTION pages(feed text, scope jsonb, c text, max_rows int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	page json;
BEGIN
	FOR i IN 1..50 LOOP
		page := poll.poll(ARRAY[feed], c, max_rows, scope);
		c := page->>'cursor';
		RETURN NEXT coalesce((SELECT string_agg(e->>'op' || ' ' || (e->'key'->>'id'), ', ')
								FROM json_array_elements(page->'changes'->feed) e), 'nothing');
		EXIT WHEN NOT (page->>'has_more')::bool;
	END LOOP;
END $$;
SELECT pages('room', '{"room_id": 2}', NULL, 2);
SELECT pages('room', '{"room_id": null}', NULL, 2);
SELECT pages('kinds', '{"kind": "a", "room_id": 0}', NULL, 1);
SELECT pages('room', '{"room_id": 77}', NULL, 2);

-- changes: each room its own
SELECT poll.current_cursor('{room}', '{"room_id": 0}') AS c0, poll.current_cursor('{room}', '{"room_id": 1}') AS c1,
	   poll.current_cursor('{room}', '{"room_id": null}') AS cn, poll.current_cursor('{all}') AS ca,
	   poll.current_cursor('{kinds}', '{"room_id": 1, "kind": "a"}') AS c1a,
	   poll.current_cursor('{kinds}', '{"room_id": 1, "kind": "b"}') AS c1b \gset
UPDATE message SET body = 'new' WHERE id = 1;
SELECT poll.has_changes('{room}', :'c0', '{"room_id": 0}') AS other_room,
	   poll.has_changes('{room}', :'c1', '{"room_id": 1}') AS room;
SELECT op, key, data FROM poll.changes('room', :'c1', scope => '{"room_id": 1}');
SELECT key FROM poll.changed_keys('room', :'c1', scope => '{"room_id": 1}');

-- a row that moves is deleted here and there it is new
UPDATE message SET room_id = 0 WHERE id = 1;
UPDATE message SET room_id = NULL WHERE id = 4;
UPDATE message SET kind = 'b' WHERE id = 7;
SELECT op, key FROM poll.changes('room', :'c1', scope => '{"room_id": 1}');
SELECT op, key FROM poll.changes('room', :'c0', scope => '{"room_id": 0}');
SELECT op, key FROM poll.changes('room', :'cn', scope => '{"room_id": null}');
SELECT op, key FROM poll.changes('kinds', :'c1a', scope => '{"room_id": 1, "kind": "a"}');
SELECT op, key FROM poll.changes('kinds', :'c1b', scope => '{"room_id": 1, "kind": "b"}');
SELECT op, key FROM poll.changes('all', :'ca');

-- there and back, a new key, a delete, and a key that another row takes
SELECT poll.current_cursor('{room}', '{"room_id": 2}') AS c2, poll.current_cursor('{room}', '{"room_id": 0}') AS c0 \gset
UPDATE message SET room_id = 0 WHERE id = 2;
UPDATE message SET room_id = 2 WHERE id = 2;
UPDATE message SET id = 50 WHERE id = 5;
DELETE FROM message WHERE id = 8;
INSERT INTO message VALUES (8, 0, 'a', 'another row');
SELECT op, key, data->>'body' AS body FROM poll.changes('room', :'c2', scope => '{"room_id": 2}');
SELECT op, key, data->>'body' AS body FROM poll.changes('room', :'c0', scope => '{"room_id": 0}');

-- several feeds, some with a scope
SELECT poll.current_cursor('{room,all,kinds}', '{"room_id": 0, "kind": "a"}') AS c \gset
UPDATE message SET body = 'several' WHERE id IN (2, 9);
SELECT f, e->'key' AS key FROM json_each(poll.poll('{all,kinds,room}', :'c', scope => '{"kind": "a", "room_id": 0}')->'changes') x(f, list),
	   json_array_elements(list) e;

-- the value goes through the column's type: these are one room
SELECT count(DISTINCT poll.current_cursor('{room}', s)) AS rooms
  FROM unnest('{"{\"room_id\": 7}","{\"room_id\": \"7\"}","{\"room_id\": \" 07\"}"}'::jsonb[]) s;

-- bad requests
SELECT poll.poll('{room}');
SELECT poll.poll('{room}', scope => '{}');
SELECT poll.poll('{room}', scope => '7');
SELECT poll.poll('{room}', scope => '[7]');
SELECT poll.poll('{room}', scope => 'null');
SELECT poll.poll('{room}', scope => '{"room_id": "x"}');
SELECT poll.poll('{room}', scope => '{"room_id": 99999999999}');
SELECT poll.poll('{room}', scope => '{"room_id": 7.5}');
SELECT poll.poll('{room}', scope => '{"room_id": [7]}');
SELECT poll.poll('{room}', scope => '{"room_id": true}');
SELECT poll.poll('{room}', scope => '{"room_id": 7, "kind": "a"}');
SELECT poll.poll('{kinds}', scope => '{"room_id": 7}');
SELECT poll.poll('{all}', scope => '{"room_id": 7}');
SELECT poll.poll('{room}', :'c2', scope => '{"room_id": 7}');
SELECT poll.poll('{room}', :'ca', scope => '{"room_id": 7}');

-- DDL: what a scope needs stays, and its type may change
ALTER TABLE message RENAME room_id TO room;
ALTER TABLE message DROP kind;
ALTER TABLE message ALTER kind TYPE json USING to_json(kind);
SELECT poll.current_cursor('{room}', '{"room_id": 0}') AS c0 \gset
ALTER TABLE message ALTER room_id TYPE text;
SELECT poll.poll('{room}', :'c0', scope => '{"room_id": 0}');
SELECT poll.current_cursor('{room}', '{"room_id": 0}') AS c0 \gset
UPDATE message SET body = 'text' WHERE id = 3;
SELECT op, key FROM poll.changes('room', :'c0', scope => '{"room_id": "0"}');
SELECT poll.untrack('kinds');
ALTER TABLE message DROP kind;

-- track() refuses what cannot be a scope
SELECT poll.track('message', 'x', scope => '{nothing}');
SELECT poll.track('message', 'x', scope => '{}');
SELECT poll.track('message', 'x', scope => '{room_id,room_id}');
SELECT poll.track('message', 'x', scope => '{NULL}');
ALTER TABLE message ADD j json;
SELECT poll.track('message', 'x', scope => '{j}');

-- values whose equality is wider than their text are different rooms
CREATE TABLE priced (id int PRIMARY KEY, price numeric, at timestamptz, "odd ""name""" text);
CREATE INDEX ON priced (price, id);
SELECT poll.track('priced', scope => '{price}'), poll.track('priced', 'at', scope => '{at}'),
	   poll.track('priced', 'odd', scope => '{"odd \"name\""}');
INSERT INTO priced SELECT g, CASE g % 2 WHEN 0 THEN 1.0 ELSE 1.00 END, '2026-01-01 12:00+00', 'it''s' FROM generate_series(1, 7) g;
SELECT pages('priced', '{"price": 1.0}', NULL, 2);
SELECT pages('priced', '{"price": "1.00"}', NULL, 2);
SELECT poll.current_cursor('{priced}', '{"price": 1.0}') AS c \gset
UPDATE priced SET price = 1.00 WHERE id = 2;
SELECT op, key FROM poll.changes('priced', :'c', scope => '{"price": 1.0}');

-- and the session's settings do not matter
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SELECT count(*) FROM poll.changes('at', scope => '{"at": "2026-01-01 12:00:00Z"}');
SELECT poll.current_cursor('{at}', '{"at": "2026-01-01 12:00+00"}') AS c \gset
UPDATE priced SET id = id + 100 WHERE id = 1;
RESET TimeZone;
RESET DateStyle;
SELECT op, key FROM poll.changes('at', :'c', scope => '{"at": "2026-01-01 13:00+01"}');
SELECT count(*) FROM poll.changes('odd', scope => '{"odd \"name\"": "it''s"}');

-- values are taken as the column would: padded, rounded
CREATE TABLE padded (id int PRIMARY KEY, c char(5), n numeric(10, 2));
INSERT INTO padded VALUES (1, 'a', 7);
SELECT poll.track('padded', scope => '{c,n}');
SELECT op, key FROM poll.changes('padded', scope => '{"c": "a", "n": 7}');
SELECT poll.current_cursor('{padded}', '{"c": "a", "n": "7.0"}') AS c \gset
UPDATE padded SET id = 2;
SELECT op, key FROM poll.changes('padded', :'c', scope => '{"c": "a", "n": 7.00}');

-- names of other things cannot be values
CREATE TABLE named (id int PRIMARY KEY, tab regclass);
SELECT poll.track('named', scope => '{tab}');

-- the channel of a scope cannot be found out: not a hash that a client could steer
SELECT count(*) AS guessed
  FROM poll.change c, poll.feed f
 WHERE c.channel = hashtextextended(E'\x01\x010', f.id) | (1::bigint << 63);

-- a policy that polls another scope while a scope is read
CREATE TABLE nested (id int PRIMARY KEY, room int);
INSERT INTO nested SELECT g, CASE WHEN g % 2 = 0 THEN 1 END FROM generate_series(1, 20) g;
SELECT poll.track('nested', scope => '{room}');
CREATE FUNCTION poll_within(int) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('nested.deep', true) = '1' THEN
		RETURN true;
	END IF;
	PERFORM set_config('nested.deep', '1', true), poll.poll('{nested}', NULL, 2, '{"room": null}'),
			set_config('nested.deep', '0', true);
	RETURN true;
END $$;
ALTER TABLE nested ENABLE ROW LEVEL SECURITY;
CREATE POLICY within ON nested USING (poll_within(id));
CREATE ROLE regress_poll_scope;
GRANT SELECT ON nested TO regress_poll_scope;
SET ROLE regress_poll_scope;
SELECT count(*) FROM poll.changes('nested', NULL, 10, '{"room": 1}');
SELECT count(*) FROM poll.changes('nested', NULL, 5, '{"room": null}');
RESET ROLE;

DROP TABLE message, priced, padded, named, nested;
DROP FUNCTION poll_within;
DROP ROLE regress_poll_scope;
DROP FUNCTION pages;
